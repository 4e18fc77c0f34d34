//! The daemon's own capture and publisher under another rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lenscast::media::audio::AudioSource;
use lenscast::media::capture::{Capture, Plan};
use lenscast::media::flv::Metadata;
use lenscast::media::profile;
use lenscast::media::publisher::{Publisher, PublisherEvent as Published, Target};
use lenscast::media::source::{Rotation, VideoSource};
use lenscast::media::video::VideoPlan;
use lenscast::policy::bitrate::{self, Rule, UplinkEvent};
use lenscast::protocol::{AudioSettings, StreamUrl, VideoSettings};
use tokio::sync::mpsc;

/// Publishes noise and a tone to `url` as `rule` decides, until `stop`. A rule that wants samples more often than the
/// socket is read gets the same sample repeatedly.
pub fn publish(url: &str, video: VideoSettings, rule: &mut dyn Rule, interval: Duration, stop: &AtomicBool) {
    lenscast::media::init().expect("GStreamer is there");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(carry(url, video, rule, interval, stop));
}

async fn carry(url: &str, video: VideoSettings, rule: &mut dyn Rule, interval: Duration, stop: &AtomicBool) {
    let start = Instant::now();
    let mut decision = rule.on(UplinkEvent::Connected, Duration::ZERO);
    let (feed, audio) = (Arc::default(), AudioSettings::default());
    let plan = plan(VideoSettings { bitrate: decision.bitrate, ..video }, audio);
    let (capture_events, mut captured) = mpsc::channel(64);
    let (publisher_events, mut news) = mpsc::channel(64);
    let capture = Capture::open(1, async { Ok(plan) }, Arc::clone(&feed), capture_events);
    captured.recv().await.expect("the test picture can be captured");
    let metadata = Metadata {
        width: video.width,
        height: video.height,
        frame_rate: f64::from(video.frame_rate),
        video_bitrate: video.bitrate,
        audio: Some((audio.bitrate, audio.sample_rate)),
    };
    let target = Target { url: StreamUrl::parse(url).expect("our own URL"), metadata };
    let mut publisher = Publisher::open(1, target, feed, publisher_events);
    let looks = (bitrate::INTERVAL.as_millis() / interval.as_millis()).max(1) as u32;
    while !stop.load(Ordering::Relaxed) {
        let event = tokio::time::timeout(Duration::from_secs(1), news.recv()).await;
        let Ok(Some((_, Published::Sampled(sample)))) = event else { continue };
        for look in 0..looks {
            let now = start.elapsed() + interval * look;
            let next = rule.on(UplinkEvent::Sampled(sample), now);
            if next != decision {
                decision = next;
                capture.encode(decision);
            }
        }
    }
    publisher.close();
    publisher.join().await;
    capture.join(Duration::from_secs(3)).await;
}

fn plan(settings: VideoSettings, audio: AudioSettings) -> Plan {
    let profiles = profile::load(&[]).expect("the built-in profiles are good");
    let profile = profiles.into_iter().find(|profile| profile.name == "x264");
    let source = VideoSource::Test { pattern: "snow".into() };
    let video = VideoPlan { source, settings, rotation: Rotation::None, profile };
    Plan { video, audio: Some((AudioSource::Test, audio)) }
}
