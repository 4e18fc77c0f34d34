//! Sound through real ALSA drivers.

use std::time::Duration;

use crate::live::{LIVE, Live, SIZE};
use crate::support::guest::Program;
use crate::support::recordings::Recording;
use crate::support::{Guest, poll_until, process};

const TONE: &str = "gst-launch-1.0 -q audiotestsrc is-live=true freq=1000 ! audio/x-raw,rate=48000,channels=2 ! \
                    alsasink device=hw:0,0 buffer-time=200000";
const SOUND: &str = "[audio]\ndevice = \"hw:0,1\"\n";

/// Plays the tone. Returns once the card has data: on a busy machine that takes seconds.
fn play(guest: &Guest) -> Program {
    let tone = guest.start(&["bash", "-c", TONE], &[]);
    poll_until("the tone", LIVE, || {
        guest.shell("cat /proc/asound/card0/pcm0p/sub0/status").contains("RUNNING").then_some(())
    });
    tone
}

#[test]
fn a_tone_arrives_with_its_pitch_and_in_step_with_the_picture() {
    let guest = Guest::boot();
    guest.hardware("sound pcm_substreams=1");
    guest.webcam("0001", "--mode yuyv:320x240@30");
    let tone = play(&guest);
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

/// The tone's frequency, Hz, to the nearest 10: the median over its periods, since a busy guest's card leaves gaps.
fn pitch(recording: &std::path::Path) -> u32 {
    let path = recording.to_str().expect("a path in UTF-8");
    let arguments = ["-v", "error", "-ss", "3", "-t", "4", "-i", path, "-f", "s16le", "-ac", "1", "-ar", "16000", "-"];
    let samples = process::run("ffmpeg", &arguments).stdout;
    let samples: Vec<f64> =
        samples.chunks_exact(2).map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]]))).collect();
    let rising = samples.windows(2).enumerate().filter(|(_, pair)| pair[0] < 0.0 && pair[1] >= 0.0);
    let crossings: Vec<f64> = rising.map(|(n, pair)| n as f64 + pair[0] / (pair[0] - pair[1])).collect();
    let mut periods: Vec<f64> = crossings.windows(2).map(|pair| pair[1] - pair[0]).collect();
    periods.sort_by(f64::total_cmp);
    let Some(median) = periods.get(periods.len() / 2) else { return 0 };
    ((16_000.0 / median / 10.0).round() * 10.0) as u32
}

/// The card's speaker is also its microphone: what the wearer hears is in the stream.
#[test]
fn the_wearer_hears_that_the_stream_is_live() {
    let guest = Guest::boot();
    guest.hardware("sound pcm_substreams=1");
    guest.webcam("0001", "--mode yuyv:320x240@30");
    let live = Live::begin(&guest, &format!("{SOUND}[speaker]\ndevice = \"hw:0,0\"\n"), SIZE, 500_000);
    live.recordings
        .wait("5 s of sound", LIVE, |all| all[0].sound_ms().last().is_some_and(|last| *last > 5_000).then_some(()));
    let ended = live.finish();
    let path = ended.recordings[0].path.to_str().expect("a path in UTF-8");
    let samples =
        process::run("ffmpeg", &["-v", "error", "-i", path, "-f", "s16le", "-ac", "1", "-ar", "16000", "-"]).stdout;
    let samples: Vec<f64> =
        samples.chunks_exact(2).map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]]))).collect();
    let when = |frequency: f64| {
        let heard = |window: &[f64]| strength(window, frequency) > 500.0;
        let all: Vec<usize> =
            samples.chunks(800).enumerate().filter(|(_, w)| heard(w)).map(|(number, _)| number).collect();
        assert!(!all.is_empty(), "{frequency} Hz is not to be heard");
        all[all.len() / 2]
    };
    assert!(when(660.0) < when(880.0), "two notes up");
}

/// The strength of one frequency in samples at 16 kHz: its amplitude.
fn strength(samples: &[f64], frequency: f64) -> f64 {
    let part = |wave: fn(f64) -> f64| -> f64 {
        let turn = std::f64::consts::TAU * frequency / 16_000.0;
        samples.iter().enumerate().map(|(number, sample)| sample * wave(turn * number as f64)).sum()
    };
    2.0 * part(f64::sin).hypot(part(f64::cos)) / samples.len() as f64
}

