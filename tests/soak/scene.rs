//! A stream from its start to its end.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::faults::{self, cheap, whep_url};
use crate::schedule::{Ending, Fault, Kind, Scene};
use crate::stage::{Current, Outcome, Stage};
use crate::support::monotonic;
use crate::viewers::WhepViewer;

/// Time for a start: three times the promise of 1.5 s.
pub const START: Duration = Duration::from_millis(4500);
/// Time for an end: the glasses have 5 s to confirm it.
const END: Duration = Duration::from_secs(15);

/// The recovery from a fault.
pub struct Recovery {
    pub fault: Fault,
    pub took: Duration,
    pub link: Option<Duration>,
}

/// Plays a scene. Calls `tell` with each fault before it strikes (without a recovery) and when it is over.
pub fn play(
    stage: &mut Stage,
    scene: &Scene,
    until: Duration,
    mut tell: impl FnMut(Fault, Option<Recovery>),
) -> Outcome {
    start(stage, scene)?;
    for step in &scene.steps {
        if monotonic() > until {
            break;
        }
        stage.pass(step.quiet)?;
        tell(step.fault, None);
        let began = Instant::now();
        faults::strike(step.fault, stage, step.hold)?;
        let (took, link) = faults::recover(stage, step.fault, began)?;
        tell(step.fault, Some(Recovery { fault: step.fault, took, link }));
    }
    end(stage, scene)
}

fn start(stage: &mut Stage, scene: &Scene) -> Outcome {
    match scene.kind {
        Kind::Managed => start_managed(stage, scene.app, scene.restream),
        Kind::Unmanaged => start_unmanaged(stage, scene.app),
    }
}

/// Starts a managed stream with a viewer.
pub fn start_managed(stage: &mut Stage, app: usize, restream: bool) -> Outcome {
    let mut options = json!({"enableWebRTC": true, "video": cheap()});
    if restream {
        options["restreamDestinations"] = json!([{"url": stage.destination.url("live", "onwards")}]);
    }
    let id = stage.call(app, "startManagedStream", &json!([options]))?;
    let result = stage.outcome(app, id, START)?.map_err(|why| format!("a managed start failed: {why}"))?;
    let hls = result["hlsUrl"].as_str().ok_or("active without a URL")?.to_owned();
    stage.whep = Some(WhepViewer::join(&whep_url(&hls)));
    stage.current = Some(Current {
        kind: Kind::Managed,
        since: monotonic(),
        owner: app,
        key: String::new(),
        hls: Some(hls),
        restream,
    });
    flows(stage)
}

/// Starts an unmanaged stream.
pub fn start_unmanaged(stage: &mut Stage, app: usize) -> Outcome {
    let key = format!("{}-{}", stage.apps[app].sdk.package(), stage.requests);
    stage.apps[app].key.clone_from(&key);
    let url = stage.server.url("live", &key);
    let id = stage.call(app, "startStream", &json!([{"rtmpUrl": url, "video": cheap()}]))?;
    stage.outcome(app, id, START)?.map_err(|why| format!("an unmanaged start failed: {why}"))?;
    stage.current =
        Some(Current { kind: Kind::Unmanaged, since: monotonic(), owner: app, key, hls: None, restream: false });
    flows(stage)
}

fn flows(stage: &mut Stage) -> Outcome {
    let since = monotonic();
    let limit = if stage.current.as_ref().is_some_and(|current| current.restream) { 2 * START } else { START };
    stage.until("the stream to flow", limit, |stage| faults::is_well(stage, since, 0)).map(drop)
}

/// Lets an app stop its stream.
pub fn stop(stage: &mut Stage, app: usize, kind: Kind) -> Outcome {
    let call = if kind == Kind::Managed { "stopManagedStream" } else { "stopStream" };
    let id = stage.call(app, call, &json!([]))?;
    stage.outcome(app, id, START)?.map(drop)
}

fn end(stage: &mut Stage, scene: &Scene) -> Outcome {
    let (kind, app) = (scene.kind, scene.app);
    match scene.ending {
        Ending::Stop => stop(stage, app, kind)?,
        Ending::StopWhileLost => {
            match kind {
                Kind::Managed => stage.ingest.cut(),
                Kind::Unmanaged => stage.network.cut(),
            }
            stage.until("the glasses to notice", crate::truth::STREAMING, |stage| !stage.glasses.is("streaming"))?;
            stop(stage, app, kind)?;
            ended(stage)?;
            match kind {
                Kind::Managed => stage.ingest.mend(),
                Kind::Unmanaged => stage.network.mend(),
            }
        }
        Ending::StopAndStart => {
            stop(stage, app, kind)?;
            stage.whep = None;
            stage.current = None;
            // The package itself refuses a start until it has been told of the end; another app need not wait.
            let next = Scene { app: 1 - app, restream: false, ..scene.clone() };
            start(stage, &next)?;
            stage.until("the end of the one before", END, |stage| {
                stage.apps[app].managed.stream.is_none() && stage.apps[app].unmanaged.stream.is_none()
            })?;
            stop(stage, 1 - app, kind)?;
        }
        Ending::ByPerson => {
            let listener = if kind == Kind::Managed { &stage.apps[app].managed } else { &stage.apps[app].unmanaged };
            let id = listener.stream.clone().ok_or("there is no stream to stop")?;
            stage.cloud.ctl(&["stop", &id]);
        }
    }
    ended(stage)?;
    stage.pass(Duration::from_millis(300))
}

/// Waits until no stream runs and everybody knows it.
pub fn ended(stage: &mut Stage) -> Outcome {
    stage.until("the end", END, |stage| {
        let over =
            |app: &crate::stage::App| app.managed.stream.is_none() && app.unmanaged.stream.is_none() && !app.is_busy();
        stage.apps.iter().all(over) && stage.glasses.stream.is_none()
    })?;
    stage.current = None;
    stage.whep = None;
    let glasses = stage.daemon.control().status();
    let streams = stage.cloud.streams();
    if glasses["stream"].is_null() && streams.as_array().is_some_and(Vec::is_empty) {
        Ok(())
    } else {
        Err(format!("after the end was told there is {} on the glasses and {streams} in the cloud", glasses["stream"]))
    }
}
