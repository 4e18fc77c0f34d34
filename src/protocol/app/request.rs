use serde_json::{Value, json};

use crate::protocol::settings::Object;
use crate::protocol::{AudioSettings, Dialect, Secret, SettingsError, StreamUrl, VideoSettings};

/// Maximum number of destinations of one stream.
const MAX_DESTINATIONS: usize = 10;
/// Maximum length of a name, id or message type, characters.
const MAX_TEXT: usize = 200;

/// What an app asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum AppRequest {
    /// Start a managed stream, or join the one there is.
    StartManaged(ManagedRequest),
    /// Leave the managed stream.
    StopManaged,
    /// Start a stream straight from the glasses to the app's own server.
    StartUnmanaged(UnmanagedRequest),
    /// Stop such a stream.
    StopUnmanaged {
        /// The dialect that the app speaks.
        dialect: Dialect,
        /// The stream's id; `None` for all of the app's streams.
        stream_id: Option<String>,
    },
    /// Ask which stream is running.
    Check,
    /// Take a photo.
    Photo(PhotoRequest),
    /// Replace the app's subscriptions; each message carries the whole list.
    Subscribe {
        /// Whether the app listens to `managed_stream_status`.
        managed: bool,
        /// Whether the app listens to `rtmp_stream_status` or `stream_status`.
        unmanaged: bool,
    },
    /// A message that does not concern the camera.
    Other {
        /// The message's type.
        kind: String,
    },
}

/// Options of `startManagedStream()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagedRequest {
    /// `video` of the start command for the glasses: the preset, overridden by the app's own numbers.
    pub video: Value,
    /// `audio` of the start command.
    pub audio: Value,
    /// `stream` of the start command.
    pub stream: Value,
    /// Picture height that `quality` names, pixels.
    pub quality: Option<u32>,
    /// Whether viewers may use WebRTC.
    pub webrtc: bool,
    /// Where else to send the stream.
    pub destinations: Vec<Destination>,
}

/// One of `restreamDestinations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The other RTMP server, key included.
    pub url: StreamUrl,
    /// What the app calls it.
    pub name: Option<String>,
}

/// Options of `startStream()`.
#[derive(Clone, Debug, PartialEq)]
pub struct UnmanagedRequest {
    /// The dialect that the app speaks.
    pub dialect: Dialect,
    /// The app's server.
    pub url: StreamUrl,
    /// `video` as the app gave it.
    pub video: Value,
    /// `audio` as the app gave it.
    pub audio: Value,
    /// `stream` as the app gave it.
    pub stream: Value,
    /// Whether the glasses announce the stream by sound.
    pub sound: bool,
}

/// Options of `requestPhoto()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhotoRequest {
    /// The app's own id for the photo.
    pub request_id: String,
    /// Where to send the photo instead of the app's own `/photo-upload`.
    pub webhook_url: Option<Secret>,
    /// The token to present there.
    pub auth_token: Option<Secret>,
    /// `small`, `medium`, `large` or `full`.
    pub size: String,
}

/// A request that cannot be obeyed, and how to answer it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `startManagedStream()`: answered by a managed status.
    #[error("{0}")]
    Managed(String),
    /// `startStream()`: answered by a status in the app's dialect.
    #[error("{1}")]
    Unmanaged(Dialect, String),
    /// Not a message of this protocol.
    #[error("{0}")]
    Message(String),
}

