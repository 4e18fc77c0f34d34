//! What the documentation says of log lines and causes is what the code says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lenscast::protocol::Cause;

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Of the programs themselves, without their unit tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() && !entry.ends_with("tests") {
                folders.push(entry);
            } else if entry.extension().is_some_and(|kind| kind == "rs") && !entry.ends_with("tests.rs") {
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
