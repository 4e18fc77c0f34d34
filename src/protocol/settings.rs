//! The picture and sound of a request.
//!
//! Keys, defaults and limits are `MentraOS`'s (its `RtmpStreamConfig`): phones shorten keys to save radio time, and
//! two more spellings come from its documentation. Values out of range are moved to the nearest limit, not refused. An
//! unknown key is ignored. A known key of the wrong type is an error, because guessing would hide a mistake.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Minimum video bitrate, bit/s.
const MIN_BITRATE: u32 = 100_000;
const MAX_BITRATE: u32 = 10_000_000;
/// Sound samples per second: AAC supports these, and slower ones, and none between.
const SAMPLE_RATES: [u32; 5] = [22_050, 24_000, 32_000, 44_100, 48_000];

/// The requested picture. Reads JSON with the tolerance described above, and writes full keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Value")]
pub struct VideoSettings {
    /// Pixels, 320 to 1920, even.
    pub width: u32,
    /// Pixels, 240 to 1080, even.
    pub height: u32,
    /// Bits per second, 100 000 to 10 000 000.
    pub bitrate: u32,
    /// Frames per second, 10 to 60.
    pub frame_rate: u32,
}

impl Default for VideoSettings {
    fn default() -> Self {
        Self { width: 960, height: 540, bitrate: 1_000_000, frame_rate: 15 }
    }
}

/// The requested sound. Reads JSON with the tolerance described above, and writes full keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Value")]
pub struct AudioSettings {
    /// Bits per second, 32 000 to 320 000.
    pub bitrate: u32,
    /// Samples per second: 22 050, 24 000, 32 000, 44 100 or 48 000.
    pub sample_rate: u32,
    /// Remove what the speaker plays from what the microphone hears.
    pub echo_cancellation: bool,
    /// Reduce background noise.
    pub noise_suppression: bool,
}

impl Default for AudioSettings {
    fn default() -> Self {
        Self { bitrate: 64_000, sample_rate: 44_100, echo_cancellation: false, noise_suppression: false }
    }
}

/// A known field with a value of the wrong type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}")]
pub struct SettingsError {
    /// The field's path as spelled in the message, for example `video.w`.
    pub field: String,
    /// The expected type, for example `a number`.
    pub expected: &'static str,
}

impl VideoSettings {
    /// The nearest allowed bitrate.
    pub fn clamp_bitrate(bitrate: u32) -> u32 {
        bitrate.clamp(MIN_BITRATE, MAX_BITRATE)
    }

    /// Reads the object `video`. `null` counts as absent.
    pub fn parse(value: &Value) -> Result<Self, SettingsError> {
        let default = Self::default();
        let Some(object) = Object::new("video", value)? else { return Ok(default) };
        Ok(Self {
            width: object.number(&["width", "w"], default.width, 320, 1920)? & !1,
            height: object.number(&["height", "h"], default.height, 240, 1080)? & !1,
            bitrate: object.number(&["bitrate", "br"], default.bitrate, MIN_BITRATE, MAX_BITRATE)?,
            frame_rate: object.number(&["frameRate", "fps", "frame_rate", "fr"], default.frame_rate, 10, 60)?,
        })
    }
}

impl AudioSettings {
    /// Reads the object `audio`. `null` counts as absent.
    pub fn parse(value: &Value) -> Result<Self, SettingsError> {
        let default = Self::default();
        let Some(object) = Object::new("audio", value)? else { return Ok(default) };
        let sample_rate = object.number(&["sampleRate", "sample_rate", "sr"], default.sample_rate, 0, u32::MAX)?;
        Ok(Self {
            bitrate: object.number(&["bitrate", "br"], default.bitrate, 32_000, 320_000)?,
            sample_rate: nearest_sample_rate(sample_rate),
            echo_cancellation: object.boolean(&["echoCancellation", "ec"])?.unwrap_or(default.echo_cancellation),
            noise_suppression: object.boolean(&["noiseSuppression", "ns"])?.unwrap_or(default.noise_suppression),
        })
    }
}

fn nearest_sample_rate(asked: u32) -> u32 {
    SAMPLE_RATES.into_iter().min_by_key(|rate| rate.abs_diff(asked)).expect("there are some")
}

impl TryFrom<Value> for VideoSettings {
    type Error = SettingsError;

    fn try_from(value: Value) -> Result<Self, SettingsError> {
        Self::parse(&value)
    }
}

impl TryFrom<Value> for AudioSettings {
    type Error = SettingsError;

    fn try_from(value: Value) -> Result<Self, SettingsError> {
        Self::parse(&value)
    }
}

