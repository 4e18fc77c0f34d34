//! The faults. Each function returns when its fault is over and everything has to recover by itself.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::{self, START};
use crate::schedule::{Fault, Kind};
use crate::stage::{Outcome, Stage};
use crate::support::control::small;
use crate::support::{Control, monotonic};
use crate::truth::STREAMING;
use crate::viewers::{self, WhepViewer};

/// Makes the fault happen for about `hold`.
pub fn strike(fault: Fault, stage: &mut Stage, hold: Duration) -> Outcome {
    let current = stage.current.as_ref().expect("faults strike streams");
    let (kind, owner) = (current.kind, current.owner);
    match fault {
        Fault::IngestCut => {
            stage.ingest.cut();
            stage.pass(hold)?;
            stage.ingest.mend();
        }
        Fault::IngestStalled => {
            stage.ingest.stall();
            noticed(stage)?;
            stage.pass(hold)?;
            stage.ingest.flow();
        }
        Fault::CloudFrozen => {
            // Behind the cable a frozen server shows only by missing acknowledgements, so two of them must have come
            // before.
            stage.pass(HABIT)?;
            stage.cloud_is_down = true;
            stage.cloud.process().signal(Signal::SIGSTOP);
            noticed(stage)?;
            stage.pass(hold)?;
            stage.cloud.process().signal(Signal::SIGCONT);
            stage.cloud_is_down = false;
        }
        Fault::CloudKilled => restart_cloud(stage, Signal::SIGKILL)?,
        Fault::CloudRestarted => restart_cloud(stage, Signal::SIGTERM)?,
        Fault::DaemonKilled => restart_daemon(stage, Signal::SIGKILL),
        Fault::DaemonRestarted => {
            let began = Instant::now();
            let restream = stage.current.take().is_some_and(|current| current.restream);
            stage.whep = None;
            restart_daemon(stage, Signal::SIGTERM);
            // A shutdown ends the stream, and is reported as an end.
            scene::ended(stage)?;
            stage.until("the glasses' link", LINK, |stage| stage.is_connected(began))?;
            match kind {
                Kind::Managed => scene::start_managed(stage, owner, restream)?,
                Kind::Unmanaged => scene::start_unmanaged(stage, owner)?,
            }
        }
        Fault::LinkCut => {
            stage.link.cut();
            stage.pass(hold)?;
            stage.link.mend();
        }
        Fault::AppCut => {
            let id = stage.call(owner, "dropSocket", &json!([]))?;
            stage.outcome(owner, id, START)??;
            stage.deafen(owner);
        }
        Fault::DestinationKilled => {
            stage.destination.kill();
            stage.pass(hold)?;
            stage.destination.launch();
        }
        Fault::ServerKilled => {
            stage.server.kill();
            stage.pass(hold)?;
            stage.server.launch();
        }
        Fault::ServerFrozen => {
            stage.server.freeze();
            noticed(stage)?;
            stage.pass(hold)?;
            stage.server.thaw();
        }
        Fault::BlackHole => {
            stage.network.cut();
            noticed(stage)?;
            stage.pass(hold)?;
            stage.network.mend();
        }
        Fault::Joined => joined(stage, 1 - owner)?,
        Fault::Preempted => preempted(stage, owner)?,
        _ => untouched(stage, |stage| match fault {
            Fault::ViewersComeAndGo => viewers_come_and_go(stage, hold),
            Fault::SlowViewers => slow_viewers(stage, hold),
            Fault::Photo => photo(stage, kind, 1 - owner),
            Fault::Conflict => conflict(stage, 1 - owner),
            Fault::IngestGarbage => ingest_garbage(stage, hold),
            Fault::ControlGarbage => control_garbage(stage, hold),
            Fault::Bitrate => bitrate(stage, hold),
            _ => wrong_stop(stage),
        })?,
    }
    Ok(())
}

/// Waits until the glasses notice that nobody reads any more.
fn noticed(stage: &mut Stage) -> Outcome {
    stage.until("the glasses to notice", STREAMING, |stage| !stage.glasses.is("streaming")).map(drop)
}

fn restart_cloud(stage: &mut Stage, signal: Signal) -> Outcome {
    stage.cloud.restart(signal);
    // Its last statuses are read before they are void.
    stage.look()?;
    for app in 0..stage.apps.len() {
        stage.deafen(app);
    }
    Ok(())
}

fn restart_daemon(stage: &mut Stage, signal: Signal) {
    stage.daemon.restart(signal);
    // The daemon's watchers know by the end of their connection that it is gone.
    stage.glasses.forget();
    stage.watch = stage.daemon.watch();
}

