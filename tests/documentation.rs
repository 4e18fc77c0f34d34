//! What the documentation says of log lines, causes, commands, files and layers is what the code says, and the code cites no
//! document that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lenscast::device::config::Config;
use lenscast::device::core::Core;
use lenscast::protocol::command::{self, Command};
use lenscast::protocol::control::{AudioWish, Event, PROTOCOL_VERSION, Request, Start, VideoWish};
use lenscast::protocol::{Cause, DaemonState, StreamKind, StreamState};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROTOCOL: &str = "docs/protocol.md";

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Of the programs themselves, without their unit tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(ROOT).join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() && !entry.ends_with("tests") {
                folders.push(entry);
            } else if has_extension(&entry, "rs") && !entry.ends_with("tests.rs") {
                let text = read(&entry);
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                sources.push((entry, text));
            }
        }
    }
    sources
}

/// The string literals in a macro's arguments, from behind its opening parenthesis.
fn literals(arguments: &str) -> Vec<String> {
    let (mut found, mut depth) = (Vec::new(), 1);
    let mut chars = arguments.chars();
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => break,
            ')' => depth -= 1,
            '"' => {
                let mut literal = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    literal.push(if c == '\\' { chars.next().expect("an escaped character") } else { c });
                }
                found.push(literal);
            }
            _ => {}
        }
    }
    found
}

/// The messages of all warnings and errors. A message that is put together (GStreamer's) goes by its target.
fn messages() -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    for (path, text) in sources() {
        for call in ["warn!(", "error!("] {
            for (at, _) in text.match_indices(call) {
                let mut literals = literals(&text[at + call.len()..]);
                literals.retain(|literal| !literal.starts_with('{'));
                let message = literals.pop();
                let message = message.unwrap_or_else(|| panic!("{}: a {call} without a message", path.display()));
                messages.insert(message);
            }
        }
    }
    // By the log itself, which cannot log.
    messages.insert("the journal did not take {lost} lines of this log".into());
    messages
}

#[test]
fn every_warning_and_error_has_its_section_and_every_section_its_line_of_code() {
    let messages = messages();
    assert!(messages.len() > 40, "the search finds what there is: {messages:#?}");
    let page = read("docs/troubleshooting.md");
    let heading = |line: &str| line.strip_prefix("### `")?.strip_suffix('`').map(str::to_owned);
    let sections: BTreeSet<String> = page.lines().filter_map(heading).collect();
    let missing: Vec<_> = messages.difference(&sections).collect();
    let stale: Vec<_> = sections.difference(&messages).collect();
    assert!(missing.is_empty() && stale.is_empty(), "missing: {missing:#?}, no longer said: {stale:#?}");
}

#[test]
fn every_cause_is_explained_and_none_that_is_not_there() {
    let page = read("docs/troubleshooting.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let explained: Vec<&str> = rows.collect();
    let causes: Vec<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    assert_eq!(explained, causes, "each once, in the order of the code");
}

#[test]
fn the_page_is_found() {
    assert!(read("README.md").contains("(docs/troubleshooting.md)"));
}

/// The text files below these folders, without what is installed, built or recorded there.
fn texts(folders: &[&str]) -> Vec<(PathBuf, String)> {
    const OTHERS: [&str; 5] = ["node_modules", "target", "__pycache__", "artifacts", "corpus"];
    let mut folders: Vec<PathBuf> = folders.iter().map(|name| Path::new(ROOT).join(name)).collect();
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.extend((!OTHERS.iter().any(|other| entry.ends_with(other))).then_some(entry));
            } else if let Ok(text) = fs::read_to_string(&entry) {
                texts.push((entry, text));
            }
        }
    }
    texts
}

fn has_extension(path: impl AsRef<Path>, extension: &str) -> bool {
    path.as_ref().extension().is_some_and(|is| is == extension)
}

/// The papers that people read on their own.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = texts(&["docs"]);
    pages.retain(|(path, _)| has_extension(path, "md"));
    for name in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        pages.push((Path::new(ROOT).join(name), read(name)));
    }
    pages
}

/// The lines outside of code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || "-_ ".contains(c);
    headings.map(|heading| heading.to_lowercase().replace(|c| !kept(c), "").replace(' ', "-")).collect()
}