/// An object from the wire, and its name for errors (empty for a whole message).
pub(super) struct Object<'a> {
    name: &'static str,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// `None` for `null`.
    pub(super) fn new(name: &'static str, value: &'a Value) -> Result<Option<Self>, SettingsError> {
        match value {
            Value::Null => Ok(None),
            Value::Object(fields) => Ok(Some(Self { name, fields })),
            _ => Err(SettingsError { field: name.to_owned(), expected: "an object" }),
        }
    }

    /// The first spelling of a field that is present and not `null`; the full key comes first and wins.
    pub(super) fn get<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &'a Value)> {
        keys.iter().find_map(|&key| Some((key, self.fields.get(key).filter(|value| !value.is_null())?)))
    }

    fn typed<T>(
        &self,
        keys: &[&str],
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, SettingsError> {
        let Some((key, value)) = self.get(keys) else { return Ok(None) };
        let dot = if self.name.is_empty() { "" } else { "." };
        let field = || format!("{}{dot}{key}", self.name);
        read(value).map(Some).ok_or_else(|| SettingsError { field: field(), expected })
    }

    fn number(&self, keys: &[&str], default: u32, min: u32, max: u32) -> Result<u32, SettingsError> {
        let number = self.float(keys)?.unwrap_or(f64::from(default));
        // A float converted by `as` saturates, and JSON knows no NaN.
        Ok((number.round() as u32).clamp(min, max))
    }

    pub(super) fn float(&self, keys: &[&str]) -> Result<Option<f64>, SettingsError> {
        self.typed(keys, "a number", Value::as_f64)
    }

    pub(super) fn boolean(&self, keys: &[&str]) -> Result<Option<bool>, SettingsError> {
        self.typed(keys, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, keys: &[&str]) -> Result<Option<&'a str>, SettingsError> {
        self.typed(keys, "a string", Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn video(value: &Value) -> VideoSettings {
        VideoSettings::parse(value).unwrap()
    }

    fn audio(value: &Value) -> AudioSettings {
        AudioSettings::parse(value).unwrap()
    }

    #[test]
    fn what_is_not_asked_for_is_the_default() {
        let default = VideoSettings { width: 960, height: 540, bitrate: 1_000_000, frame_rate: 15 };
        for value in [json!(null), json!({}), json!({"width": null, "codec": ["av1"]})] {
            assert_eq!(video(&value), default);
        }
        let default =
            AudioSettings { bitrate: 64_000, sample_rate: 44_100, echo_cancellation: false, noise_suppression: false };
        assert_eq!(audio(&json!(null)), default);
        assert_eq!(audio(&json!({"channels": 2})), default);
    }

    #[test]
    fn every_spelling_is_read_and_the_full_one_wins() {
        let hd = VideoSettings { width: 1280, height: 720, bitrate: 2_000_000, frame_rate: 30 };
        for value in [
            json!({"width": 1280, "height": 720, "bitrate": 2_000_000, "frameRate": 30}),
            json!({"w": 1280, "h": 720, "br": 2_000_000, "fr": 30}),
            json!({"width": 1280, "height": 720, "bitrate": 2e6, "fps": 29.97}),
            json!({"width": 1280, "w": 640, "h": 720, "br": 2_000_000, "frameRate": 30, "fps": 10, "fr": 20}),
        ] {
            assert_eq!(video(&value), hd, "{value}");
        }
        let quiet =
            AudioSettings { bitrate: 128_000, sample_rate: 48_000, echo_cancellation: true, noise_suppression: true };
        for value in [
            json!({"bitrate": 128_000, "sampleRate": 48_000, "echoCancellation": true, "noiseSuppression": true}),
            json!({"br": 128_000, "sr": 48_000, "ec": true, "ns": true}),
            json!({"br": 128_000, "sample_rate": 48_000, "sr": 8000, "echoCancellation": true, "ec": false, "ns": true}),
        ] {
            assert_eq!(audio(&value), quiet, "{value}");
        }
    }

    #[test]
    fn sizes_are_even() {
        assert_eq!(
            video(&json!({"w": 853, "h": 481})),
            VideoSettings { width: 852, height: 480, ..Default::default() }
        );
    }

    #[test]
    fn a_sample_rate_is_one_that_aac_knows() {
        for (asked, given) in [(8_000, 22_050), (23_000, 22_050), (30_000, 32_000), (96_000, 48_000)] {
            assert_eq!(audio(&json!({"sr": asked})), AudioSettings { sample_rate: given, ..Default::default() });
        }
    }

    #[test]
    fn a_wrong_type_is_named() {
        for (value, error) in [
            (json!("720p"), "video must be an object"),
            (json!({"width": "1280"}), "video.width must be a number"),
            (json!({"w": []}), "video.w must be a number"),
            (json!({"fps": true}), "video.fps must be a number"),
        ] {
            assert_eq!(VideoSettings::parse(&value).unwrap_err().to_string(), error);
        }
        let error = AudioSettings::parse(&json!({"ec": 1})).unwrap_err();
        assert_eq!(error, SettingsError { field: "audio.ec".into(), expected: "true or false" });
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let settings = VideoSettings { width: 640, height: 480, bitrate: 500_000, frame_rate: 24 };
        let written = serde_json::to_value(settings).unwrap();
        assert_eq!(written, json!({"width": 640, "height": 480, "bitrate": 500_000, "frameRate": 24}));
        assert_eq!(serde_json::from_value::<VideoSettings>(written).unwrap(), settings);
        let written = serde_json::to_value(AudioSettings::default()).unwrap();
        assert_eq!(serde_json::from_value::<AudioSettings>(written).unwrap(), AudioSettings::default());
    }

    proptest! {
        #[test]
        fn any_number_ends_within_the_limits(n in prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (0..3000).prop_map(Value::from),
        ]) {
            let video = video(&json!({"width": n, "height": n, "bitrate": n, "frameRate": n}));
            prop_assert!((320..=1920).contains(&video.width) && video.width.is_multiple_of(2));
            prop_assert!((240..=1080).contains(&video.height) && video.height.is_multiple_of(2));
            prop_assert!((100_000..=10_000_000).contains(&video.bitrate));
            prop_assert!((10..=60).contains(&video.frame_rate));
            let audio = audio(&json!({"bitrate": n, "sampleRate": n}));
            prop_assert!((32_000..=320_000).contains(&audio.bitrate));
            prop_assert!([22_050, 24_000, 32_000, 44_100, 48_000].contains(&audio.sample_rate));
        }
    }
}
