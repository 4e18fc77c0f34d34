//! Sound through real ALSA drivers.

use std::time::Duration;

use crate::live::{LIVE, Live, SIZE};
use crate::support::{Guest, process};

const TONE: &str = "gst-launch-1.0 -q audiotestsrc is-live=true freq=1000 ! audio/x-raw,rate=48000,channels=2 ! \
                    alsasink device=hw:0,0 buffer-time=200000";
const SOUND: &str = "[audio]\ndevice = \"hw:0,1\"\n";

#[test]
fn a_tone_arrives_with_its_pitch_and_in_step_with_the_picture() {
    let guest = Guest::boot();
    guest.hardware("sound pcm_substreams=1");
    guest.webcam("0001", "--mode yuyv:320x240@30");
    let tone = guest.start(&["bash", "-c", TONE], &[]);
    let live = Live::begin(&guest, SOUND, SIZE, 500_000);
    live.recordings
        .wait("8 s of sound", 2 * LIVE, |all| all[0].sound_ms().last().is_some_and(|last| *last > 8_000).then_some(()));
    tone.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = live.finish();
    let all = &ended.recordings;
    let (sound, frames) = (all[0].sound_ms(), all[0].frames());
    let apart = i64::from(sound[sound.len() - 1]) - i64::from(frames[frames.len() - 1].dts_ms);
    assert!(apart.abs() <= 150, "sound and picture end {apart} ms apart");
    assert_eq!(pitch(&all[0].path), 1000);
}

/// The tone's frequency, Hz, to the nearest 50, by its zero crossings.
fn pitch(recording: &std::path::Path) -> u32 {
    let path = recording.to_str().expect("a path in UTF-8");
    let arguments = ["-v", "error", "-ss", "3", "-t", "2", "-i", path, "-f", "s16le", "-ac", "1", "-ar", "16000", "-"];
    let samples = process::run("ffmpeg", &arguments).stdout;
    let samples: Vec<i16> = samples.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    let crossings = samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
    let hertz = crossings as f64 * 16_000.0 / samples.len() as f64;
    ((hertz / 50.0).round() * 50.0) as u32
}

#[test]
fn a_card_that_vanishes_takes_the_sound_and_not_the_picture() {
    let guest = Guest::boot();
    guest.hardware("sound pcm_substreams=1");
    guest.webcam("0001", "--mode yuyv:320x240@30");
    let tone = guest.start(&["bash", "-c", TONE], &[]);
    let mut live = Live::begin(&guest, SOUND, SIZE, 500_000);
    live.recordings.wait("sound", LIVE, |all| (all[0].sound_ms().len() > 20).then_some(()));
    tone.signal(nix::sys::signal::Signal::SIGKILL);
    guest.shell("echo snd_aloop.0 > /sys/bus/platform/drivers/snd_aloop/unbind");
    live.wait_more_frames(60);
    let told = live.watch.listen(Duration::from_secs(1));
    assert!(told.iter().all(|event| event.report().is_none()), "the stream was not touched: {told:?}");
    assert_eq!(live.daemon.control().status()["stream"]["state"], "streaming");
    live.finish();
}
