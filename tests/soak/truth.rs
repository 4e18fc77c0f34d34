//! Whether statuses are true, and whether every request gets exactly one final answer. Pure: it is given what was seen,
//! and when (on `CLOCK_MONOTONIC`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the glasses may say `streaming` while nothing arrives: three times the 3 s in which a dead server is
/// noticed.
pub const STREAMING: Duration = Duration::from_secs(9);
/// How long apps may be told `active` while nothing arrives: three times the 4 s of silence that the cloud tolerates.
pub const ACTIVE: Duration = Duration::from_secs(12);
/// How long after a final status something may still arrive.
pub const OVER: Duration = Duration::from_secs(9);

/// A status, and since when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub word: String,
    pub since: Duration,
}

/// Anyone who is told about streams: an app's managed or unmanaged statuses, or a watcher of the daemon.
#[derive(Debug)]
pub struct Listener {
    name: String,
    limit: Duration,
    /// The stream that began for it and has not ended.
    pub stream: Option<String>,
    /// The last status; `None` while it cannot be told.
    pub told: Option<Told>,
    ended: BTreeSet<String>,
    pub begun: u64,
    pub finals: u64,
    /// The longest time for which a status was not true.
    pub longest: Duration,
    /// The number of statuses that it was told.
    pub words: u64,
}

impl Listener {
    pub fn new(name: &str, limit: Duration) -> Self {
        let name = name.to_owned();
        Self {
            name,
            limit,
            stream: None,
            told: None,
            ended: BTreeSet::new(),
            begun: 0,
            finals: 0,
            longest: Duration::ZERO,
            words: 0,
        }
    }

    /// It is told a status of a stream. The error says what is wrong with that.
    pub fn hear(&mut self, stream: &str, word: &str, now: Duration) -> Result<(), String> {
        self.words += 1;
        let name = &self.name;
        if matches!(word, "stopped" | "error" | "timeout") {
            return if self.stream.as_deref() == Some(stream) {
                self.stream = None;
                self.told = None;
                self.finals += 1;
                self.ended.insert(stream.to_owned());
                Ok(())
            } else if self.ended.contains(stream) {
                Err(format!("{name} was told twice that {stream} has ended ({word})"))
            } else {
                // The stream was refused before it began.
                self.ended.insert(stream.to_owned());
                Ok(())
            };
        }
        if let Some(other) = self.stream.as_ref().filter(|other| *other != stream) {
            return Err(format!("{name} was told that {stream} is {word}, and never that {other} has ended"));
        }
        if self.stream.is_none() {
            self.stream = Some(stream.to_owned());
            self.begun += 1;
        }
        if self.told.as_ref().is_none_or(|told| told.word != word) {
            self.told = Some(Told { word: word.to_owned(), since: now });
        }
        Ok(())
    }

    /// It cannot be told anything at the moment: its connection, or the process that would tell it, is gone.
    pub fn deafen(&mut self) {
        self.told = None;
    }

    /// The process that told it was killed, together with what it still had to tell.
    pub fn forget(&mut self) {
        if self.stream.take().is_some() {
            self.begun -= 1;
        }
        self.told = None;
    }

    /// Whether it was told that this stream has ended.
    pub fn has_ended(&self, stream: &str) -> bool {
        self.ended.contains(stream)
    }

    pub fn is(&self, word: &str) -> bool {
        self.told.as_ref().is_some_and(|told| told.word == word)
    }

    /// Checks that media arrives if it was told so. `progress`: when media last arrived; `excused`: when the process
    /// that tells it was last unable to.
    pub fn check(&mut self, progress: Option<Duration>, excused: Duration, now: Duration) -> Result<(), String> {
        let says_so = |told: &&Told| matches!(told.word.as_str(), "active" | "streaming");
        // Between two streams there is no place to look for media.
        let (Some(told), Some(progress)) = (self.told.as_ref().filter(says_so), progress) else { return Ok(()) };
        let true_at = progress.max(told.since).max(excused);
        let age = now.saturating_sub(true_at);
        self.longest = self.longest.max(age);
        if age > self.limit {
            return Err(format!("{} is told `{}`, and nothing has arrived for {age:.1?}", self.name, told.word));
        }
        Ok(())
    }
}

/// Publications at a server that were reported to be over.
#[derive(Debug, Default)]
pub struct Over(BTreeMap<String, Duration>);

impl Over {
    pub fn told(&mut self, key: String, now: Duration) {
        self.0.insert(key, now);
    }

    /// Something arrived for `key`.
    pub fn check(&self, key: &str, arrived: Duration) -> Result<(), String> {
        match self.0.get(key) {
            Some(told) if arrived > *told + OVER => Err(format!(
                "{:.1?} after the end of {key} was told it is still published",
                arrived.saturating_sub(*told)
            )),
            _ => Ok(()),
        }
    }
}

/// Whether an answer of `checkExistingStream()` agrees with what its app was told last.
pub fn agrees(told: Option<&str>, managed: bool, answer: &serde_json::Value) -> bool {
    let info = &answer["streamInfo"];
    match told {
        // A stream that is ending no longer counts as existing.
        Some("stopping") => true,
        Some(word) => {
            answer["hasActiveStream"] == true
                && info["status"] == word
                && info["type"] == if managed { "managed" } else { "unmanaged" }
        }
        None => answer["hasActiveStream"] == false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_stream_ends_once() {
        let mut app = Listener::new("app", ACTIVE);
        for word in ["initializing", "preparing", "active", "stopped"] {
            app.hear("s1", word, S(1)).unwrap();
        }
        assert_eq!((app.begun, app.finals), (1, 1));
        assert!(app.hear("s1", "stopped", S(2)).is_err(), "twice");
        app.hear("s2", "active", S(2)).unwrap();
        assert!(app.hear("s3", "active", S(2)).is_err(), "s2 never ended");
    }

    #[test]
    fn a_word_without_media_is_false_after_its_limit() {
        let mut app = Listener::new("app", ACTIVE);
        app.hear("s1", "active", S(10)).unwrap();
        app.check(Some(S(20)), S(0), S(31)).unwrap();
        assert!(app.check(Some(S(20)), S(0), S(33)).is_err());
        app.check(Some(S(20)), S(25), S(33)).unwrap();
        app.hear("s1", "preparing", S(33)).unwrap();
        app.check(Some(S(20)), S(0), S(99)).unwrap();
        assert!(app.longest > S(12));
    }

    #[test]
    fn what_is_over_does_not_arrive() {
        let mut over = Over::default();
        over.told("key".into(), S(10));
        over.check("key", S(18)).unwrap();
        over.check("other", S(99)).unwrap();
        assert!(over.check("key", S(20)).is_err());
    }

    #[test]
    fn a_check_agrees_with_what_was_told() {
        let answer = json!({"hasActiveStream": true, "streamInfo": {"type": "managed", "status": "active"}});
        assert!(agrees(Some("active"), true, &answer));
        assert!(!agrees(Some("preparing"), true, &answer) && !agrees(Some("active"), false, &answer));
        assert!(!agrees(None, true, &answer) && agrees(None, true, &json!({"hasActiveStream": false})));
    }
}
