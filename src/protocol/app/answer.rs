use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use crate::protocol::{Dialect, StreamUrl};

/// The status word of a managed stream. `error` and `stopped` are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManagedWord {
    /// The glasses were asked.
    Initializing,
    /// Media is on its way, or was and will be again, but cannot be played at the moment.
    Preparing,
    /// The URLs play.
    Active,
    /// The stream is ending.
    Stopping,
    /// Over for this app.
    Stopped,
    /// The stream failed.
    Error,
}

/// Where viewers find a managed stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ViewerUrls {
    /// HLS multivariant playlist.
    pub hls_url: String,
    /// DASH manifest.
    pub dash_url: String,
    /// WHEP endpoint, if WebRTC was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webrtc_url: Option<String>,
    /// A page that plays it.
    pub preview_url: String,
    /// A picture of the stream, refreshed regularly.
    pub thumbnail_url: String,
}

impl ViewerUrls {
    /// The URLs of a stream, under the base that viewers use, such as `https://stream.example`.
    pub fn new(base: &str, playback_id: &str, webrtc: bool) -> Self {
        let base = base.trim_end_matches('/');
        Self {
            hls_url: format!("{base}/hls/{playback_id}/index.m3u8"),
            dash_url: format!("{base}/dash/{playback_id}/manifest.mpd"),
            webrtc_url: webrtc.then(|| format!("{base}/whep/{playback_id}")),
            preview_url: format!("{base}/watch/{playback_id}"),
            thumbnail_url: format!("{base}/thumbnails/{playback_id}.jpg"),
        }
    }
}

/// A URL that an app is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownUrl {
    /// The URL, key included.
    pub url: StreamUrl,
    /// Whether the reader may see its key: only the app that gave it.
    pub own: bool,
}

impl Serialize for ShownUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.own { serializer.serialize_str(self.url.expose()) } else { serializer.collect_str(&self.url) }
    }
}

/// The state of one restream destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The destination's URL.
    pub url: ShownUrl,
    /// What the app calls it.
    pub name: Option<String>,
    /// The destination's state.
    pub status: OutputState,
    /// Why it is not active.
    pub error: Option<String>,
}

/// The state of a restream destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputState {
    /// Waiting for media, or for the server's first answer. `@mentra/sdk` has no word of its own for this.
    Connecting,
    /// Media arrives there.
    Active,
    /// Media does not arrive. The destination is retried, unless retrying cannot help.
    Error,
    /// The stream is over.
    Stopped,
}

impl OutputState {
    /// `@mentra/sdk`'s word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connecting | Self::Stopped => "stopped",
            Self::Active => "active",
            Self::Error => "error",
        }
    }
}

impl Output {
    fn json(&self) -> Value {
        let mut json = json!({"url": self.url, "status": self.status.word()});
        set(&mut json, "name", self.name.as_deref());
        set(&mut json, "error", self.error.as_deref());
        json
    }
}

/// One `managed_stream_status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedStatus {
    /// The status word.
    pub word: ManagedWord,
    /// The stream's id; `None` in the answer to a request that led to no stream.
    pub stream_id: Option<String>,
    /// The URLs; with [`ManagedWord::Active`] only.
    pub urls: Option<ViewerUrls>,
    /// A message for a person.
    pub message: Option<String>,
    /// The restream destinations, if there are any.
    pub outputs: Vec<Output>,
}

impl ManagedStatus {
    /// The message as sent over the wire.
    pub fn json(&self) -> Value {
        let mut message = json!({"type": "managed_stream_status", "status": self.word});
        if let (Some(fields), Ok(Value::Object(urls))) = (message.as_object_mut(), serde_json::to_value(&self.urls)) {
            fields.extend(urls);
        }
        set(&mut message, "streamId", self.stream_id.as_deref());
        set(&mut message, "message", self.message.as_deref());
        if !self.outputs.is_empty() {
            message["outputs"] = self.outputs.iter().map(Output::json).collect();
        }
        message
    }
}

/// One `rtmp_stream_status` or `stream_status`.
#[derive(Clone, Debug, PartialEq)]
pub struct UnmanagedStatus {
    /// The dialect that the app speaks.
    pub dialect: Dialect,
    /// `initializing`, `active`, `reconnecting`, `stopping`, `stopped`, `error` or `timeout`.
    pub word: &'static str,
    /// The stream's id; `None` in the answer to a request that led to no stream.
    pub stream_id: Option<String>,
    /// The app that the stream belongs to.
    pub app: String,
    /// The reason, for a person.
    pub details: Option<String>,
    /// The cause's name, for programs.
    pub cause: Option<String>,
    /// What the glasses measured.
    pub stats: Option<Value>,
}

