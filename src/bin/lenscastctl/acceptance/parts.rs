//! Camera modes, encoders, microphone and photo, one at a time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lenscast::camera::{self, Device, FrameRate, Mode, ModeRange, PixelFormat, Wanted};
use lenscast::link::control_client::Client;
use lenscast::media::audio::AudioSource;
use lenscast::media::encoder::is_here;
use lenscast::media::exam::{self, Encoded, Heard, Pictures};
use lenscast::media::profile::Profile;
use lenscast::media::source::{Fit, VideoSource};
use lenscast::protocol::{self, VideoSettings};
use tokio::time::timeout;

use super::report::Step;
use super::stream::BITRATE_CEILING;

/// Time beside the measurement, for opening and closing devices and for first pictures.
const MARGIN: Duration = Duration::from_secs(20);
/// The most modes to try, in the driver's order. Cameras offer up to a hundred.
const MAX_MODES: usize = 40;
/// The least share of the rate that a mode promises.
const RATE_FLOOR: f64 = 0.8;
/// The most pictures that a driver may drop: a share, and a number, since some are usually lost at the beginning.
const MISSED_CEILING: f64 = 0.05;
const MISSED_USUAL: f64 = 3.0;
/// A microphone in a quiet room is 30 dB above this. One that is switched off delivers zeros.
const SILENCE_DB: f64 = -90.0;
/// With a larger error, sound and picture drift apart by a second within a minute.
const SAMPLES_OFF: f64 = 0.02;

/// Measures on a thread of its own. A driver that never returns keeps only that thread.
async fn examine<T: Send + 'static>(
    time: Duration,
    measure: impl FnOnce() -> Result<T, protocol::Failure> + Send + 'static,
) -> Result<T, String> {
    match timeout(time + MARGIN, tokio::task::spawn_blocking(measure)).await {
        Ok(Ok(Ok(measured))) => Ok(measured),
        Ok(Ok(Err(failure))) => Err(format!("{} ({})", failure.explain(), failure.cause)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not end within {} s; its driver may hang", (time + MARGIN).as_secs())),
    }
}

/// Runs what blocks on the kernel for a moment. `None` if the kernel does not answer in time.
pub async fn look<T: Send + 'static>(at: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(MARGIN, tokio::task::spawn_blocking(at)).await.ok()?.ok()
}

/// A photo by the daemon.
pub async fn photo(socket: &Path) -> Step {
    const NAME: &str = "photo";
    let begun = Instant::now();
    let taken = async { Client::connect(socket).await?.photo(None).await }.await;
    match taken {
        Ok(jpeg) => {
            let size = jpeg_size(&jpeg);
            let complaint = size.is_none().then(|| "what came is no JPEG".to_owned());
            let (width, height) = size.unwrap_or_default();
            Step::judged(NAME, complaint.as_slice())
                .with("time", begun.elapsed().as_secs_f64() * 1e3, "ms")
                .with("size", jpeg.len() as f64, "bytes")
                .with("width", width.into(), "pixels")
                .with("height", height.into(), "pixels")
        }
        Err(error) => Step::failed(NAME, error.to_string()),
    }
}

/// Width and height out of a JPEG's frame header (ITU-T T.81, B.2.2).
fn jpeg_size(jpeg: &[u8]) -> Option<(u16, u16)> {
    let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
    jpeg.ends_with(&[0xff, 0xd9]).then_some(())?;
    loop {
        let (&[0xff, marker, high, low], _) = rest.split_first_chunk()? else { return None };
        if let (0xc0..=0xc3, [_, _, _, _, _, y1, y0, x1, x0, ..]) = (marker, rest) {
            return Some((u16::from_be_bytes([*x1, *x0]), u16::from_be_bytes([*y1, *y0])));
        }
        rest = rest.get(2 + usize::from(u16::from_be_bytes([high, low]))..)?;
    }
}

/// The microphone that the daemon records from, by the name in its state.
pub async fn sound(name: Option<&str>, time: Duration) -> Step {
    const NAME: &str = "sound";
    let Some(name) = name else { return Step::skipped(NAME, "the stream had no sound") };
    let source = if name == AudioSource::Test.name() { AudioSource::Test } else { AudioSource::Alsa(name.into()) };
    match examine(time, move || exam::sound(&source, time)).await {
        Ok(heard) => of_sound(NAME, &heard),
        Err(why) => Step::failed(NAME, why),
    }
}

