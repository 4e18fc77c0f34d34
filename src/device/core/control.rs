//! A start as clients of the control socket ask for it.

use std::time::Duration;

use serde_json::json;

use crate::protocol::control::{Refusal, Start};
use crate::protocol::{AudioSettings, Cause, SettingsError, StartStream, StreamKind, StreamUrl, VideoSettings};

/// The app a stream runs for when a client does not say: a person at the keyboard.
pub const DEFAULT_APP: &str = "lenscastctl";

/// Reads it, or says what is wrong with it.
pub fn read_start(start: Start) -> Result<StartStream, Refusal> {
    let url = StreamUrl::parse(&start.url).map_err(|error| Refusal {
        cause: error.cause(),
        message: error.to_string(),
        owner: None,
    })?;
    for id in [&start.app, &start.stream_id].into_iter().flatten() {
        if id.chars().count() > 256 || id.chars().any(char::is_control) {
            let message = "app and stream_id take at most 256 characters and no control characters".into();
            return Err(Refusal { cause: Cause::InvalidRequest, message, owner: None });
        }
    }
    // By way of the parser of the other hop, so that there is one place for defaults and clamps.
    let unreadable =
        |error: SettingsError| Refusal { cause: Cause::InvalidRequest, message: error.to_string(), owner: None };
    let video = VideoSettings::parse(&json!(start.video)).map_err(unreadable)?;
    let audio = AudioSettings::parse(&json!(start.audio)).map_err(unreadable)?;
    Ok(StartStream {
        url,
        stream_id: start.stream_id.unwrap_or_else(|| format!("c{:08x}", fastrand::u32(..))),
        app: start.app.unwrap_or_else(|| DEFAULT_APP.into()),
        kind: start.kind.unwrap_or(StreamKind::Unmanaged),
        video,
        audio,
        duration_limit: start.duration_s.filter(|&seconds| seconds > 0).map(Duration::from_secs),
        flash: true,
        sound: true,
    })
}