/// Reads one message from an app. Never panics, whatever the text.
pub fn parse(text: &str) -> Result<AppRequest, Refused> {
    // serde_json's message gives a position, never the content.
    let json: Value = serde_json::from_str(text).map_err(|error| Refused::Message(error.to_string()))?;
    let kind = json.get("type").and_then(Value::as_str);
    let (Ok(Some(message)), Some(kind)) = (Object::new("", &json), kind) else {
        return Err(Refused::Message("the message is not an object with a type".into()));
    };
    let unmanaged = |dialect| move |error: String| Refused::Unmanaged(dialect, error);
    match kind {
        "managed_stream_request" => managed(&message).map(AppRequest::StartManaged).map_err(Refused::Managed),
        "managed_stream_stop" => Ok(AppRequest::StopManaged),
        "rtmp_stream_request" => {
            start(&message, Dialect::Rtmp).map(AppRequest::StartUnmanaged).map_err(unmanaged(Dialect::Rtmp))
        }
        "stream_request" => {
            start(&message, Dialect::Stream).map(AppRequest::StartUnmanaged).map_err(unmanaged(Dialect::Stream))
        }
        "rtmp_stream_stop" | "stream_stop" => {
            let dialect = if kind == "stream_stop" { Dialect::Stream } else { Dialect::Rtmp };
            let stream_id = short(&message, "streamId").map_err(unmanaged(dialect))?;
            Ok(AppRequest::StopUnmanaged { dialect, stream_id })
        }
        "stream_status_check" => Ok(AppRequest::Check),
        "photo_request" => photo(&message).map(AppRequest::Photo).map_err(Refused::Message),
        "subscription_update" => {
            let streams = json["subscriptions"].as_array();
            let has = |name: &str| streams.is_some_and(|streams| streams.iter().any(|stream| stream == name));
            let unmanaged = has("rtmp_stream_status") || has("stream_status");
            Ok(AppRequest::Subscribe { managed: has("managed_stream_status"), unmanaged })
        }
        other => Ok(AppRequest::Other { kind: other.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect() }),
    }
}

fn managed(message: &Object) -> Result<ManagedRequest, String> {
    let said = |error: SettingsError| error.to_string();
    let quality = match message.text(&["quality"]).map_err(said)? {
        None => None,
        Some("720p") => Some(720),
        Some("1080p") => Some(1080),
        Some(_) => return Err("quality must be 720p or 1080p".into()),
    };
    let mut video = settings(message, "video")?;
    VideoSettings::parse(&video).map_err(said)?;
    preset(&mut video, quality);
    let mut audio = settings(message, "audio")?;
    AudioSettings::parse(&audio).map_err(said)?;
    // WebRTC needs this in the end: Opus has no 44.1 kHz.
    default(&mut audio, "sampleRate", 48_000);
    default(&mut audio, "bitrate", 96_000);
    let webrtc = message.boolean(&["enableWebRTC"]).map_err(said)?.unwrap_or(false);
    let stream = settings(message, "stream")?;
    Ok(ManagedRequest { video, audio, stream, quality, webrtc, destinations: destinations(message)? })
}

/// `quality` sets the size; rate and bits stay as the app set them. Without either it is 720p.
fn preset(video: &mut Value, quality: Option<u32>) {
    let sized = video.get("width").is_some() && video.get("height").is_some();
    if let Some(height) = quality.or((!sized).then_some(720)) {
        video["width"] = (height * 16 / 9).into();
        video["height"] = height.into();
    }
    let large = video["height"].as_u64().is_some_and(|height| height > 720);
    default(video, "bitrate", if large { 4_500_000 } else { 2_500_000 });
    default(video, "frameRate", 30);
}

fn default(settings: &mut Value, key: &str, value: u32) {
    if settings.get(key).is_none_or(Value::is_null) {
        settings[key] = value.into();
    }
}

fn destinations(message: &Object) -> Result<Vec<Destination>, String> {
    let list = match message.get(&["restreamDestinations"]) {
        None => return Ok(Vec::new()),
        Some((_, Value::Array(list))) => list,
        Some(_) => return Err("restreamDestinations must be a list".into()),
    };
    if list.len() > MAX_DESTINATIONS {
        return Err(format!("at most {MAX_DESTINATIONS} restreamDestinations are possible"));
    }
    let mut all: Vec<Destination> = Vec::new();
    for (n, item) in list.iter().enumerate() {
        let url = item.get("url").and_then(Value::as_str).unwrap_or_default();
        let url = StreamUrl::parse(url).map_err(|error| format!("restreamDestinations[{n}].url: {error}"))?;
        if all.iter().any(|other| other.url == url) {
            return Err(format!("restreamDestinations[{n}].url is given twice"));
        }
        let name = item.get("name").and_then(Value::as_str).map(|name| name.chars().take(MAX_TEXT).collect());
        all.push(Destination { url, name });
    }
    Ok(all)
}