/// Does something that the stream must not notice.
fn untouched(stage: &mut Stage, act: impl FnOnce(&mut Stage) -> Outcome) -> Outcome {
    let owner = stage.current.as_ref().expect("there is a stream").owner;
    let of = |stage: &Stage| {
        let app = &stage.apps[owner];
        let told = |told: &Option<crate::truth::Told>| told.as_ref().map(|told| (told.word.clone(), told.since));
        [told(&app.managed.told), told(&app.unmanaged.told), told(&stage.glasses.told)]
    };
    let before = of(stage);
    act(stage)?;
    stage.look()?;
    let after = of(stage);
    if before == after { Ok(()) } else { Err(format!("the stream was {before:?} and is {after:?}")) }
}

fn hls(stage: &Stage) -> String {
    stage.current.as_ref().and_then(|current| current.hls.clone()).expect("a managed stream plays")
}

fn viewers_come_and_go(stage: &mut Stage, hold: Duration) -> Outcome {
    let hls = hls(stage);
    let more: Vec<WhepViewer> = (0..2).map(|_| WhepViewer::join(&whep_url(&hls))).collect();
    for url in [hls.clone(), hls.replace("/hls/", "/dash/").replace("index.m3u8", "manifest.mpd")] {
        match viewers::get(&url, START) {
            Some((200, body)) if body.len() > 100 => {}
            other => return Err(format!("{url}: {:?}", other.map(|(status, body)| (status, body.len())))),
        }
    }
    let playlist = viewers::get(&viewers::media_playlist(&hls), START).unwrap_or_default().1;
    let segment = viewers::newest_segment(&hls, &String::from_utf8_lossy(&playlist));
    let segment = segment.ok_or("active, and the playlist lists no segment")?;
    if !viewers::get(&segment, START).is_some_and(|(status, body)| status == 200 && body.len() > 1000) {
        return Err(format!("{segment} cannot be had"));
    }
    stage.until("pictures for new viewers", START, |_| more.iter().all(|viewer| viewer.pictures() > 5))?;
    stage.pass(hold)
}

/// The WHEP URL that belongs to an HLS URL.
pub fn whep_url(hls: &str) -> String {
    hls.replace("/hls/", "/whep/").replace("/index.m3u8", "")
}

fn slow_viewers(stage: &mut Stage, hold: Duration) -> Outcome {
    let url = viewers::media_playlist(&hls(stage));
    let path = url.splitn(4, '/').last().unwrap_or_default();
    let deaf = viewers::deaf(("127.0.0.1", stage.cloud.http()), &format!("/{path}"), 8);
    stage.pass(hold)?;
    drop(deaf);
    Ok(())
}

fn photo(stage: &mut Stage, kind: Kind, other: usize) -> Outcome {
    let id = stage.call(other, "requestPhoto", &json!([{}]))?;
    let outcome = stage.outcome(other, id, 3 * START)?;
    match (kind, outcome) {
        (Kind::Managed, Ok(photo)) if photo["bytes"].as_u64() > Some(1000) => Ok(()),
        (Kind::Unmanaged, Err(why)) if why.contains("unmanaged stream of") => Ok(()),
        (_, outcome) => Err(format!("a photo during a {kind:?} stream gave {outcome:?}")),
    }
}

fn conflict(stage: &mut Stage, other: usize) -> Outcome {
    let id = stage.call(other, "startManagedStream", &json!([{}]))?;
    match stage.outcome(other, id, START)? {
        Err(why) if why.contains("unmanaged stream already active") => {}
        outcome => return Err(format!("a managed start while an unmanaged stream runs gave {outcome:?}")),
    }
    let error = stage.daemon.control().refused(&small("rtmp://127.0.0.1:1/live/k", "org.stranger", "stranger"));
    if error["cause"] == "camera_busy" { Ok(()) } else { Err(format!("a stranger was refused with {error}")) }
}

fn joined(stage: &mut Stage, other: usize) -> Outcome {
    untouched(stage, |stage| {
        let id = stage.call(other, "startManagedStream", &json!([{}]))?;
        stage.outcome(other, id, START)?.map_err(|why| format!("joining was refused: {why}"))?;
        let id = stage.call(other, "stopManagedStream", &json!([]))?;
        stage.outcome(other, id, START)??;
        stage.until("the end for who left", START, |stage| stage.apps[other].managed.stream.is_none()).map(drop)
    })
}

fn preempted(stage: &mut Stage, owner: usize) -> Outcome {
    let other = 1 - owner;
    let restream = stage.current.take().is_some_and(|current| current.restream);
    stage.whep = None;
    scene::start_unmanaged(stage, other)?;
    if stage.apps[owner].managed.stream.is_some() {
        return Err("the managed stream has lost the camera, and its app was not told".into());
    }
    stage.pass(Duration::from_secs(1))?;
    scene::stop(stage, other, Kind::Unmanaged)?;
    scene::ended(stage)?;
    scene::start_managed(stage, owner, restream)
}