impl UnmanagedStatus {
    /// The message as sent over the wire.
    pub fn json(&self) -> Value {
        let mut message = json!({"type": self.dialect.status_type(), "status": self.word, "appId": self.app});
        set(&mut message, "streamId", self.stream_id.as_deref());
        set(&mut message, "errorDetails", self.details.as_deref());
        set(&mut message, "cause", self.cause.as_deref());
        if let Some(stats) = &self.stats {
            message["stats"] = stats.clone();
        }
        message
    }
}

/// The running stream, for `checkExistingStream()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedStream {
    /// `managed` or `unmanaged`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The stream's id.
    pub stream_id: String,
    /// As in its last status.
    pub status: String,
    /// Creation time, ISO 8601.
    pub created_at: String,
    /// The viewers' URLs, for a managed stream.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub urls: Option<ViewerUrls>,
    /// Number of people watching now, for a managed stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_viewers: Option<u64>,
    /// The URL that an unmanaged stream is sent to, with the key hidden from other apps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtmp_url: Option<ShownUrl>,
    /// The app that the unmanaged stream belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requesting_app_id: Option<String>,
}

/// The answer to `checkExistingStream()`.
pub fn checked(stream: Option<&CheckedStream>) -> Value {
    let mut message = json!({"type": "stream_status_check_response", "hasActiveStream": stream.is_some()});
    if let Some(stream) = stream {
        message["streamInfo"] = json!(stream);
    }
    message
}

/// Sets the key only if there is a text: the package treats any field present as meant.
fn set(message: &mut Value, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        message[key] = text.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(own: bool) -> Output {
        let url = ShownUrl { url: StreamUrl::parse("rtmp://h/a/s3cret").unwrap(), own };
        Output { url, name: None, status: OutputState::Error, error: None }
    }

    #[test]
    fn a_managed_status_has_what_the_package_resolves_on() {
        let urls = ViewerUrls::new("https://h/", "p1", true);
        let status = ManagedStatus {
            word: ManagedWord::Active,
            stream_id: Some("m1".into()),
            urls: Some(urls),
            message: None,
            outputs: [false, true].map(output).to_vec(),
        };
        assert_eq!(
            status.json(),
            json!({"type": "managed_stream_status", "status": "active", "streamId": "m1",
                   "hlsUrl": "https://h/hls/p1/index.m3u8", "dashUrl": "https://h/dash/p1/manifest.mpd",
                   "webrtcUrl": "https://h/whep/p1", "previewUrl": "https://h/watch/p1",
                   "thumbnailUrl": "https://h/thumbnails/p1.jpg",
                   "outputs": [{"url": "rtmp://h/a/***", "status": "error"}, {"url": "rtmp://h/a/s3cret", "status": "error"}]})
        );
        let refused = ManagedStatus {
            word: ManagedWord::Error,
            stream_id: None,
            urls: None,
            outputs: vec![],
            message: Some("no".into()),
        };
        assert_eq!(refused.json(), json!({"type": "managed_stream_status", "status": "error", "message": "no"}));
    }

    #[test]
    fn an_unmanaged_status_is_in_the_apps_dialect() {
        for (dialect, kind) in [(Dialect::Rtmp, "rtmp_stream_status"), (Dialect::Stream, "stream_status")] {
            let (stream_id, app) = (Some("s1".to_owned()), "org.a".to_owned());
            let status =
                UnmanagedStatus { dialect, word: "active", stream_id, app, details: None, cause: None, stats: None };
            assert_eq!(status.json(), json!({"type": kind, "status": "active", "streamId": "s1", "appId": "org.a"}));
        }
    }

    #[test]
    fn a_check_is_answered_with_what_there_is() {
        assert_eq!(checked(None), json!({"type": "stream_status_check_response", "hasActiveStream": false}));
        let stream = CheckedStream {
            kind: "managed",
            stream_id: "m1".into(),
            status: "active".into(),
            created_at: "2026-11-23T10:00:00Z".into(),
            urls: Some(ViewerUrls::new("http://h", "p", false)),
            active_viewers: Some(3),
            rtmp_url: None,
            requesting_app_id: None,
        };
        let info = &checked(Some(&stream))["streamInfo"];
        assert_eq!(
            (&info["type"], &info["activeViewers"], &info["hlsUrl"]),
            (&json!("managed"), &json!(3), &json!("http://h/hls/p/index.m3u8"))
        );
        assert!(info.get("webrtcUrl").is_none() && info.get("rtmpUrl").is_none());
    }
}
