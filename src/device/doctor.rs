//! Reports what works on this board and what does not, in plain words.

mod board;

use super::config::Config;
use super::plan;
use crate::camera::{self, Device, Kind};
use crate::link::cloud::place;
use crate::media::audio::AudioSource;
use crate::media::encoder::Encoders;
use crate::protocol::VideoSettings;
use crate::protocol::control::{CameraInfo, DoctorLine, Level};

/// The picture that encoders are tried with.
const TRIAL: VideoSettings = VideoSettings { width: 1280, height: 720, bitrate: 2_000_000, frame_rate: 30 };

/// Every video device, for `lenscastctl camera list`.
pub fn cameras() -> Vec<CameraInfo> {
    camera::list().iter().map(info).collect()
}

fn info(device: &Device) -> CameraInfo {
    CameraInfo {
        node: device.node.display().to_string(),
        identity: device.identity.clone(),
        name: device.card.clone(),
        kind: device.nature(),
        modes: device.modes.iter().map(ToString::to_string).collect(),
        holder: plan::foreign_holder(&device.node),
    }
}

/// Checks everything that a stream needs. Blocks for encoder trials not made before.
pub fn examine(config: &Config, encoders: &Encoders) -> Vec<DoctorLine> {
    let mut lines = vec![line(Level::Ok, "media", format!("{} is usable", crate::media::version()))];
    examine_camera(config, &mut lines);
    examine_encoders(encoders, &mut lines);
    examine_sound(config, &mut lines);
    examine_link(config, &mut lines);
    lines.extend(board::examine(config));
    lines
}

fn line(level: Level, subject: &str, text: impl Into<String>) -> DoctorLine {
    DoctorLine { level, subject: subject.into(), text: text.into() }
}

fn examine_camera(config: &Config, lines: &mut Vec<DoctorLine>) {
    let wanted = &config.camera.device;
    if plan::test_pattern(wanted).is_some() {
        lines.push(line(Level::Warn, "camera", "the test picture is configured instead of a camera"));
    } else {
        lines.push(match plan::find(config) {
            Ok(device) => line(Level::Ok, "camera", format!("camera.device = {wanted:?} is {}", device.node.display())),
            Err(failure) => line(Level::Fail, "camera", failure.detail),
        });
    }
    for device in camera::list() {
        let level = match device.kind {
            Kind::Camera if !device.no_signal => Level::Ok,
            Kind::Camera | Kind::MediaController | Kind::Closed(_) => Level::Warn,
            _ => Level::Ok,
        };
        lines.push(line(level, "device", device.describe(&camera::holders(&device.node))));
    }
}

fn examine_encoders(encoders: &Encoders, lines: &mut Vec<DoctorLine>) {
    let mut hardware_works = false;
    for (profile, outcome) in encoders.survey(&TRIAL) {
        let kind = if profile.hardware { "hardware" } else { "software" };
        lines.push(match outcome {
            Ok(trial) => {
                hardware_works |= profile.hardware;
                let (idc, level) = trial.profile_and_level;
                let (measured, asked) = trial.bitrate;
                let size = if profile.hardware { "1280x720" } else { "320x240" };
                let text = format!(
                    "{} ({kind}, {}): works; H.264 profile {idc}, level {}.{}; {} pictures/s at {size}; noise encoded \
                     at {} kbit/s, {} requested",
                    profile.name,
                    trial.element,
                    level / 10,
                    level % 10,
                    trial.speed,
                    measured / 1000,
                    asked / 1000
                );
                // Noise is the hardest content; half as much again is within a rate control's swing.
                line(if measured > asked / 2 * 3 { Level::Warn } else { Level::Ok }, "encoder", text)
            }
            Err(failure) => {
                line(Level::Warn, "encoder", format!("{} ({kind}): does not work: {}", profile.name, failure.detail))
            }
        });
    }
    if !hardware_works {
        let text = "no hardware encoder works here; software will warm the glasses and drain the battery";
        lines.push(line(Level::Warn, "encoder", text));
    }
}

fn examine_sound(config: &Config, lines: &mut Vec<DoctorLine>) {
    let beside_test = plan::test_pattern(&config.camera.device).is_some();
    lines.push(match AudioSource::select(&config.audio.device, beside_test) {
        Some(source) => line(Level::Ok, "sound", format!("from {}", source.name())),
        None if config.audio.device == "none" => line(Level::Ok, "sound", "switched off by audio.device = \"none\""),
        None => line(Level::Warn, "sound", "no device records sound; streams will be silent"),
    });
}

fn examine_link(config: &Config, lines: &mut Vec<DoctorLine>) {
    lines.push(match (&config.cloud.url, &config.cloud.token) {
        (None, _) => line(Level::Ok, "link", "no cloud is configured; only lenscastctl controls the glasses"),
        (Some(url), Some(_)) => line(Level::Ok, "link", format!("to {}", place(url))),
        (Some(url), None) => {
            line(Level::Warn, "link", format!("to {}, without a token; most clouds require one", place(url)))
        }
    });
}
