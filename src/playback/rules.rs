//! The rules of RFC 8216bis for a media playlist, checked on each reload and over all of them.

use std::collections::HashMap;

/// The playlist entry of a segment or part, by its name.
#[derive(Clone, Debug, PartialEq)]
struct Listed {
    duration: String,
    independent: bool,
}

#[derive(Debug, Default)]
pub(super) struct Rules {
    target: Option<u64>,
    part_target: Option<String>,
    media_sequence: u64,
    /// Segment names by number.
    numbers: HashMap<u64, String>,
    /// Discontinuity number by segment number.
    discontinuities: HashMap<u64, u64>,
    dates: HashMap<u64, String>,
    listed: HashMap<String, Listed>,
    hint: Option<String>,
    ended: bool,
    /// By how many seconds the parts of a segment may add up to less than it: pictures may last longer than a part may.
    pub less: f64,
    pub segments: u64,
    pub parts: u64,
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let list = line.split_once(':')?.1;
    list.split(',')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value.trim_matches('"'))
}

pub(super) fn millis(date: &str) -> u64 {
    let time = humantime::parse_rfc3339(date).unwrap();
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Rules {
    /// Checks the next reload of a playlist.
    #[allow(clippy::too_many_lines)]
    pub fn check(&mut self, text: &str) {
        assert!(!self.ended, "a playlist that has ended does not change");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "#EXTM3U");
        let one = |tag: &str| {
            let found: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(tag)).collect();
            assert_eq!(found.len(), 1, "{tag} once in\n{text}");
            found[0]
        };
        assert!(one("#EXT-X-VERSION:").parse::<u32>().unwrap() >= 6, "EXT-X-MAP wants 6");
        let target: u64 = one("#EXT-X-TARGETDURATION:").parse().unwrap();
        assert_eq!(*self.target.get_or_insert(target), target, "never changes");
        let part_text = one("#EXT-X-PART-INF:PART-TARGET=").to_owned();
        assert_eq!(*self.part_target.get_or_insert(part_text.clone()), part_text, "never changes");
        let part_target: f64 = part_text.parse().unwrap();
        let control = lines.iter().find(|line| line.starts_with("#EXT-X-SERVER-CONTROL:")).unwrap();
        assert_eq!(attribute(control, "CAN-BLOCK-RELOAD"), Some("YES"));
        assert!(attribute(control, "PART-HOLD-BACK").unwrap().parse::<f64>().unwrap() >= 3.0 * part_target - 1e-4);
        assert!(attribute(control, "HOLD-BACK").unwrap().parse::<f64>().unwrap() >= 3.0 * target as f64);
        let sequence: u64 = one("#EXT-X-MEDIA-SEQUENCE:").parse().unwrap();
        assert!(sequence >= self.media_sequence, "{sequence} after {}", self.media_sequence);
        self.media_sequence = sequence;
        let mut discontinuity: u64 = one("#EXT-X-DISCONTINUITY-SEQUENCE:").parse().unwrap();

        let (mut number, mut mapped, mut dated, mut any) = (sequence, false, None::<&str>, false);
        let mut parts: Vec<(String, f64, bool)> = Vec::new();
        let mut end = 0;
        let mut last_part = None;
        let mut new_parts = Vec::new();
        let mut duration = None::<&str>;
        let mut hints = 0;
        for line in &lines[1..] {
            assert!(hints == 0 || !line.starts_with("#EXT-X-PART:"), "the hint is after all parts");
            if *line == "#EXT-X-DISCONTINUITY" {
                assert!(any && parts.is_empty() && duration.is_none(), "between segments");
                discontinuity += 1;
                mapped = false;
            } else if line.starts_with("#EXT-X-MAP:") {
                assert!(attribute(line, "URI").is_some());
                mapped = true;
            } else if let Some(date) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
                assert!(millis(date) + 2 >= end, "{date} overlaps in\n{text}");
                assert_eq!(self.dates.entry(number).or_insert_with(|| date.to_owned()), date);
                dated = Some(date);
            } else if line.starts_with("#EXT-X-PART:") {
                assert!(mapped && dated.is_some(), "before {line}\n{text}");
                let (uri, text) = (attribute(line, "URI").unwrap(), attribute(line, "DURATION").unwrap());
                let independent = attribute(line, "INDEPENDENT") == Some("YES");
                let seconds: f64 = text.parse().unwrap();
                assert!(seconds <= part_target + 1e-5, "{line} is longer than {part_target}");
                let is = Listed { duration: text.to_owned(), independent };
                if !self.listed.contains_key(uri) {
                    new_parts.push(uri.to_owned());
                    self.parts += 1;
                }
                assert_eq!(*self.listed.entry(uri.to_owned()).or_insert_with(|| is.clone()), is);
                parts.push((uri.to_owned(), seconds, independent));
                last_part = Some(number);
            } else if let Some(text) = line.strip_prefix("#EXTINF:") {
                duration = Some(text.strip_suffix(',').unwrap());
            } else if !line.starts_with('#') {
                let seconds: f64 = duration.take().expect("EXTINF before each segment").parse().unwrap();
                assert!(mapped, "EXT-X-MAP before {line}");
                assert!(seconds.round() as u64 <= target, "{seconds} is longer than {target}");
                let sum: f64 = parts.iter().map(|part| part.1).sum();
                let less = self.less + 1e-3;
                assert!(
                    parts.is_empty() || (sum - 1e-3..sum + less).contains(&seconds),
                    "parts of {sum} s in {seconds}"
                );
                check_short(&parts, part_target);
                end = millis(dated.take().expect("a date for each segment")) + (seconds * 1000.0) as u64;
                let known = self.numbers.entry(number).or_insert_with(|| {
                    self.segments += 1;
                    (*line).to_owned()
                });
                assert_eq!(known, line, "a segment keeps its number");
                let is = Listed { duration: format!("{seconds:.5}"), independent: false };
                assert_eq!(*self.listed.entry((*line).to_owned()).or_insert_with(|| is.clone()), is);
                assert_eq!(*self.discontinuities.entry(number).or_insert(discontinuity), discontinuity, "{number}");
                parts.clear();
                any = true;
                number += 1;
            } else if line.starts_with("#EXT-X-PRELOAD-HINT:") {
                assert_eq!(attribute(line, "TYPE"), Some("PART"));
                hints += 1;
            } else if *line == "#EXT-X-ENDLIST" {
                self.ended = true;
            }
        }
        // The last part may turn out to be the last of its segment; if not, the next reload finds it too short.
        check_short(&parts, part_target);
        if !parts.is_empty() {
            assert_eq!(*self.discontinuities.entry(number).or_insert(discontinuity), discontinuity, "{number}");
        }
        // Otherwise hls.js may think that it has a part that was being loaded when its segment was closed.
        assert!(!parts.is_empty() || self.segments == 1 || self.ended, "closed before the next one began: {text}");
        assert_eq!(hints, usize::from(!self.ended));
        if let (Some(hint), Some(first)) = (&self.hint, new_parts.first()) {
            assert_eq!(hint, first, "what was announced comes");
        }
        assert!(last_part.is_none_or(|last| last + 1 >= number), "parts up to the end");
        let hint = lines.iter().find(|line| line.starts_with("#EXT-X-PRELOAD-HINT:"));
        self.hint = hint.map(|line| attribute(line, "URI").unwrap().to_owned());
    }
}

/// All parts but a segment's last one have at least 85 % of the target.
fn check_short(parts: &[(String, f64, bool)], target: f64) {
    let all = parts.len().saturating_sub(1);
    for (uri, seconds, _) in &parts[..all] {
        assert!(*seconds >= 0.85 * target, "{uri} of {seconds} s is short of {target}: {parts:?}");
    }
}
