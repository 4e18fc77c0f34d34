//! A stream sent on to several servers at once.

use std::time::Duration;

use lenscast::cloud::restream::{Outputs, Restream};
use lenscast::protocol::StreamUrl;
use lenscast::protocol::app::{Destination, OutputState};
use tokio::sync::mpsc;

use crate::ingest::{KEY, STREAM, Server, ffmpeg};
use crate::material;
use crate::support::{Nginx, Recordings};

const SOON: Duration = Duration::from_secs(10);

fn to(url: &str, name: &str) -> Destination {
    Destination { url: StreamUrl::parse(url).expect("a URL"), name: Some(name.to_owned()) }
}

async fn wait(outputs: &mut mpsc::Receiver<Outputs>, seen: &mut Vec<Outputs>, is_it: impl Fn(&Outputs) -> bool) {
    let found = async {
        while !seen.last().is_some_and(&is_it) {
            seen.push(outputs.recv().await.expect("it runs"));
        }
    };
    let found = tokio::time::timeout(SOON, found).await;
    assert!(found.is_ok(), "in vain; so far {seen:#?}");
}

/// Asserts that `recordings` hold the end of what was published, without gaps.
fn assert_tail(recordings: Recordings, count: usize, pictures: &[usize], sounds: &[usize], at_least: usize) {
    let all = recordings.finish();
    assert_eq!(all.len(), count);
    for recording in all {
        let frames = recording.frames();
        assert!(frames[0].key && frames.len() >= at_least, "{} frames", frames.len());
        // FLV adds five bytes.
        let sizes: Vec<usize> = frames.iter().map(|frame| frame.bytes - 5).collect();
        assert_eq!(sizes, pictures[pictures.len() - sizes.len()..]);
        let heard = recording.sound_ms().len();
        assert!(heard <= sounds.len() && heard * 30 + 2 * 47 >= frames.len() * 46, "{heard} sounds");
    }
}

#[test]
fn two_servers_one_of_them_late_get_every_frame() {
    lenscast::media::init().expect("GStreamer");
    let server = Server::start();
    let (here, mut late, refusing) = (Nginx::start(), Nginx::absent(), Nginx::start());
    let (here_seen, late_seen) = (here.recordings(), late.recordings());
    let publisher = ffmpeg(&["-re", "-stream_loop", "-1"], material::long(), &server.url(KEY));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (seen, late_seen) = runtime.block_on(async {
        let (sender, mut outputs) = mpsc::channel(1);
        let destinations = vec![
            to(&here.url("live", "one"), "here"),
            // The same server again: connections of one process must not be mixed up.
            to(&here.url("live", "two"), "here too"),
            to(&late.url("live", "key"), "late"),
            to(&refusing.url("keyed", "bad-key"), "refusing"),
        ];
        let restream = Restream::start(&server.broadcast, destinations, sender);
        let mut seen = Vec::new();
        let status = |outputs: &Outputs, index: usize| outputs[index].status;
        wait(&mut outputs, &mut seen, |now| {
            status(now, 0) == OutputState::Active
                && status(now, 1) == OutputState::Active
                && status(now, 2) == OutputState::Error
                && status(now, 3) == OutputState::Error
        })
        .await;
        late.launch();
        wait(&mut outputs, &mut seen, |now| status(now, 2) == OutputState::Active).await;
        let enough = tokio::task::spawn_blocking(move || {
            late_seen.wait_frames(0, 45, SOON);
            late_seen
        });
        let late_seen = enough.await.expect("enough frames");
        drop(publisher);
        server.wait_stopped(1);
        server.ingest.close(STREAM);
        wait(&mut outputs, &mut seen, |now| (0..3).all(|index| status(now, index) == OutputState::Stopped)).await;
        restream.stop().await;
        (seen, late_seen)
    });
    here_seen.wait_closed(1, SOON);
    late_seen.wait_closed(0, SOON);
    let frames = server.finish();
    let sizes = |video: bool| -> Vec<usize> {
        frames.iter().filter(|frame| frame.is_video() == video).map(|frame| frame.data.len()).collect()
    };
    assert_tail(here_seen, 2, &sizes(true), &sizes(false), 75);
    assert_tail(late_seen, 1, &sizes(true), &sizes(false), 45);
    for outputs in &seen {
        for healthy in &outputs[..2] {
            assert_eq!((healthy.status == OutputState::Error, &healthy.error), (false, &None), "touched by another");
        }
    }
    assert_eq!(refusing.publish_requests("bad-key"), 2, "a rejected key is tried once more");
    let texts: Vec<&str> = seen.iter().filter_map(|outputs| outputs[2].error.as_deref()).collect();
    assert!(texts.iter().all(|text| text.contains("nothing listens")), "{texts:?}");
    let last = &seen[seen.len() - 1];
    assert_eq!((last[1].name.as_deref(), last[1].status), (Some("here too"), OutputState::Stopped));
    assert!(!format!("{last:?}").contains("bad-key"), "{last:?}");
}
