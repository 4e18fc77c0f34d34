//! URLs, whose secrets must never be shown.

use crate::fuzz_input::{SECRET, assert_hidden};
use crate::protocol::{StreamUrl, redact_urls};

/// A URL to stream to.
pub fn stream_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let url = match StreamUrl::parse(text) {
        Ok(url) => url,
        Err(error) => return assert_hidden(&error.to_string()),
    };
    assert!(url.port() != 0 && !url.host().is_empty() && !url.expose_stream().is_empty());
    match StreamUrl::parse(url.expose()) {
        Ok(again) => assert_eq!((&again, again.expose()), (&url, url.expose())),
        // The longest URL becomes too long once the stream is appended.
        Err(error) => assert!(url.expose().len() > text.len(), "{error}"),
    }
    let shown = url.to_string();
    assert_eq!(format!("{url:?}"), shown);
    let Ok(again) = StreamUrl::parse(&shown) else {
        return assert!(shown.len() > text.len(), "{shown} is a URL, but for its length");
    };
    assert_eq!((again.host(), again.port(), again.is_tls()), (url.host(), url.port(), url.is_tls()));
    assert_eq!(again.to_string(), shown);
    let redacted = redact_urls(&shown);
    assert_eq!(redact_urls(&redacted), redacted);
}

/// Text with a URL in it. The first lines of the input are the URL's parts, the rest is the text around it.
pub fn redact(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(SECRET) {
        return;
    }
    let mut lines = text.splitn(5, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (before, place, after, address, free) = (line(), line(), line(), line(), line());
    let redacted = redact_urls(text);
    assert_eq!(redact_urls(&redacted), redacted);

    // Every place of a key or password in a URL that a peer made up.
    let spaced = |part: &str| part.chars().any(|c| c.is_whitespace() || c.is_control());
    if !spaced(place) {
        let query = if after.starts_with(['?', '#']) || after.is_empty() { "" } else { "?" };
        for scheme in ["rtmp", "RTMPS"] {
            assert_hidden(&redact_urls(&format!("{before}{scheme}://{place}/{SECRET}{query}{after}")));
            assert_hidden(&redact_urls(&format!("{before}{scheme}://{place}:{SECRET}@{after}")));
            assert_hidden(&redact_urls(&format!("{before}{scheme}://{place}/key?token={SECRET}{after}")));
        }
    }

    // A URL that is known.
    let Ok(url) = StreamUrl::parse(address) else { return };
    let middle = free.floor_char_boundary(free.len() / 2);
    let (left, right) = free.split_at(middle);
    for said in [free.to_owned(), format!("{left}{address}{right}"), format!("{left}{}{right}", url.expose_stream())] {
        let shown = url.redact(&said);
        for secret in secrets(&url) {
            assert!(!shown.contains(secret), "{secret:?} in {shown:?}");
        }
    }
}

/// The parts of a URL that must not be shown. A part of asterisks looks like a hidden one, so it is left out.
fn secrets(url: &StreamUrl) -> Vec<&str> {
    let stream = url.expose_stream();
    let (key, query) = stream.split_at(stream.find(['?', '#']).unwrap_or(stream.len()));
    let rest = url.expose().split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let mut secrets = vec![query.get(1..).unwrap_or_default(), user];
    if let Some((_, password)) = user.split_once(':') {
        secrets.push(password);
    }
    // Everybody knows the stream name that is added to a URL without one.
    secrets.extend(Some(key.trim_end_matches('/')).filter(|key| *key != "stream"));
    secrets.retain(|secret| !percent_decoded(secret).iter().all(|&byte| byte == b'*'));
    secrets
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match after {
            [high, low, after @ ..] if *first == b'%' && hex(*high).is_some() && hex(*low).is_some() => {
                ((hex(*high).unwrap_or_default() * 16 + hex(*low).unwrap_or_default()) as u8, after)
            }
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}
