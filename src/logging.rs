//! Where both programs log: under systemd to its journal, with searchable fields; otherwise as text to stderr.
//!
//! `journalctl -u lenscastd` shows the same lines as stderr would, and `journalctl STREAM_ID=… CAUSE=…` finds them.
//! Only the fields in `FIELDS` are passed on by name: the code's variable names are not an interface, and none of the
//! fields holds a secret. tracing-journald would give the bare message without what makes it worth reading, and every
//! field.
//!
//! A line is one datagram and never waits: lines that the journal does not take at once are lost, and counted in the
//! log.

use std::fmt::{Debug, Write as _};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::protocol::redact_urls;

/// journald's socket: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Field names in the code and in the journal. Several may map to the same.
const FIELDS: [(&str, &str); 5] =
    [("stream_id", "STREAM_ID"), ("cause", "CAUSE"), ("app", "APP"), ("package", "APP"), ("user", "USER")];

/// Maximum length of a line, bytes: journald's own `LineMax=`. A datagram could hold much more.
const LONGEST: usize = 48 * 1024;

/// Starts logging for the named program, at the levels in `RUST_LOG` (default `info`).
pub fn begin(program: &'static str) {
    // Levels by module. EnvFilter would also match fields, at the price of regular expressions, a tenth of the
    // program.
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty()).and_then(|asked| asked.parse().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    // If there is no journal after all (a container that shares only stderr), log to stderr.
    let journal = is_journal().then(|| Journal::open(program, Path::new(JOURNAL)).ok()).flatten();
    let text = journal.is_none().then(|| fmt::layer().with_writer(io::stderr));
    tracing_subscriber::registry().with(filter).with(journal).with(text).init();
}

