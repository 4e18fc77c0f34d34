//! Removes secrets from free text, such as `GStreamer`'s error messages, which print whole locations.

use std::ops::Range;

use super::stream_url::StreamUrl;
use super::url_parts::{HIDDEN, percent_decode, scheme, split_port};

/// A text with the secrets of every `rtmp://` and `rtmps://` URL in it hidden.
///
/// In free text a URL's end is uncertain, so a URL extends to the next white space; if it is not plainly written, only
/// its host is shown.
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

impl StreamUrl {
    /// A text from elsewhere (`GStreamer` prints locations) without this URL's secrets, even percent-encoded or
    /// decoded, and without those of any other RTMP URL.
    pub fn redact(&self, text: &str) -> String {
        blot(&redact_urls(&text.replace(self.expose(), &self.to_string())), &self.secrets())
    }
}

fn find_url(text: &str) -> Option<usize> {
    text.match_indices("://").find_map(|(colon, _)| {
        let starts = ["rtmps".len(), "rtmp".len()].into_iter().filter_map(|len| colon.checked_sub(len));
        starts.into_iter().find(|&start| text.get(start..).is_some_and(|url| scheme(url).is_some()))
    })
}

/// A word that begins with an RTMP scheme, without its secrets.
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

/// The text with every secret replaced, until none is left: what remains around a replacement may form another.
fn blot(text: &str, secrets: &[&str]) -> String {
    // A secret of asterisks alone cannot be told from its replacement. Replacing any other removes something that is
    // not an asterisk, so the loop ends.
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
            // A decoded byte may be only part of a character: take all of it.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> StreamUrl {
        StreamUrl::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

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
            // A lone segment may be an application or a key.
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

    #[test]
    fn redacts_what_gstreamer_prints() {
        let url = url("rtmp://bob:pa%24s@h/app/s3cr%65t?token=tok%2Fen1&a=b");
        for (said, shown) in [
            (
                "Failed to open 'rtmp://bob:pa%24s@h/app/s3cr%65t?token=tok%2Fen1&a=b'.",
                "Failed to open 'rtmp://h/app/***'.",
            ),
            ("publish of s3cret rejected", "publish of *** rejected"),
            ("publish of s3cr%65t?token=tok/en1&a=b rejected", "publish of ***?*** rejected"),
            ("token tok%2fen1, pa$s, pa%24s", "token ***, ***, ***"),
            ("relay to rtmp://other:1936/x/y failed", "relay to rtmp://other:1936/x/*** failed"),
            ("Connection refused by h", "Connection refused by h"),
        ] {
            assert_eq!(url.redact(said), shown);
        }
    }

    /// Part of a URL: characters that need no encoding, and some that must not end it.
    fn part() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9%@&=+*.~é|'\"<>,;!$()-]{5,40}"
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", word in "[rtmps:/@?#\\[\\]a0é%*.]{0,40}") {
            for text in [text, format!("rtmp://{word}"), word] {
                if let Ok(url) = StreamUrl::parse(&text) {
                    url.redact(&text);
                    let _ = (url.expose_user(), url.host(), url.expose_app(), url.expose_stream());
                }
                redact_urls(&text);
            }
        }

        #[test]
        fn nothing_printed_holds_a_secret(
            (user, password, key, query) in (part(), part(), part(), part()),
            (before, after) in (".{0,20}", ".{0,20}"),
        ) {
            let text = format!("rtmp://{user}:{password}@ho.st:9/ap/{key}?{query}");
            let url = url(&text);
            prop_assert_eq!(url.expose(), &text);
            prop_assert_eq!(url.host(), "ho.st");
            prop_assert_eq!(url.expose_stream(), format!("{key}?{query}"));
            let printed = [
                url.to_string(),
                format!("{url:?}"),
                serde_json::to_string(&url).unwrap(),
                redact_urls(&format!("{before} {text} {after}")),
                url.redact(&format!("{before}{text}{after}")),
                url.redact(&format!("{before}{password}{user}{key}{after}{query}")),
            ];
            for secret in [&user, &password, &key, &query] {
                let asterisks = secret.bytes().all(|b| b == b'*');
                prop_assume!(!asterisks && ![&before, &after].iter().any(|t| t.contains(secret.as_str())));
                for printed in &printed {
                    prop_assert!(!printed.contains(secret.as_str()), "{secret} in {printed}");
                }
                let encoded = secret.bytes().fold(String::new(), |text, b| format!("{text}%{b:02x}"));
                let shown = url.redact(&format!("{before}{encoded}{after}"));
                prop_assert!(secret.contains('%') || !shown.contains(&encoded), "{secret} as {shown}");
            }
        }
    }
}