#[test]
fn a_card_that_vanishes_takes_the_sound_and_not_the_picture() {
    let guest = Guest::boot();
    guest.hardware("sound pcm_substreams=1");
    guest.webcam("0001", "--mode yuyv:320x240@30");
    let tone = play(&guest);
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

/// Seconds from beep to beep of the rig's `beeper`.
const BEAT: f64 = 1.5;

#[test]
fn what_happens_at_once_is_heard_as_it_is_seen() {
    let guest = Guest::boot_alone();
    guest.hardware("sound pcm_substreams=1");
    let webcam = guest.webcam("0001", "--mode yuyv:320x240@30");
    let beeper = guest.start(&["beeper", "hw:0,0"], &[]);
    let began = poll_until("the beeper", LIVE, || numbers_after("began at ", &beeper.output()).first().copied());
    let live = Live::begin(&guest, SOUND, SIZE, 500_000);
    live.recordings.wait("sound", LIVE, |all| all[0].sound_ms().last().is_some_and(|last| *last > 1000).then_some(()));
    for count in 1..=9 {
        webcam.flash();
        poll_until("the flash", LIVE, || (numbers_after("flash at ", &webcam.log()).len() == count).then_some(()));
        live.wait_more_frames(25);
    }
    assert_eq!(beeper.exited(), None, "it kept up: {}", beeper.output());
    let flashed = numbers_after("flash at ", &webcam.log());
    let ended = live.finish();
    let recording = &ended.recordings[0];
    let (seen, heard) = (flashes(recording), beeps(recording));
    assert_eq!(seen.len(), flashed.len(), "every flash is in the recording: {seen:?}");
    assert!(heard.len() >= 4, "beeps are in the recording: {heard:?}");
    // From the clock of camera and card to the recording's.
    let shift = median(seen.iter().zip(&flashed).map(|(seen, flashed)| seen - flashed).collect());
    let late = heard.iter().map(|heard| {
        let since = (heard - shift - began) / BEAT;
        (since - since.round()) * BEAT * 1000.0
    });
    let late: Vec<f64> = late.collect();
    let offset = median(late.clone());
    println!("sound is {offset:.0} ms later than the picture; beep by beep: {late:.0?}");
    assert!(offset.abs() <= 50.0, "sound is {offset:.0} ms later than the picture; beep by beep: {late:?}");
}

/// The numbers after `word` in `text`.
fn numbers_after(word: &str, text: &str) -> Vec<f64> {
    let number = |line: &str| line.split(word).nth(1)?.trim().parse().ok();
    text.lines().filter_map(number).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// When white pictures begin in the recording, seconds.
fn flashes(recording: &Recording) -> Vec<f64> {
    let path = recording.path.to_str().expect("a path in UTF-8");
    let one_pixel = ["-v", "error", "-i", path, "-vf", "scale=1:1:flags=area", "-fps_mode", "passthrough"];
    let pictures =
        process::run("ffmpeg", &[&one_pixel[..], &["-f", "rawvideo", "-pix_fmt", "gray", "-"]].concat()).stdout;
    let frames = recording.frames();
    assert_eq!(pictures.len(), frames.len(), "every frame can be decoded");
    let white = pictures.iter().zip(frames).filter(|(grey, _)| **grey > 200);
    white.map(|(_, frame)| f64::from(frame.dts_ms) / 1000.0).collect()
}

/// When sound begins after silence, seconds, by the times of its packets, each of which holds 1024 samples.
fn beeps(recording: &Recording) -> Vec<f64> {
    const PACKET: usize = 1024;
    let path = recording.path.to_str().expect("a path in UTF-8");
    let samples = process::run("ffmpeg", &["-v", "error", "-i", path, "-vn", "-f", "s16le", "-ac", "1", "-"]).stdout;
    let samples: Vec<i16> = samples.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    let times = recording.sound_ms();
    assert!(samples.len().div_ceil(PACKET) <= times.len(), "no packet holds more than was thought");
    let mut quiet = 0;
    let mut beeps = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        if sample.unsigned_abs() < 3000 {
            quiet += 1;
            continue;
        }
        if quiet > 20_000 {
            beeps.push(f64::from(times[index / PACKET]) / 1000.0 + (index % PACKET) as f64 / 44_100.0);
        }
        quiet = 0;
    }
    beeps
}