fn start(message: &Object, dialect: Dialect) -> Result<UnmanagedRequest, String> {
    let said = |error: SettingsError| error.to_string();
    let keys = match dialect {
        Dialect::Rtmp => ["rtmpUrl", "streamUrl"],
        Dialect::Stream => ["streamUrl", "rtmpUrl"],
    };
    let url = message.text(&keys).map_err(said)?.unwrap_or_default();
    let url = StreamUrl::parse(url).map_err(|error| format!("Invalid RTMP URL: {error}"))?;
    let (video, audio) = (settings(message, "video")?, settings(message, "audio")?);
    VideoSettings::parse(&video).map_err(said)?;
    AudioSettings::parse(&audio).map_err(said)?;
    let sound = message.boolean(&["sound"]).map_err(said)?.unwrap_or(true);
    Ok(UnmanagedRequest { dialect, url, video, audio, stream: settings(message, "stream")?, sound })
}

fn photo(message: &Object) -> Result<PhotoRequest, String> {
    let request_id = short(message, "requestId")?.ok_or("the photo request has no requestId")?;
    let text = |key| message.text(&[key]).map_err(|error| error.to_string());
    Ok(PhotoRequest {
        request_id,
        webhook_url: text("customWebhookUrl")?.filter(|url| !url.is_empty()).map(Secret::new),
        auth_token: text("authToken")?.filter(|token| !token.is_empty()).map(Secret::new),
        size: text("size")?.unwrap_or("medium").to_owned(),
    })
}

/// A settings object as it came, empty if absent: glasses of 2025 require the object.
fn settings(message: &Object, key: &'static str) -> Result<Value, String> {
    match message.get(&[key]) {
        None => Ok(json!({})),
        // serde_json treats some keys as its own markers, depending on their order; the glasses must be able to read
        // it too.
        Some((_, value @ Value::Object(_)))
            if value.to_string().parse::<Value>().is_ok_and(|again| again == *value) =>
        {
            Ok(value.clone())
        }
        Some(_) => Err(format!("{key} must be an object")),
    }
}