/// What a page has between this heading and the next one.
fn section<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let is_it = |line: &str| line.starts_with('#') && line.trim_start_matches('#').trim() == heading;
    let lines: Vec<&str> = prose(page).skip_while(|line| !is_it(line)).skip(1).collect();
    assert!(!lines.is_empty(), "there is no section {heading:?}");
    lines.into_iter().take_while(|line| !line.starts_with('#')).collect()
}

/// What stands in backticks.
fn in_backticks(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of a section's table, below its head: the code in the first cell, and in the second.
fn rows(heading: &str) -> Vec<(BTreeSet<String>, BTreeSet<String>)> {
    let page = read(PROTOCOL);
    let lines = section(&page, heading).into_iter().skip_while(|line| !line.starts_with("|---"));
    let rows = lines.filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.split(" | ").map(in_backticks);
        (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
    });
    rows.collect()
}

fn documented(heading: &str) -> BTreeSet<String> {
    rows(heading).into_iter().flat_map(|(first, _)| first).collect()
}

/// The texts that a parser's `match` compares with, from its first line to the arm for all others.
fn arms(path: &str, first: &str, last: &str) -> BTreeSet<String> {
    let text = read(path);
    let arms = text.split_once(first).and_then(|(_, rest)| rest.split_once(last));
    let (arms, _) = arms.unwrap_or_else(|| panic!("{path} has no {first:?} with {last:?} after it"));
    let arms = arms.lines().map(str::trim).filter(|line| line.starts_with('"'));
    let arms = arms.filter_map(|line| line.split_once(" =>")).flat_map(|(patterns, _)| patterns.split(" | "));
    arms.map(|pattern| pattern.trim_matches('"').to_owned()).collect()
}

fn word(word: &str) -> BTreeSet<String> {
    BTreeSet::from([word.to_owned()])
}

/// The public fields of a structure.
fn fields(path: &str, structure: &str) -> BTreeSet<String> {
    let text = read(path);
    let body = text.split_once(&format!("pub struct {structure} {{")).and_then(|(_, rest)| rest.split_once("\n}"));
    let (body, _) = body.unwrap_or_else(|| panic!("{path} has no {structure}"));
    let names = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    let mut fields: BTreeSet<String> = names.map(|(name, _)| name.to_owned()).collect();
    // Its fields stand beside the others.
    if structure != "Failure" && body.contains("#[serde(flatten)]") && fields.remove("failure") {
        fields.extend(self::fields("src/protocol/failure.rs", "Failure"));
    }
    fields
}

/// Whether `word` stands in the text, and not as a part of another word.
fn has_word(text: &str, word: &str) -> bool {
    let within = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(within) && !text[at + word.len()..].starts_with(within))
}

/// The Markdown files that a text names, with their anchors; not those of other places.
fn named_documents(text: &str) -> Vec<(&str, Option<&str>)> {
    let of_a_path = |c: char| c.is_ascii_alphanumeric() || "._-/#".contains(c);
    let words = text.split(|c| !of_a_path(c)).map(|word| word.trim_end_matches('.'));
    let parted = words.map(|word| word.split_once('#').map_or((word, None), |(path, anchor)| (path, Some(anchor))));
    parted.filter(|(path, _)| has_extension(path, "md") && !path.starts_with("//")).collect()
}

/// The file that a text in `folder` means: seen from that folder, or from one above it.
fn find(folder: &Path, path: &str) -> Option<PathBuf> {
    let above = folder.ancestors().take_while(|folder| folder.starts_with(ROOT));
    above.map(|folder| folder.join(path.trim_start_matches('/'))).find(|path| path.is_file())
}

