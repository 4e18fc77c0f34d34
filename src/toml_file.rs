//! TOML files that people write: reading them whole, and listing them in order of precedence. Depends on no other
//! module.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file or folder.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The content is invalid. The error leaves out the line itself, which may contain a token.
    #[error("{place}: {why}")]
    Malformed {
        /// The file, with the line number if one line is at fault.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

impl FileError {
    /// Makes the error for a `path` that cannot be read.
    pub fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Unreadable { path: path.display().to_string(), source }
    }

    /// Makes the error for a `path` whose content `text` is invalid.
    pub fn malformed(path: &Path, text: &str) -> impl Fn(toml::de::Error) -> Self {
        move |error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let lines_before = before.map(|before| before.matches('\n').count());
            let key = lines_before.and_then(|lines| text.lines().nth(lines)).and_then(key);
            let line = lines_before.map_or_else(String::new, |lines| format!(", line {}", lines + 1));
            let key = key.map_or_else(String::new, |key| format!(", {key}"));
            Self::Malformed { place: format!("{}{line}{key}", path.display()), why: error.message().to_owned() }
        }
    }
}

/// The bare key of a line of the form `KEY = VALUE`.
fn key(line: &str) -> Option<&str> {
    let (key, value) = line.split_once('=')?;
    let is_bare = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    // A line within a multi-line string may be a secret in base64, which can end in equals signs.
    let is_value = !value.trim().is_empty() && !value.starts_with('=');
    Some(key.trim()).filter(|key| is_value && !key.is_empty() && is_bare(key))
}

/// Reads and parses `path`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = std::fs::read_to_string(path).map_err(FileError::unreadable(path))?;
    toml::from_str(&text).map_err(FileError::malformed(path, &text))
}

/// The `*.toml` files of `folder`, sorted by name.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(FileError::unreadable(folder))? {
        let path = entry.map_err(FileError::unreadable(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_line_and_does_not_repeat_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        for (text, place) in [
            ("a = 1\n\ntokne = \"hush\"\n", "line 3, tokne: "),
            ("token = \"hush\n", "line 1, token: "),
            ("token = \"\"\"\nhush==\n\"\"\" hush\n", "line 3: "),
            ("[token\n", "line 1: "),
        ] {
            #[derive(Debug, serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            #[allow(dead_code, reason = "only whether they can be read counts")]
            struct File {
                a: Option<u32>,
                token: Option<String>,
            }
            std::fs::write(&path, text).unwrap();
            let error = anyhow::Error::from(read::<File>(&path).unwrap_err());
            let told = format!("{error:#} {error:?}");
            assert!(told.contains(&format!("a.toml, {place}")) && !told.contains("hush"), "{told}");
        }
    }
}
