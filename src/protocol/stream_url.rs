//! The address of an RTMP server, and which parts of it are secret.
//!
//! The text is kept as given: servers compare keys byte by byte, so nothing is decoded or encoded again. Three parts
//! are secret: the user info (up to the *last* `@` before the path), the last path segment, and everything from `?` or
//! `#` on. Only the functions called `expose…` give them out. `rtmp2sink` splits its `location` at the very last
//! slash, even in the query, and its host at the first `@` (measured, 1.22): give it the parts.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::url_parts::{HIDDEN, MAX_BYTES, UrlError, percent_decode, scheme, split_port};

/// The stream name for a URL that names only an application (`MentraOS` appends the same). It is publicly known, so it
/// is no secret even if spelled out: a completed URL is passed on.
const DEFAULT_STREAM: &str = "/stream";
/// Parts of a query or a user name shorter than this are not redacted on their own: they would hit ordinary words.
const MIN_PART: usize = 4;

/// A URL to publish to: `rtmp[s]://[user:password@]host[:port]/app[/…]/key[?query]`.
///
/// `{}`, `{:?}` and serde show `rtmp://host[:port]/app/***`.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamUrl {
    text: String,
    tls: bool,
    user: Range<usize>,
    host: Range<usize>,
    port: u16,
    /// The application, with its parameters in the form `app?vhost=…/key`.
    app: Range<usize>,
    /// Offset in `text` where the key begins; the key extends to the end.
    stream: usize,
    /// Whether there is a key; otherwise the stream is [`DEFAULT_STREAM`] and not secret.
    keyed: bool,
}

impl StreamUrl {
    /// Reads a URL. One path segment is the application; `/stream` is then appended to it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_BYTES {
            return Err(UrlError::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(UrlError::Characters);
        }
        let (tls, authority) = scheme(text).ok_or(UrlError::Scheme)?;
        let path = text[authority..].find(['/', '?', '#']).map_or(text.len(), |i| authority + i);
        let user_end = text[authority..path].rfind('@').map(|i| authority + i);
        let host_start = user_end.map_or(authority, |i| i + 1);
        let (host, port) = split_port(&text[host_start..path])?;
        let host = host_start + host.start..host_start + host.end;
        let port = port.unwrap_or(if tls { 443 } else { 1935 });

        let tail = text[path..].find(['?', '#']).map_or(text.len(), |i| path + i);
        let app_start = path + 1;
        let segments = text[path..tail].trim_end_matches('/');
        if segments.is_empty() {
            return Err(UrlError::EmptyPath);
        }
        let path_end = path + segments.len();
        let mut text = text.to_owned();
        let mut keyed = true;
        // The slash between application and key.
        let slash = match segments[1..].rfind('/') {
            Some(i) => {
                keyed = &text[app_start + i..path_end] != DEFAULT_STREAM;
                app_start + i
            }
            // `app?vhost=…/key`, as written by SRS and Adobe's tools.
            None if text[tail..].contains('/') && !text[tail..].ends_with('/') => {
                tail + text[tail..].rfind('/').unwrap_or_default()
            }
            None => {
                keyed = false;
                text.replace_range(path_end..tail, DEFAULT_STREAM);
                path_end
            }
        };
        if text[app_start..slash.min(tail)].contains('@') {
            return Err(UrlError::AtInPath);
        }
        let user = authority..user_end.unwrap_or(authority);
        Ok(Self { text, tls, user, host, port, app: app_start..slash, stream: slash + 1, keyed })
    }

    /// The host; an IPv6 address is without its brackets.
    pub fn host(&self) -> &str {
        &self.text[self.host.clone()]
    }

    /// Whether the server is on this machine, judged by the name alone.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// The TCP port; 1935 (RTMP) or 443 (RTMPS) if the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the scheme is RTMPS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The whole URL with its secrets. Only for the RTMP element and for passing the request on to the glasses.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The application for RTMP's `connect`. May carry secret parameters. Only for the RTMP element.
    pub fn expose_app(&self) -> &str {
        &self.text[self.app.clone()]
    }

    /// The stream for RTMP's `publish`: the key with its query, without a trailing slash. Only for the RTMP element.
    pub fn expose_stream(&self) -> &str {
        let stream = &self.text[self.stream..];
        if stream.contains(['?', '#']) { stream } else { stream.trim_end_matches('/') }
    }

    /// User name and password for RTMP authentication, percent-decoded. Only for the RTMP element.
    pub fn expose_user(&self) -> Option<(String, String)> {
        let user = &self.text[self.user.clone()];
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let decode = |text| String::from_utf8_lossy(&percent_decode(text).0).into_owned();
        (!user.is_empty()).then(|| (decode(name), decode(password)))
    }

    /// Whether the URL names a key; otherwise it was completed with a public one.
    pub(super) fn has_key(&self) -> bool {
        self.keyed
    }

    /// The application without its secrets.
    fn app(&self) -> &str {
        let app = self.expose_app();
        &app[..app.find(['?', '#']).unwrap_or(app.len())]
    }

    /// The secret parts; none is empty.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let user = &self.text[self.user.clone()];
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let stream = self.expose_stream();
        let key_end = stream.find(['?', '#']).unwrap_or(stream.len());
        let (key, query) = (stream[..key_end].trim_end_matches('/'), stream.get(key_end + 1..).unwrap_or_default());
        let app_query = self.expose_app().get(self.app().len() + 1..).unwrap_or_default();

        let mut secrets = vec![user, password, query, app_query];
        if self.keyed {
            secrets.push(key);
        }
        let values = [query, app_query].into_iter().flat_map(|q| q.split(['&', ';', '#']));
        let values = values.filter_map(|pair| Some(pair.split_once('=')?.1));
        secrets.extend(values.chain([name]).filter(|part| part.len() >= MIN_PART));
        secrets.retain(|secret| !secret.is_empty());
        secrets
    }
}