/// An id; `None` if it is empty.
fn short(message: &Object, key: &'static str) -> Result<Option<String>, String> {
    let text = message.text(&[key]).map_err(|error| error.to_string())?.unwrap_or_default();
    if text.chars().nth(MAX_TEXT).is_some() || text.chars().any(char::is_control) {
        return Err(format!("{key} is longer than {MAX_TEXT} characters or contains control characters"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(message: &Value) -> Result<AppRequest, Refused> {
        parse(&message.to_string())
    }

    fn managed(options: Value) -> ManagedRequest {
        let mut message = options;
        message["type"] = "managed_stream_request".into();
        match read(&message) {
            Ok(AppRequest::StartManaged(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn quality_decides_the_size_and_the_app_the_rest() {
        let size = |request: &ManagedRequest| (request.video["width"].clone(), request.video["height"].clone());
        let plain = managed(json!({"packageName": "org.a"}));
        assert_eq!(size(&plain), (json!(1280), json!(720)));
        assert_eq!((plain.webrtc, plain.quality, plain.destinations.len()), (false, None, 0));
        assert_eq!((&plain.video["bitrate"], &plain.audio["sampleRate"]), (&json!(2_500_000), &json!(48_000)));

        let large = managed(json!({"quality": "1080p", "enableWebRTC": true, "video": {"frameRate": 24, "width": 3}}));
        assert_eq!(size(&large), (json!(1920), json!(1080)));
        assert_eq!((&large.video["bitrate"], &large.video["frameRate"]), (&json!(4_500_000), &json!(24)));
        assert!(large.webrtc);

        let own = managed(json!({"video": {"width": 640, "height": 480, "bitrate": 900_000}}));
        assert_eq!((size(&own), &own.video["bitrate"]), ((json!(640), json!(480)), &json!(900_000)));
    }

    #[test]
    fn what_is_wrong_with_a_managed_request_is_said() {
        for (options, why) in [
            (json!({"quality": "4k"}), "720p or 1080p"),
            (json!({"video": 3}), "video must be an object"),
            (json!({"video": {"width": "wide"}}), "video.width"),
            (json!({"restreamDestinations": "x"}), "a list"),
            (json!({"restreamDestinations": [{"url": "http://h/k"}]}), "restreamDestinations[0].url"),
            (json!({"restreamDestinations": [{"url": "rtmp://h/a/k"}, {"url": "rtmp://h/a/k"}]}), "twice"),
        ] {
            let mut message = options.clone();
            message["type"] = "managed_stream_request".into();
            match read(&message) {
                Err(Refused::Managed(text)) => assert!(text.contains(why), "{options}: {text}"),
                other => panic!("{options}: {other:?}"),
            }
        }
    }

    #[test]
    fn both_generations_of_unmanaged_requests() {
        let old =
            json!({"type": "rtmp_stream_request", "rtmpUrl": "rtmp://h/live/key", "stream": {"durationLimit": 60}});
        let new = json!({"type": "stream_request", "streamUrl": "rtmps://h/live/key", "sound": false});
        let request = |message: &Value| match read(message) {
            Ok(AppRequest::StartUnmanaged(request)) => request,
            other => panic!("{other:?}"),
        };
        let (old, new) = (request(&old), request(&new));
        assert_eq!((old.dialect, old.url.expose(), old.sound), (Dialect::Rtmp, "rtmp://h/live/key", true));
        assert_eq!((old.stream, old.video), (json!({"durationLimit": 60}), json!({})));
        assert_eq!((new.dialect, new.url.is_tls(), new.sound), (Dialect::Stream, true, false));

        for bad in ["", "srt://h:1", "rtmp://"] {
            let refused = read(&json!({"type": "stream_request", "streamUrl": bad}));
            assert!(matches!(refused, Err(Refused::Unmanaged(Dialect::Stream, _))), "{bad}: {refused:?}");
        }
        let stop = |message: Value| read(&message).unwrap();
        assert_eq!(
            stop(json!({"type": "rtmp_stream_stop", "streamId": "s1"})),
            AppRequest::StopUnmanaged { dialect: Dialect::Rtmp, stream_id: Some("s1".into()) }
        );
        assert_eq!(
            stop(json!({"type": "stream_stop", "streamId": ""})),
            AppRequest::StopUnmanaged { dialect: Dialect::Stream, stream_id: None }
        );
    }

    #[test]
    fn photos_checks_and_what_is_for_others() {
        let photo = json!({"type": "photo_request", "requestId": "photo_req_1", "authToken": "hush", "size": "large"});
        let Ok(AppRequest::Photo(photo)) = read(&photo) else { panic!("no photo") };
        assert_eq!((photo.request_id.as_str(), photo.size.as_str(), photo.webhook_url), ("photo_req_1", "large", None));
        assert_eq!(read(&json!({"type": "stream_status_check"})), Ok(AppRequest::Check));
        let listens = json!({"type": "subscription_update", "subscriptions": ["rtmp_stream_status", {"stream": "x"}]});
        assert_eq!(read(&listens), Ok(AppRequest::Subscribe { managed: false, unmanaged: true }));
        assert_eq!(read(&json!({"type": "dash\u{7}board"})), Ok(AppRequest::Other { kind: "dashboard".into() }));
        for bad in ["", "[]", "{}", "{\"type\":3}", "null"] {
            assert!(matches!(parse(bad), Err(Refused::Message(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(kind in "(rtmp_|managed_)?(stream|photo)_(request|stop|status_check)", key in "[a-zA-Z]{1,12}",
                          text in any::<String>(), number in any::<f64>()) {
            let _ = parse(&text);
            let _ = read(&json!({"type": kind, (key.clone()): text, "video": {(key.clone()): number}}));
            let _ = read(&json!({"type": kind, "rtmpUrl": text, "streamUrl": text, "requestId": text, (key): number}));
        }
    }
}