fn ingest_garbage(stage: &mut Stage, hold: Duration) -> Outcome {
    let connect = |port: u16| TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string());
    let (rtmp, http) = (stage.cloud.rtmp(), stage.cloud.http());
    let mut kept_open = vec![connect(rtmp)?, connect(http)?];
    let mut handshake = vec![3];
    handshake.extend([7; 1536]);
    let noise: Vec<u8> = (0..5000_u32).map(|n| (n * n % 251) as u8).collect();
    let requests: [(u16, &[u8]); 6] = [
        (rtmp, &noise),
        (rtmp, &handshake),
        (rtmp, &handshake[..700]),
        (rtmp, b"GET / HTTP/1.1\r\n\r\n"),
        (http, &noise),
        (http, b"GET /hls/ HTTP/1.1\r\nHost: "),
    ];
    for (port, bytes) in requests {
        let mut stream = connect(port)?;
        // A request that is refused before all of it was sent has been answered too.
        let _ = stream.write_all(bytes);
        kept_open.push(stream);
    }
    stage.pass(hold)?;
    drop(kept_open);
    Ok(())
}

fn control_garbage(stage: &mut Stage, hold: Duration) -> Outcome {
    let mut kept_open = Vec::new();
    for socket in [stage.daemon.socket(), stage.cloud.socket()] {
        let mut control = Control::connect(&socket);
        for line in [
            &b"nonsense\n"[..],
            b"{}\n",
            b"{\"cmd\":\"launch\"}\n",
            b"\xff\x00\n",
            b"{\"cmd\":\"stop\",\"stream_id\":7}\n",
        ] {
            control.send(line);
            match control.line() {
                Some(reply) if reply["ok"] == false => {}
                other => return Err(format!("{} answers nonsense with {other:?}", socket.display())),
            }
        }
        let mut half_said = UnixStream::connect(&socket).map_err(|error| error.to_string())?;
        half_said.write_all(b"{\"cmd\":\"sta").map_err(|error| error.to_string())?;
        kept_open.push((control, half_said));
    }
    stage.pass(hold)
}

fn bitrate(stage: &mut Stage, hold: Duration) -> Outcome {
    for bitrate in [200_000, 300_000] {
        stage.daemon.control().granted(&json!({"cmd": "bitrate", "bitrate": bitrate}));
        stage.pass(hold / 2)?;
    }
    Ok(())
}

fn wrong_stop(stage: &mut Stage) -> Outcome {
    let stop = json!({"cmd": "stop", "stream_id": "no-such-stream"});
    let refused =
        [stage.daemon.control().refused(&stop), Control::connect_to_cloud(&stage.cloud.socket()).refused(&stop)];
    match refused.iter().find(|error| error["cause"] != "unknown_stream") {
        Some(error) => Err(format!("a stop of a stream there is not is refused with {error}")),
        None => Ok(()),
    }
}

/// Whether everything is as before, after the fault that ended at `since`.
pub fn is_well(stage: &mut Stage, since: Duration, pictures: u64) -> bool {
    let Some(current) = &stage.current else { return false };
    let app = &stage.apps[current.owner];
    let told = match current.kind {
        Kind::Managed => app.managed.is("active"),
        Kind::Unmanaged => app.unmanaged.is("active"),
    };
    let sent_on = || {
        !current.restream
            || app.status["outputs"][0]["status"] == "active" && stage.forwarded().is_some_and(|at| at > since)
    };
    told && stage.glasses.is("streaming")
        && stage.progress().is_some_and(|at| at > since)
        && stage.whep.as_ref().is_none_or(|viewer| viewer.pictures() > pictures + 3)
        && sent_on()
}

/// Waits for `is_well`, and then for the link. Returns how long each took.
pub fn recover(stage: &mut Stage, fault: Fault, began: Instant) -> Outcome<(Duration, Option<Duration>)> {
    let since = monotonic();
    let pictures = stage.whep.as_ref().map_or(0, WhepViewer::pictures);
    // The statuses of an unmanaged stream reach its app only over the glasses' link.
    let unmanaged = stage.current.as_ref().is_some_and(|current| current.kind == Kind::Unmanaged);
    let promise = if unmanaged && fault.breaks_link() { LINK } else { fault.promise() };
    let took = stage.until("all to be well again", 3 * promise, |stage| is_well(stage, since, pictures))?;
    if !fault.breaks_link() {
        return Ok((took, None));
    }
    stage.until("the glasses' link and the apps", 3 * LINK, |stage| stage.is_connected(began))?;
    Ok((took, Some(monotonic().saturating_sub(since))))
}

/// Time for two acknowledgements of 64 KiB each, at about 40 kB/s.
const HABIT: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to connect the link.
const LINK: Duration = Duration::from_secs(30);

/// An app's options for a managed stream that takes almost nothing to encode.
pub fn cheap() -> Value {
    json!({"width": 320, "height": 240, "bitrate": 300_000, "frameRate": 15})
}