impl fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.tls { ("rtmps", 443) } else { ("rtmp", 1935) };
        match self.host() {
            host if host.contains(':') => write!(f, "{scheme}://[{host}]")?,
            host => write!(f, "{scheme}://{host}")?,
        }
        if self.port != default {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}/{HIDDEN}", self.app())
    }
}

impl fmt::Debug for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for StreamUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Cause;

    fn url(text: &str) -> StreamUrl {
        StreamUrl::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn only_loopback_needs_no_network() {
        for (host, local) in
            [("localhost", true), ("127.0.0.9", true), ("[::1]:1935", true), ("h", false), ("10.0.0.1", false)]
        {
            assert_eq!(url(&format!("rtmp://{host}/live/k")).is_loopback(), local, "{host}");
        }
    }

    #[test]
    fn parts_of_usual_urls() {
        let twitch = url("rtmps://live.twitch.tv:8443/app/live_123?bandwidthtest=true");
        assert_eq!((twitch.host(), twitch.port(), twitch.is_tls()), ("live.twitch.tv", 8443, true));
        assert_eq!((twitch.expose_app(), twitch.expose_stream()), ("app", "live_123?bandwidthtest=true"));
        assert_eq!(twitch.to_string(), "rtmps://live.twitch.tv:8443/app/***");
        assert_eq!(twitch.expose(), "rtmps://live.twitch.tv:8443/app/live_123?bandwidthtest=true");

        assert_eq!(url("rtmp://h/live/k").port(), 1935);
        assert_eq!(url("rtmps://h/live/k").port(), 443);
        let v6 = url("rtmp://[fe80::1%25wlan0]:19/live/k");
        assert_eq!((v6.host(), v6.port()), ("fe80::1%25wlan0", 19));
        assert_eq!(url("rtmp://[::1]:19/live/k").to_string(), "rtmp://[::1]:19/live/***");
        assert_eq!(url("RTMP://H/live/k").expose(), "RTMP://H/live/k");
    }

    #[test]
    fn user_info_ends_at_the_last_at_sign_and_is_decoded_for_the_server() {
        let url = url("rtmp://us%41er:p@ss%3Aword@host/live/k@y");
        assert_eq!(url.host(), "host");
        assert_eq!(url.expose_user(), Some(("usAer".into(), "p@ss:word".into())));
        assert_eq!(url.to_string(), "rtmp://host/live/***");
        assert_eq!(super::tests::url("rtmp://host/live/k").expose_user(), None);
    }

    #[test]
    fn application_and_stream_are_split_where_servers_split_them() {
        for (text, app, stream, shown) in [
            ("rtmp://h/a/b/c/key", "a/b/c", "key", "rtmp://h/a/b/c/***"),
            // A slash in the key's query does not separate path segments.
            ("rtmp://h/app/key?sig=ab/cd=", "app", "key?sig=ab/cd=", "rtmp://h/app/***"),
            ("rtmp://h/app/key#1/2", "app", "key#1/2", "rtmp://h/app/***"),
            ("rtmp://h/app/key/", "app", "key", "rtmp://h/app/***"),
            ("rtmp://h/app/key?u=/x/", "app", "key?u=/x/", "rtmp://h/app/***"),
            ("rtmp://h/app//key", "app/", "key", "rtmp://h/app//***"),
            ("rtmp://h//key", "", "key", "rtmp://h//***"),
            ("rtmp://h/app?vhost=v.example/key", "app?vhost=v.example", "key", "rtmp://h/app/***"),
        ] {
            let url = url(text);
            assert_eq!((url.expose_app(), url.expose_stream()), (app, stream), "{text}");
            assert_eq!((url.to_string().as_str(), url.expose()), (shown, text));
        }
    }

    #[test]
    fn an_application_alone_gets_a_stream() {
        for (text, whole) in [
            ("rtmp://h/app", "rtmp://h/app/stream"),
            ("rtmp://h:1/app/", "rtmp://h:1/app/stream"),
            ("rtmp://h/app?token=t", "rtmp://h/app/stream?token=t"),
        ] {
            assert_eq!(url(text).expose(), whole);
        }
        assert_eq!(url("rtmp://h/app").redact("no stream at h"), "no stream at h");
        assert_eq!(url("rtmp://h/app/stream"), url("rtmp://h/app"));
    }

    #[test]
    fn what_cannot_be_streamed_to_is_refused_by_name() {
        let long = format!("rtmp://h/app/{}", "k".repeat(MAX_BYTES));
        for (text, error) in [
            ("", UrlError::Scheme),
            ("http://h/app/key", UrlError::Scheme),
            ("srt://h:1/key", UrlError::Scheme),
            ("rtmp:/h/app/key", UrlError::Scheme),
            ("rtmp:///app/key", UrlError::EmptyHost),
            ("rtmp://:1935/app/key", UrlError::EmptyHost),
            ("rtmp://user@/app/key", UrlError::EmptyHost),
            ("rtmp://", UrlError::EmptyHost),
            ("rtmp://a|b/app/key", UrlError::BadHost),
            ("rtmp://[::1/app/key", UrlError::BadHost),
            ("rtmp://[nonsense]/app/key", UrlError::BadHost),
            ("rtmp://h:/app/key", UrlError::BadPort),
            ("rtmp://h:0/app/key", UrlError::BadPort),
            ("rtmp://h:+1/app/key", UrlError::BadPort),
            ("rtmp://h:65536/app/key", UrlError::BadPort),
            ("rtmp://::1/app/key", UrlError::EmptyHost),
            ("rtmp://[::1]x/app/key", UrlError::BadPort),
            ("rtmp://h", UrlError::EmptyPath),
            ("rtmp://h///", UrlError::EmptyPath),
            ("rtmp://h?token=t", UrlError::EmptyPath),
            ("rtmp://user:12/secret@h/app/key", UrlError::AtInPath),
            ("rtmp://h/app/my key", UrlError::Characters),
            ("rtmp://h/app/key\n", UrlError::Characters),
            ("rtmp://h/app/\u{85}key", UrlError::Characters),
            (&long, UrlError::TooLong),
        ] {
            assert_eq!(StreamUrl::parse(text), Err(error), "{text}");
            assert_eq!(error.cause(), Cause::InvalidUrl);
        }
    }

    #[test]
    fn serde_reads_the_url_and_writes_it_without_secrets() {
        let url: StreamUrl = serde_json::from_str(r#""rtmp://h/app/s3cret""#).unwrap();
        assert_eq!(url.expose_stream(), "s3cret");
        assert_eq!(serde_json::to_value(&url).unwrap(), "rtmp://h/app/***");
        let error = serde_json::from_str::<StreamUrl>(r#""rtmp://h:x/app/s3cret""#).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