fn of_sound(name: &str, heard: &Heard) -> Step {
    let Heard { rate, mean_db, peak_db, gaps } = *heard;
    let asked = f64::from(exam::SOUND_RATE);
    let mut complaints = Vec::new();
    if (rate / asked - 1.0).abs() > SAMPLES_OFF {
        complaints.push(format!("{rate:.0} samples a second where {asked:.0} were asked for"));
    }
    if peak_db < SILENCE_DB {
        complaints.push("nothing but silence".into());
    }
    if gaps > 0 {
        complaints.push(format!("sound was missing {gaps} times"));
    }
    Step::judged(name, &complaints)
        .with("rate", rate, "samples/s")
        .with("level_mean", mean_db, "dB")
        .with("level_highest", peak_db, "dB")
        .with("gaps", gaps.into(), "")
}

/// The modes to try, each format and size at its fastest rate; and the number left out.
fn modes(device: &Device) -> (Vec<Mode>, usize) {
    let mut modes: Vec<Mode> = Vec::new();
    for ModeRange { format, sizes, rates } in &device.modes {
        let (width, height) = sizes.largest();
        let mode = Mode { format: *format, width, height, frame_rate: rates.fastest() };
        if format.is_usable() && !modes.contains(&mode) {
            modes.push(mode);
        }
    }
    let left_out = modes.len().saturating_sub(MAX_MODES);
    modes.truncate(MAX_MODES);
    (modes, left_out)
}

/// Tries every mode of the lent camera.
pub async fn camera_modes(node: &Path, each: Duration, steps: &mut dyn FnMut(Step)) {
    let at = node.to_owned();
    let found = look(move || camera::list().into_iter().find(|device| device.node == at)).await;
    let Some(Some(device)) = found else {
        return steps(Step::failed("camera modes", format!("{} is no longer there", node.display())));
    };
    let (modes, left_out) = modes(&device);
    if modes.is_empty() {
        steps(Step::failed("camera modes", "the camera offers no format that can be used"));
    }
    for mode in modes {
        let name = format!("camera mode {mode}");
        let path = node.to_owned();
        steps(match examine(each, move || exam::camera(&path, &mode, each)).await {
            Ok(pictures) => of_mode(name, &mode, &pictures),
            Err(why) => Step::failed(name, why),
        });
    }
    if left_out > 0 {
        steps(Step::skipped("further camera modes", format!("{left_out} more; {MAX_MODES} were tried")));
    }
}

fn of_mode(name: String, mode: &Mode, pictures: &Pictures) -> Step {
    let mut complaints = Vec::new();
    if let Some(promised) = mode.frame_rate.map(FrameRate::as_f64).filter(|rate| pictures.rate < rate * RATE_FLOOR) {
        complaints.push(format!("{:.1} pictures a second where the mode says {promised:.1}", pictures.rate));
    }
    if pictures.missed as f64 > (f64::from(pictures.count) * MISSED_CEILING).max(MISSED_USUAL) {
        complaints.push(format!("the driver lost {} of {} pictures", pictures.missed, pictures.count));
    }
    Step::judged(name, &complaints)
        .with("rate", pictures.rate, "pictures/s")
        .with("pictures", pictures.count.into(), "")
        .with("missed_pictures", pictures.missed as f64, "")
        .with("first_after", pictures.first_after.as_secs_f64() * 1e3, "ms")
}

/// Tries every encoder of this board, with the lent camera's pictures if there is one.
pub async fn encoders(
    profiles: Vec<Profile>,
    camera: Option<PathBuf>,
    asked: VideoSettings,
    each: Duration,
    steps: &mut dyn FnMut(Step),
) {
    let wanted = asked;
    let Some(Some((source, settings))) = look(move || video_source(camera.as_deref(), wanted)).await else {
        return steps(Step::failed("encoders", "the camera gives no raw pictures"));
    };
    let targets = [settings.bitrate / 2, settings.bitrate];
    for profile in profiles {
        let name = format!("encoder {}", profile.name);
        if !is_here(&profile) {
            steps(Step::skipped(name, format!("no element {} here", profile.elements.join(" or "))));
            continue;
        }
        let source = source.clone();
        // Two targets, and what is between them.
        let time = 2 * each + MARGIN;
        steps(match examine(time, move || exam::encoder(&profile, &source, &settings, targets, each)).await {
            Ok(encoded) => of_encoder(name, &settings, &encoded),
            Err(why) => Step::failed(name, why),
        });
    }
}

/// The source of pictures and their settings: not larger or faster than the camera's.
fn video_source(node: Option<&Path>, wanted: VideoSettings) -> Option<(VideoSource, VideoSettings)> {
    let Some(node) = node else { return Some((VideoSource::Test { pattern: "smpte".into() }, wanted)) };
    let device = camera::list().into_iter().find(|device| device.node == node)?;
    let raw = device.modes.iter().filter(|range| range.format != PixelFormat::H264);
    let frame_rate = FrameRate::new(wanted.frame_rate, 1)?;
    let choice = camera::choose(raw, Wanted { width: wanted.width, height: wanted.height, frame_rate })?;
    let gives = choice.mode.frame_rate.map_or(wanted.frame_rate, |rate| rate.as_f64().ceil() as u32);
    let (width, height) = (choice.width, choice.height);
    let settings = VideoSettings { width, height, frame_rate: gives.min(wanted.frame_rate), ..wanted };
    let (node, fit) = (device.node, Fit::default());
    Some((VideoSource::V4l2 { node, name: device.card, choice, fit, zero_copy: false }, settings))
}

