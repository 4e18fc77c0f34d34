//! The parts of an RTMP URL's text: scheme, host, port, percent-encoding. For URLs that are streamed to and for those
//! in free text.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::Cause;

/// Maximum length of a URL, bytes.
pub(super) const MAX_BYTES: usize = 2048;
/// Placeholder for a secret.
pub(super) const HIDDEN: &str = "***";

/// Why a text is not a URL that can be streamed to. No message contains any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The scheme is not `rtmp://` or `rtmps://`.
    #[error("the URL must begin with rtmp:// or rtmps://")]
    Scheme,
    /// There is no host.
    #[error("the URL names no host")]
    EmptyHost,
    /// The host can be neither a name nor an address.
    #[error("the URL's host is neither a name nor an address")]
    BadHost,
    /// The port is not a number from 1 to 65535.
    #[error("the URL's port is not a number from 1 to 65535")]
    BadPort,
    /// Nothing follows the host.
    #[error("the URL names no application or stream")]
    EmptyPath,
    /// An `@` before the last path segment: most likely a password with a `/` in it, which would be shown.
    #[error("the URL has an @ in its path; write a / in the password as %2F")]
    AtInPath,
    /// White space or control characters.
    #[error("the URL contains white space or control characters")]
    Characters,
    /// Over 2048 bytes.
    #[error("the URL is longer than {MAX_BYTES} bytes")]
    TooLong,
}

impl UrlError {
    /// The cause, for phones.
    pub fn cause(self) -> Cause {
        Cause::InvalidUrl
    }
}

/// Whether a text begins like an RTMPS (or else RTMP) URL, and the length of that beginning.
pub(super) fn scheme(text: &str) -> Option<(bool, usize)> {
    [("rtmp://", false), ("rtmps://", true)].into_iter().find_map(|(prefix, tls)| {
        let begins = text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        begins.then_some((tls, prefix.len()))
    })
}

/// The range of the host in `host[:port]`, and the port if there is one.
pub(super) fn split_port(text: &str) -> Result<(Range<usize>, Option<u16>), UrlError> {
    let (host, after) = if text.starts_with('[') {
        let end = text.find(']').ok_or(UrlError::BadHost)?;
        let (address, zone) = text[1..end].split_once('%').unwrap_or((&text[1..end], ""));
        if address.parse::<Ipv6Addr>().is_err() || !zone.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(UrlError::BadHost);
        }
        (1..end, end + 1)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        if end == 0 {
            return Err(UrlError::EmptyHost);
        }
        if !text[..end].chars().all(|c| c.is_alphanumeric() || "-._".contains(c)) {
            return Err(UrlError::BadHost);
        }
        (0..end, end)
    };
    let port = match &text[after..] {
        "" => None,
        port => Some(port.strip_prefix(':').and_then(parse_port).ok_or(UrlError::BadPort)?),
    };
    Ok((host, port))
}

fn parse_port(text: &str) -> Option<u16> {
    // `u16::from_str` would also accept a sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

/// The bytes of a text with `%XX` decoded; for each, the offset in the text where it began; and the text's length.
pub(super) fn percent_decode(text: &str) -> (Vec<u8>, Vec<usize>) {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let source = text.as_bytes();
    let (mut bytes, mut offsets) = (Vec::with_capacity(source.len()), Vec::with_capacity(source.len() + 1));
    let mut at = 0;
    while at < source.len() {
        offsets.push(at);
        match source[at..] {
            [b'%', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
                bytes.push((hex(high).unwrap_or(0) * 16 + hex(low).unwrap_or(0)) as u8);
                at += 3;
            }
            [byte, ..] => {
                bytes.push(byte);
                at += 1;
            }
            [] => break,
        }
    }
    offsets.push(source.len());
    (bytes, offsets)
}