/// Whether stderr is connected to systemd's journal (systemd.exec(5), `$JOURNAL_STREAM`): compares device and inode,
/// since children inherit the variable but not always stderr.
fn is_journal() -> bool {
    let Ok(told) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| told == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Writes to the journal.
struct Journal {
    program: &'static str,
    socket: UnixDatagram,
    path: PathBuf,
    lost: AtomicU64,
}

impl Journal {
    fn open(program: &'static str, path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // journald ignores an empty datagram; if nobody is there, this fails.
        socket.send_to(&[], path)?;
        Ok(Self { program, socket, path: path.to_owned(), lost: AtomicU64::new(0) })
    }

    fn send(&self, record: &[u8]) {
        if self.socket.send_to(record, &self.path).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let mut record = self.record(Level::WARN);
            put(&mut record, "MESSAGE", &format!("the journal did not take {lost} lines of this log"));
            if self.socket.send_to(&record, &self.path).is_err() {
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }

    /// The first fields of a record.
    fn record(&self, level: Level) -> Vec<u8> {
        // Numbered as in syslog(3). The default level maps to information, not to notice.
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            _ => "7",
        };
        let mut record = Vec::with_capacity(512);
        put(&mut record, "PRIORITY", priority);
        put(&mut record, "SYSLOG_IDENTIFIER", self.program);
        record
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::default();
        event.record(&mut line);
        let mut record = self.record(*metadata.level());
        put(&mut record, "MESSAGE", shortened(&redact_urls(&line.text)));
        let module = line.module.as_deref().or(metadata.module_path()).unwrap_or(metadata.target());
        put(&mut record, "CODE_MODULE", module);
        for (name, value) in &line.fields {
            put(&mut record, name, shortened(&redact_urls(value)));
        }
        self.send(&record);
    }
}

/// Appends a field with its length, so that nothing needs to be escaped.
fn put(record: &mut Vec<u8>, name: &str, value: &str) {
    record.extend_from_slice(name.as_bytes());
    record.push(b'\n');
    record.extend_from_slice(&(value.len() as u64).to_le_bytes());
    record.extend_from_slice(value.as_bytes());
    record.push(b'\n');
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// An event as text for a person, and its fields for the journal.
#[derive(Default)]
struct Line {
    text: String,
    fields: Vec<(&'static str, String)>,
    /// The module of events that came through `log`, which lack it in their metadata.
    module: Option<String>,
}

impl Line {
    fn field(&mut self, name: &str, shown: &dyn Debug, value: impl FnOnce() -> String) {
        match name {
            // The message comes first, wherever it stands in the event.
            "message" => self.text = format!("{shown:?}{}", self.text),
            "log.target" => self.module = Some(value()),
            name if name.starts_with("log.") => {}
            name => {
                let _ = write!(self.text, " {}={shown:?}", name.trim_start_matches("r#")); // a string takes all
                if let Some((_, name)) = FIELDS.iter().find(|(known, _)| *known == name) {
                    self.fields.push((name, value()));
                }
            }
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Quoted, as in text on stderr, so that a value cannot imitate another field.
        self.field(field.name(), &value, || value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field.name(), value, || format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Journald {
        folder: tempfile::TempDir,
        socket: UnixDatagram,
    }

    impl Journald {
        fn begin() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { folder, socket }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("socket")
        }

        /// The records so far, except empty ones.
        fn records(&self) -> Vec<BTreeMap<String, String>> {
            let mut buffer = vec![0; 256 * 1024];
            let next = || self.socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
            std::iter::from_fn(next).filter(|record| !record.is_empty()).map(|record| parse(&record)).collect()
        }
    }

    fn parse(mut record: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !record.is_empty() {
            let name = record.iter().position(|&byte| byte == b'\n').unwrap();
            let value = name + 9;
            let length = u64::from_le_bytes(record[name + 1..value].try_into().unwrap()) as usize;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(record[value + length], b'\n');
            fields.insert(text(&record[..name]), text(&record[value..value + length]));
            record = &record[value + length + 1..];
        }
        fields
    }

    fn logged(events: impl FnOnce()) -> Vec<BTreeMap<String, String>> {
        let journald = Journald::begin();
        let journal = Journal::open("program", &journald.path()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), events);
        journald.records()
    }

    #[test]
    fn a_line_is_whole_and_what_is_searched_for_has_a_field() {
        let records = logged(|| {
            let failure = "connection_lost: closed";
            tracing::warn!(stream_id = "m1", cause = %"connection_lost", attempt = 3, %failure, "publication lost");
            tracing::info!(package = "org.one", user = "u@e.com", key = "a\nb", "app started");
        });
        let wanted = [
            [
                ("PRIORITY", "4"),
                ("SYSLOG_IDENTIFIER", "program"),
                (
                    "MESSAGE",
                    "publication lost stream_id=\"m1\" cause=connection_lost attempt=3 failure=connection_lost: closed",
                ),
                ("CODE_MODULE", "lenscast::logging::tests"),
                ("STREAM_ID", "m1"),
                ("CAUSE", "connection_lost"),
            ],
            [
                ("PRIORITY", "6"),
                ("SYSLOG_IDENTIFIER", "program"),
                ("MESSAGE", "app started package=\"org.one\" user=\"u@e.com\" key=\"a\\nb\""),
                ("CODE_MODULE", "lenscast::logging::tests"),
                ("APP", "org.one"),
                ("USER", "u@e.com"),
            ],
        ];
        let wanted = wanted.map(|record| record.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(records, wanted);
    }

    #[test]
    fn keys_are_hidden_whatever_field_they_hide_in_and_lines_have_an_end() {
        let records = logged(|| {
            tracing::error!(cause = "rtmp://h/app/s3cret", other = %"see rtmps://u:s3cret@h/app/s3cret", "at rtmp://h/a/s3cret");
            tracing::info!("{}", "é".repeat(LONGEST));
        });
        assert_eq!(records.len(), 2);
        assert!(!format!("{records:?}").contains("s3cret"), "{records:?}");
        assert_eq!(records[0]["CAUSE"], "rtmp://h/app/***");
        assert!(records[0]["MESSAGE"].starts_with("at rtmp://h/a/*** "), "{records:?}");
        assert!((LONGEST - 3..=LONGEST).contains(&records[1]["MESSAGE"].len()));
    }

    #[test]
    fn a_journal_that_takes_nothing_holds_nobody_up_and_hears_how_much_it_missed() {
        // More than any datagram queue holds.
        const LINES: usize = 2000;
        let journald = Journald::begin();
        let journal = Journal::open("program", &journald.path()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            for _ in 0..LINES {
                tracing::info!("a line");
            }
            let taken = journald.records().len();
            assert!(taken < LINES);
            tracing::info!("one more");
            let after = journald.records();
            let missed = format!("the journal did not take {} lines of this log", LINES - taken);
            assert_eq!(after.iter().map(|record| &record["MESSAGE"]).collect::<Vec<_>>(), ["one more", &missed]);
        });
    }

    #[test]
    fn without_a_journal_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Journal::open("program", &folder.path().join("socket")).is_err());
    }
}
