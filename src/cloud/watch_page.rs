//! The page that plays a stream: static files in the binary, the same for every stream. The page polls
//! `/api/watch/{id}` for all it needs to know, so it needs no template and caches well.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde::Serialize;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Scripts and styles come from this server only. Playlists, segments and WHEP may come from another host (`public_url`
/// behind a CDN); pictures play from memory. Any page may embed this one: that is its purpose.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self' https: http:; media-src 'self' blob: https: http:; base-uri 'none'; form-action 'none'; \
    frame-ancestors *";

/// The JSON of `/api/watch/{id}`. An unknown id gives 404, which the page takes for the end of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchState {
    pub state: LiveState,
    /// URL of the multivariant playlist, absolute or relative to the server's root. Absent until it can be played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hls: Option<String>,
    /// URL of the DASH manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dash: Option<String>,
    /// URL of the WHEP endpoint, if the stream was started with WebRTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whep: Option<String>,
}

/// A stream as its viewers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveState {
    /// It has not begun.
    Connecting,
    /// Pictures arrive.
    Live,
    /// The camera lost its connection and may come back.
    Reconnecting,
    /// The stream is over.
    Ended,
}

/// `/watch/{id}` and `/watch/assets/…`.
pub fn router() -> Router {
    let script = |text| served(File::new(SCRIPT, text));
    Router::new()
        .route("/watch/{id}", served(File { page: true, ..File::new(HTML, include_str!("../../web/watch.html")) }))
        .route("/watch/assets/watch.css", served(File::new(CSS, include_str!("../../web/watch.css"))))
        .route("/watch/assets/watch.js", script(include_str!("../../web/watch.js")))
        .route("/watch/assets/whep.js", script(include_str!("../../web/whep.js")))
        .route("/watch/assets/hls.js", script(include_str!("../../web/hls.js")))
        .route("/watch/assets/hls.min.mjs", script(include_str!("../../web/node_modules/hls.js/dist/hls.min.mjs")))
}

fn served(file: File) -> MethodRouter {
    get(move |headers: HeaderMap| async move { file.response(&headers) })
}

#[derive(Clone)]
struct File {
    kind: &'static str,
    text: &'static str,
    /// A hash of the text. A browser asks on every visit, but is sent the text again only after an update of the
    /// server.
    tag: String,
    page: bool,
}

impl File {
    fn new(kind: &'static str, text: &'static str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let half = digest.as_ref()[..8].iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        Self { kind, text, tag: format!("\"{half:016x}\""), page: false }
    }

    fn response(&self, request: &HeaderMap) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::ETAG, &self.tag),
        ];
        let known = request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == self.tag.as_bytes());
        let mut response = if known {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, self.text).into_response()
        };
        if self.page {
            let added = response.headers_mut();
            added.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            added.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_may_be_embedded_and_is_sent_again_only_when_changed() {
        let file = File { page: true, ..File::new(HTML, "<p>") };
        let first = file.response(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        assert!(!first.headers().contains_key("x-frame-options"));
        let policy = first.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("frame-ancestors *") && policy.contains("script-src 'self';"));
        let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone())]);
        assert_eq!(file.response(&known).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(File::new(HTML, "<b>").response(&known).status(), StatusCode::OK);
    }

    #[test]
    fn the_page_is_told_only_what_there_is() {
        let whep = Some("/whep/x".into());
        let state = WatchState { state: LiveState::Reconnecting, hls: None, dash: None, whep };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(text, r#"{"state":"reconnecting","whep":"/whep/x"}"#);
    }
}
