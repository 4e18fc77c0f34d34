//! Secrets taken out of free text, such as `GStreamer`'s error messages, which print whole locations.

use std::ops::Range;

use super::stream_url::{StreamUrl, scheme, split_port};

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "***";

/// A text with the secrets of every `rtmp://` and `rtmps://` URL in it hidden.
///
/// Where a URL ends cannot be known for sure in free text, so one goes on to the next white space, and of one that is
/// not plainly written no more than the host is shown.
pub fn redact_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = find_url(rest) {
        out.push_str(&rest[..start]);
        let url = &rest[start..];
        let end = url.find(|c: char| c.is_control() || c.is_whitespace()).unwrap_or(url.len());
        out.push_str(&show(&url[..end]));
        rest = &url[end..];
    }
    out.push_str(rest);
    out
}

fn find_url(text: &str) -> Option<usize> {
    text.match_indices("://").find_map(|(colon, _)| {
        let starts = ["rtmps".len(), "rtmp".len()].into_iter().filter_map(|len| colon.checked_sub(len));
        starts.into_iter().find(|&start| text.get(start..).is_some_and(|url| scheme(url).is_some()))
    })
}

/// A word that begins with an RTMP scheme as it may be shown.
fn show(word: &str) -> String {
    let url = word.trim_end_matches(['\'', '"', ')', ',', ';', '.', ':', '>', ']', '}']);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&*+=%".contains(c);
    if url.matches("://").count() == 1
        && url.chars().all(plain)
        && let Ok(parsed) = StreamUrl::parse(url)
        && parsed.has_key()
        // `h/app?vhost=v/key`, or a key with a slash in its query.
        && !parsed.expose_app().contains(['?', '#'])
    {
        return format!("{parsed}{}", &word[url.len()..]);
    }
    let Some((tls, start)) = scheme(word) else { return HIDDEN.to_owned() };
    let scheme = if tls { "rtmps" } else { "rtmp" };
    let (authority, path) = word[start..].split_at(word[start..].find(['/', '?', '#']).unwrap_or(word.len() - start));
    let server = authority.rsplit('@').next().unwrap_or_default();
    if authority.is_empty() && path.is_empty() {
        format!("{scheme}://")
    } else if path.contains('@') || split_port(server).is_err() {
        format!("{scheme}://{HIDDEN}")
    } else if path.is_empty() {
        format!("{scheme}://{server}")
    } else {
        format!("{scheme}://{server}/{HIDDEN}")
    }
}

/// The text with every secret replaced, until none is left: what remains around a replacement may spell another.
pub(super) fn blot(text: &str, secrets: &[&str]) -> String {
    // A secret of asterisks alone cannot be told from its replacement. Every other one takes something that is not an
    // asterisk away with it, and so the loop ends.
    let blank = |secret: &[u8]| secret.iter().all(|&b| b == b'*');
    let plain: Vec<&str> = secrets.iter().copied().filter(|secret| !blank(secret.as_bytes())).collect();
    let decoded: Vec<Vec<u8>> = secrets.iter().map(|s| percent_decode(s).0).filter(|s| !blank(s)).collect();
    let mut text = text.to_owned();
    loop {
        let mut found: Vec<Range<usize>> = Vec::new();
        for secret in &plain {
            found.extend(text.match_indices(secret).map(|(at, _)| at..at + secret.len()));
        }
        let (bytes, offsets) = percent_decode(&text);
        for secret in &decoded {
            let hits = bytes.windows(secret.len()).enumerate().filter(|(_, window)| window == secret);
            // A decoded byte may be part of a character only: take all of it.
            found.extend(hits.map(|(at, _)| {
                text.floor_char_boundary(offsets[at])..text.ceil_char_boundary(offsets[at + secret.len()])
            }));
        }
        if found.is_empty() {
            return text;
        }
        found.sort_unstable_by_key(|span| span.start);
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for span in found {
            if span.start >= done {
                out.push_str(&text[done..span.start]);
                out.push_str(HIDDEN);
            }
            done = done.max(span.end);
        }
        out.push_str(&text[done..]);
        text = out;
    }
}

/// The bytes of a text with `%XX` resolved, and for each the offset in the text where it began, and the text's length.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_in_text_lose_their_secrets() {
        for (said, shown) in [
            (
                "Could not connect to rtmp://u:p@h:1/app/key?x=y: refused",
                "Could not connect to rtmp://h:1/app/***: refused",
            ),
            ("location=\"rtmp://h/app/key\", sync", "location=\"rtmp://h/app/***\", sync"),
            ("RTMPS://h/app/key", "rtmps://h/app/***"),
            ("a rtmp://h/a/k b rtmps://i:2/b/c/l c", "a rtmp://h/a/*** b rtmps://i:2/b/c/*** c"),
            // Whether a lone segment is an application or a key is anybody's guess.
            ("rtmp://h/key", "rtmp://h/***"),
            ("rtmp://h/key?sig=ab/cd", "rtmp://h/***"),
            ("{\"rtmpUrl\":\"rtmp://h/a/k\",\"streamId\":\"s/1\"}", "{\"rtmpUrl\":\"rtmp://h/***"),
            ("rtmp://h/a/k,rtmp://i/b/l", "rtmp://h/***"),
            ("rtmp://user:12/pass@h/app/key", "rtmp://***"),
            ("rtmp://user:pass", "rtmp://***"),
            ("rtmp://h:19 is down", "rtmp://h:19 is down"),
            ("xrtmp://h/a/k", "xrtmp://h/a/***"),
            ("only rtmp:// and rtmps:// work", "only rtmp:// and rtmps:// work"),
            ("http://h/a/k é://", "http://h/a/k é://"),
        ] {
            assert_eq!(redact_urls(said), shown);
            assert_eq!(redact_urls(shown), shown, "not stable");
        }
    }

    #[test]
    fn what_is_left_does_not_spell_a_secret() {
        for (text, secret) in
            [("**aa", "**a"), ("a*a*aa", "*a"), ("xyxyzz", "xyz"), ("%%4141", "%41"), ("é\u{e9}", "%A9")]
        {
            let shown = blot(text, &[secret]);
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(blot("a ** b", &["*", "%2a"]), "a ** b");
        assert_eq!(blot("one two three", &["two", "o thr"]), "one ***ee");
    }
}