fn of_encoder(name: String, settings: &VideoSettings, encoded: &Encoded) -> Step {
    let mut complaints = Vec::new();
    let asked = f64::from(settings.frame_rate);
    if encoded.rate < asked * RATE_FLOOR {
        complaints.push(format!("{:.1} pictures a second where {asked:.0} were offered", encoded.rate));
    }
    for (target, made) in &encoded.bitrates {
        if *made as f64 > f64::from(*target) * BITRATE_CEILING {
            complaints.push(format!("{} kbit/s where {} were asked for", made / 1000, target / 1000));
        }
    }
    if encoded.key_frame_after.is_none() {
        complaints.push("no key frame came when one was asked for".into());
    }
    if let Some(why) = &encoded.fixed {
        complaints.push(format!("its bitrate cannot be changed: {why}"));
    }
    let step = Step::judged(name, &complaints)
        .with("width", settings.width.into(), "pixels")
        .with("height", settings.height.into(), "pixels")
        .with("rate", encoded.rate, "pictures/s")
        .with_known("key_frame_after", encoded.key_frame_after.map(f64::from), "pictures");
    encoded.bitrates.iter().zip(["low", "high"]).fold(step, |step, ((target, made), which)| {
        step.with(&format!("bitrate_{which}"), *made as f64, "bit/s").with(
            &format!("bitrate_{which}_asked"),
            (*target).into(),
            "bit/s",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptance::report::Outcome;

    #[test]
    fn a_jpegs_size_is_read_and_what_is_none_is_told() {
        let jpeg = [
            &[0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2][..],
            &[0xff, 0xc0, 0, 11, 8, 2, 0xd0, 5, 0, 1, 1, 0x11, 0],
            &[0xff, 0xd9],
        ]
        .concat();
        assert_eq!(jpeg_size(&jpeg), Some((1280, 720)));
        for cut in 0..jpeg.len() {
            assert_eq!(jpeg_size(&jpeg[..cut]), None);
        }
        assert_eq!(jpeg_size(&[0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff, 0xff, 0xd9]), None);
    }

    #[test]
    fn a_camera_slower_than_its_mode_fails() {
        let mode = Mode { format: PixelFormat::Nv12, width: 640, height: 480, frame_rate: FrameRate::new(30, 1) };
        let pictures = Pictures { count: 60, first_after: Duration::from_millis(300), rate: 29.9, missed: 1 };
        assert_eq!(of_mode("m".into(), &mode, &pictures).outcome, Outcome::Passed);
        let slow = of_mode("m".into(), &mode, &Pictures { rate: 15.0, missed: 30, ..pictures });
        let told = "15.0 pictures a second where the mode says 30.0; the driver lost 30 of 60 pictures";
        assert_eq!((slow.outcome, slow.reason.as_deref()), (Outcome::Failed, Some(told)));
    }

    #[test]
    fn a_silent_microphone_fails() {
        let heard = Heard { rate: 44_050.0, mean_db: -40.0, peak_db: -20.0, gaps: 0 };
        assert_eq!(of_sound("sound", &heard).outcome, Outcome::Passed);
        let reason = |heard| of_sound("sound", &heard).reason.unwrap_or_default();
        assert_eq!(reason(Heard { peak_db: -96.0, ..heard }), "nothing but silence");
        assert_eq!(reason(Heard { gaps: 2, ..heard }), "sound was missing 2 times");
        assert!(reason(Heard { rate: 22_000.0, ..heard }).starts_with("22000 samples a second"));
    }

    #[test]
    fn an_encoder_that_does_not_do_what_it_is_told_fails() {
        let settings = VideoSettings { width: 640, height: 480, bitrate: 1_000_000, frame_rate: 30 };
        let good = Encoded {
            element: "x264enc".into(),
            bitrates: vec![(500_000, 510_000), (1_000_000, 990_000)],
            fixed: None,
            rate: 30.0,
            key_frame_after: Some(2),
        };
        let passed = of_encoder("e".into(), &settings, &good);
        assert_eq!((passed.outcome, passed.figures["bitrate_high"].value), (Outcome::Passed, 990_000.0));
        let bad = Encoded { bitrates: vec![(500_000, 900_000)], key_frame_after: None, ..good };
        let told = "900 kbit/s where 500 were asked for; no key frame came when one was asked for";
        assert_eq!(of_encoder("e".into(), &settings, &bad).reason.as_deref(), Some(told));
    }
}
