//! Metrics for Prometheus: its text format, counters for any thread, and what the kernel reports about the process.
//!
//! The format takes a hundred lines. They are written here because the crates for it want to own the numbers, in a
//! registry behind locks, while ours have owners already. Each owner writes its numbers down when somebody asks
//! ([`Exposition`]). Nothing is kept twice, and nothing runs while nobody asks.
//!
//! Names follow Prometheus's conventions: base units, `_total` for what only grows, labels with few and known values.
//! Nothing with many values, and nothing that identifies a person (keys, URLs, users, apps, stream ids), is a label.

mod process;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

pub use process::process;

use crate::protocol::Cause;

/// The content type of the text from [`Exposition::finish`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A count that only grows, for events on any thread. Each event is one atomic add.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by the value of a label. It has one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// Counts one event with this value.
    pub fn count(&mut self, value: &'static str) {
        *self.0.entry(value).or_default() += 1;
    }

    /// The number of events with this value.
    pub fn get(&self, value: &str) -> u64 {
        self.0.get(value).copied().unwrap_or(0)
    }

    /// Writes a sample for each of `values`, which must be all that are counted. A value that never came is written as
    /// 0, so that its first event shows in a rate.
    pub fn write(&self, family: &mut Family<'_>, label: &'static str, values: impl IntoIterator<Item = &'static str>) {
        for value in values {
            family.sample(&[(label, value)], self.get(value));
        }
    }
}

/// The names of all causes, which are the values of a label `cause`.
pub fn causes() -> impl Iterator<Item = &'static str> {
    Cause::ALL.iter().map(|cause| cause.name())
}

/// The type of a family's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, except for a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A sum and a count, which give a mean.
    Summary,
}

/// A number to write. Integers are written exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<std::time::Duration> for Value {
    /// In seconds.
    fn from(value: std::time::Duration) -> Self {
        Self::Real(value.as_secs_f64())
    }
}

/// A text that is being written.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a family. Its name must be used once per text, and its samples must follow at once.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        put(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.0, name }
    }

    /// A family of one counter.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.family(name, Kind::Counter, help).sample(&[], value);
    }

    /// A family of one gauge.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// A family of one gauge, left out if there is no value.
    pub fn gauge_if_any(&mut self, name: &'static str, help: &'static str, value: Option<impl Into<Value>>) {
        let mut family = self.family(name, Kind::Gauge, help);
        if let Some(value) = value {
            family.sample(&[], value);
        }
    }

    /// A family of one mean: `sum` in seconds over `count` events.
    pub fn summary(&mut self, name: &'static str, help: &'static str, sum: std::time::Duration, count: u64) {
        let mut family = self.family(name, Kind::Summary, help);
        family.line("_sum", &[], sum.into());
        family.line("_count", &[], count.into());
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// A family that is being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    /// Adds a sample. Its labels must differ from those of the others.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) -> &mut Self {
        self.line("", labels, value.into());
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: Value) {
        put(self.text, format_args!("{}{suffix}", self.name));
        for (n, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            put(self.text, format_args!("{}{name}=\"{value}\"", if n == 0 { '{' } else { ',' }));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        match value {
            Value::Whole(value) => put(self.text, format_args!(" {value}\n")),
            Value::Real(value) if value.is_nan() => self.text.push_str(" NaN\n"),
            Value::Real(value) if value.is_infinite() => {
                self.text.push_str(if value > 0.0 { " +Inf\n" } else { " -Inf\n" });
            }
            Value::Real(value) => put(self.text, format_args!(" {value}\n")),
        }
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes all that is written");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_text_is_as_the_format_wants_it() {
        let mut text = Exposition::default();
        text.counter("a_total", "How many.\nReally \\ many.", u64::MAX);
        text.gauge_if_any("b_seconds", "How long.", None::<f64>);
        text.family("c", Kind::Gauge, "Which.")
            .sample(&[("x", "a\"b\\c\nd"), ("y", "")], true)
            .sample(&[("x", "")], -0.5);
        text.summary("d_seconds", "How long on average.", Duration::from_millis(1500), 3);
        text.gauge("e", "Odd.", f64::NAN);
        text.gauge("f", "Odder.", f64::NEG_INFINITY);
        let wanted = "# HELP a_total How many.\\nReally \\\\ many.\n# TYPE a_total counter\na_total 18446744073709551615\n\
            # HELP b_seconds How long.\n# TYPE b_seconds gauge\n\
            # HELP c Which.\n# TYPE c gauge\nc{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1\nc{x=\"\"} -0.5\n\
            # HELP d_seconds How long on average.\n# TYPE d_seconds summary\nd_seconds_sum 1.5\nd_seconds_count 3\n\
            # HELP e Odd.\n# TYPE e gauge\ne NaN\n# HELP f Odder.\n# TYPE f gauge\nf -Inf\n";
        assert_eq!(text.finish(), wanted);
    }

    #[test]
    fn every_cause_is_there_from_the_beginning() {
        let mut counts = Tally::default();
        counts.count(Cause::ConnectionLost.name());
        counts.count(Cause::ConnectionLost.name());
        let mut text = Exposition::default();
        counts.write(&mut text.family("ends_total", Kind::Counter, "Ends."), "cause", causes());
        let text = text.finish();
        assert_eq!(text.lines().count(), 2 + Cause::ALL.len());
        assert!(text.contains("ends_total{cause=\"connection_lost\"} 2\n"), "{text}");
        assert!(text.contains("ends_total{cause=\"shutdown\"} 0\n"), "{text}");
    }
}