#[test]
fn nothing_cites_a_document_that_is_not_there() {
    // Notes from before there was code, which were never in the repository.
    const ABSENT: [&str; 7] = [
        "DESIGN",
        "protocol-facts",
        "protocol facts",
        "field-notes",
        "measured.md",
        "(design, section",
        "design section",
    ];
    let folders =
        ["src", "tests", "benches", "hw-fixtures", "packaging", "docs", "scripts", "systemd", "pipelines", "fuzz"];
    let mut texts = texts(&folders);
    texts.retain(|(path, _)| !path.ends_with(file!()));
    assert!(texts.len() > 300, "the search finds what there is, not {} files", texts.len());
    let mut wrong = Vec::new();
    let mut cited = 0;
    for (path, text) in &texts {
        wrong.extend(
            ABSENT.iter().filter(|word| has_word(text, word)).map(|word| format!("{}: {word}", path.display())),
        );
        for (document, anchor) in named_documents(text) {
            let found = find(path.parent().expect("a folder"), document);
            let leads = found.is_some_and(|found| anchor.is_none_or(|anchor| anchors(&read(found)).contains(anchor)));
            wrong.extend((!leads).then(|| format!("{}: {document} {}", path.display(), anchor.unwrap_or_default())));
            cited += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cited > 50, "the search finds what there is, not {cited} documents");
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for (page, text) in pages() {
        let lines: Vec<&str> = prose(&text).collect();
        let defined = lines.iter().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
        let defined: Vec<(&str, &str)> = defined.collect();
        let inline = lines.iter().flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
        for link in inline.chain(defined.iter().map(|(_, link)| *link)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { page.clone() } else { page.parent().expect("a folder").join(path) };
            let leads = target.exists() && anchor.is_none_or(|anchor| anchors(&read(&target)).contains(anchor));
            wrong.extend((!leads).then(|| format!("{}: {link}", page.display())));
            followed += 1;
        }
        // `[file.rs]` alone is a link only where it is defined.
        for rest in lines.iter().flat_map(|line| line.split('[').skip(1)) {
            if let Some((name, behind)) = rest.split_once(']')
                && has_extension(name, "rs")
                && !behind.starts_with('(')
                && !defined.iter().any(|(defined, _)| *defined == name)
            {
                wrong.push(format!("{}: [{name}] is not defined", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(followed > 100, "the search finds what there is, not {followed} links");
}

/// One of each request that the control socket takes, with every field.
fn requests() -> Vec<Request> {
    let text = || Some("x".to_owned());
    let video = VideoWish { width: Some(640), height: Some(360), bitrate: Some(500_000), frame_rate: Some(30) };
    let audio = AudioWish { bitrate: Some(64_000), sample_rate: Some(48_000) };
    let start = Start {
        url: "rtmp://host/app/key".into(),
        app: text(),
        stream_id: text(),
        kind: Some(StreamKind::Managed),
        video: Some(video),
        audio: Some(audio),
        duration_s: Some(1),
    };
    let all = vec![
        Request::Status,
        Request::Watch,
        Request::Start(start),
        Request::Stop { stream_id: text() },
        Request::Bitrate { bitrate: 500_000 },
        Request::Photo { app: text() },
        Request::CameraList,
        Request::CameraWho,
        Request::CameraAcquire { program: text() },
        Request::CameraRelease,
        Request::Doctor,
    ];
    for request in &all {
        // Not `_`: who adds one here is told by the compiler to add it above.
        match request {
            Request::Status
            | Request::Watch
            | Request::Start(_)
            | Request::Stop { .. }
            | Request::Bitrate { .. }
            | Request::Photo { .. }
            | Request::CameraList
            | Request::CameraWho
            | Request::CameraAcquire { .. }
            | Request::CameraRelease
            | Request::Doctor => {}
        }
    }
    all
}

#[test]
fn every_command_of_the_control_socket_is_documented_with_its_fields_and_none_that_is_not_there() {
    let mut expected = Vec::new();
    let page = read(PROTOCOL);
    let words: BTreeSet<String> = section(&page, "The control socket").into_iter().flat_map(in_backticks).collect();
    for request in requests() {
        let mut json = serde_json::to_value(&request).expect("a request is JSON");
        assert_eq!(Request::parse(json.to_string().as_bytes()).as_ref(), Ok(&request), "the parser takes every field");
        let fields = json.as_object_mut().expect("a request is an object");
        let command = fields.remove("cmd").expect("a cmd");
        let nested = fields.values().filter_map(|field| field.as_object()).flat_map(|object| object.keys());
        for name in nested {
            assert!(words.contains(name), "{command}: {name} is documented");
        }
        expected.push((word(command.as_str().expect("a word")), fields.keys().cloned().collect()));
    }
    assert_eq!(rows("The control socket"), expected, "in the order of the code");

    let error = Request::parse(br#"{"cmd":"?"}"#).expect_err("no such command").to_string();
    let known = error.rsplit("one of ").next().expect("a list").split(", ").map(str::to_owned).collect();
    assert_eq!(documented("The control socket"), known, "what the parser says that it takes");
}

#[test]
fn every_event_of_the_control_socket_is_documented_with_its_fields() {
    let mut expected = vec![(word("report"), fields("src/protocol/control.rs", "ReportLine"))];
    for event in [Event::State { state: Box::default() }, Event::Lagged] {
        let mut json = serde_json::to_value(&event).expect("an event is JSON");
        let fields = json.as_object_mut().expect("an event is an object");
        let name = fields.remove("event").expect("its name");
        expected.push((word(name.as_str().expect("a word")), fields.keys().cloned().collect()));
    }
    assert_eq!(rows("Events"), expected);
}

#[test]
fn every_field_of_the_state_is_named() {
    let page = read(PROTOCOL);
    let named: BTreeSet<String> = section(&page, "The state").into_iter().flat_map(in_backticks).collect();
    let state = serde_json::to_value(DaemonState::default()).expect("the state is JSON");
    for field in state.as_object().expect("the state is an object").keys() {
        assert!(named.contains(field), "{field}");
    }
}

#[test]
fn the_state_says_which_version_of_the_protocol_the_page_describes() {
    let state = Core::new(&Config::default()).state(Duration::ZERO);
    assert_eq!(state.protocol, PROTOCOL_VERSION);
    let described = format!("`state.protocol` is {PROTOCOL_VERSION}");
    assert!(read(PROTOCOL).contains(&described), "{described}");
}

#[test]
fn every_message_of_a_link_is_documented_and_none_that_is_not_there() {
    let known = arms("src/protocol/command.rs", "match kind {", "other =>");
    assert!(known.len() > 8, "the search finds what there is: {known:?}");
    assert_eq!(documented("Link messages"), known);
    for kind in known {
        let parsed = command::parse(&serde_json::json!({"type": kind}).to_string());
        assert!(!matches!(parsed, Ok(incoming) if matches!(incoming.command, Command::Unknown { .. })), "{kind}");
    }
}

#[test]
fn every_message_of_an_app_is_documented_and_none_that_is_not_there() {
    let known = arms("src/protocol/app/request.rs", "match kind {", "other =>");
    assert!(known.len() > 6, "the search finds what there is: {known:?}");
    assert_eq!(documented("Requests of apps"), known);
}

#[test]
fn every_status_is_documented_and_none_that_is_not_there() {
    let mut known: BTreeSet<String> = StreamState::ALL.iter().map(|state| state.name().to_owned()).collect();
    known.insert("reconnected".into()); // a word of one dialect for `streaming` after an outage
    assert_eq!(documented("Statuses"), known);
}

#[test]
fn imports_run_only_downwards() {
    // The modules of each row of the table in lib.rs, highest first.
    let library = read("src/lib.rs");
    let rows = library.lines().filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next());
    let rows: Vec<BTreeSet<String>> = rows.map(in_backticks).filter(|modules| !modules.is_empty()).collect();
    let rank = |module: &str| rows.iter().position(|modules| modules.contains(module));
    let (mut upwards, mut seen) = (Vec::new(), 0);
    for (path, text) in sources() {
        let inside = path.strip_prefix(Path::new(ROOT).join("src")).expect("a source").with_extension("");
        let module = inside.iter().next().and_then(|name| name.to_str()).expect("a module");
        // The programs stand above all; what is fuzzed is not in them.
        let Some(own) = rank(module).filter(|_| !inside.ends_with("fuzz")) else { continue };
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for used in code.flat_map(|line| line.split("crate::").skip(1)) {
            let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            let below = rank(used).is_some_and(|other| other > own);
            upwards.extend((used != module && !below).then(|| format!("{} uses {used}", path.display())));
            seen += 1;
        }
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
    assert!(seen > 200, "the search finds what there is, not {seen} imports");
}
