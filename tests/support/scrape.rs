//! Reads numbers as Prometheus does, and more strictly: whatever its format forbids or its conventions advise against fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A scrape that was as it must be.
#[derive(Clone, Debug)]
pub struct Scrape {
    samples: BTreeMap<String, f64>,
}

/// `GET path` at a port of this machine, with more header lines; the status and the body.
pub fn get(port: u16, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    if status == 200 {
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    }
    (status, body.to_owned())
}

impl Scrape {
    /// Of `/metrics` at a port of this machine.
    pub fn of(port: u16) -> Self {
        let (status, body) = get(port, "/metrics", "");
        assert_eq!(status, 200);
        Self::parse(&body)
    }

    /// Reads a text, and panics over what is wrong with it.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has its end");
        let mut families: BTreeMap<&str, &str> = BTreeMap::new();
        let mut samples = BTreeMap::new();
        let mut helped = None;
        let mut current = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help text");
                assert!(help.ends_with('.') && !families.contains_key(name), "{line}");
                helped = Some(name);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert_eq!(helped.take(), Some(name), "each family is explained first: {line}");
                check_name(name, kind);
                assert_eq!(families.insert(name, kind), None, "{name} comes twice");
                current = name;
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = series.split_once('{').map_or((series, ""), |(name, labels)| (name, labels));
                let suffixes: &[&str] = if families[current] == "summary" { &["_sum", "_count"] } else { &[""] };
                let belongs = suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(current));
                assert!(belongs, "{line} stands under {current}");
                if series.contains('{') {
                    check_labels(labels.strip_suffix('}').expect("an end of the labels"), line);
                }
                let number: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                if families[current] != "gauge" {
                    assert!(number >= 0.0, "{line}");
                }
                assert_eq!(samples.insert(series.to_owned(), number), None, "{series} comes twice");
            }
        }
        Self { samples }
    }

    /// A sample by its name and labels, as they are written.
    pub fn value(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("{series} is not among {:#?}", self.samples.keys()))
    }

    /// The same, if there is one.
    pub fn find(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// A sample that is a whole number.
    pub fn count(&self, series: &str) -> u64 {
        whole(self.value(series))
    }

    /// The sum over a family's labels, of whole numbers.
    pub fn sum(&self, family: &str) -> u64 {
        let of = |series: &str| series.split('{').next() == Some(family);
        self.samples.iter().filter(|(series, _)| of(series)).map(|(_, value)| whole(*value)).sum()
    }

    /// Counters only grow: every one that was there `before` is no less now.
    pub fn assert_after(&self, before: &Self) {
        for (series, value) in &before.samples {
            let name = series.split('{').next().unwrap_or_default();
            if ["_total", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix)) {
                assert!(self.value(series) >= *value, "{series} fell from {value}");
            }
        }
    }
}

fn whole(value: f64) -> u64 {
    assert!(value >= 0.0 && value.fract().abs() < f64::EPSILON, "{value} is no count");
    value as u64
}

fn check_name(name: &str, kind: &str) {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    assert!(plain && (name.starts_with("lenscast_") || name.starts_with("process_")), "{name}");
    assert!(["counter", "gauge", "summary"].contains(&kind), "{name} is a {kind}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    for unit in ["_ms", "_millis", "_kb", "_bits", "_percent", "_minutes"] {
        assert!(!name.ends_with(unit) && !name.contains(&format!("{unit}_")), "{name} is in no base unit");
    }
}

fn check_labels(labels: &str, line: &str) {
    let mut rest = labels;
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").expect("a label's value");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        assert!(names.insert(name), "{line}");
        let end = value.find('"').expect("the value's end");
        // Nothing here has to be escaped: a value is one of few words, a version or an encoder's name.
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(value[..end].chars().all(plain) && (1..=32).contains(&end), "{line}");
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    super::sdk_app::free_port()
}
