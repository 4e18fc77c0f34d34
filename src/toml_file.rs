//! TOML files that people write: read whole, and listed in the order in which they count. Stands below all other modules.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not readable.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file or folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not what it should be.
    #[error("{path}: {source}")]
    Malformed {
        /// The file.
        path: String,
        /// Why, with the line.
        source: Box<toml::de::Error>,
    },
}

impl FileError {
    /// `path` is not readable.
    pub fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Unreadable { path: path.display().to_string(), source }
    }

    /// `path` is not what it should be.
    pub fn malformed(path: &Path) -> impl Fn(toml::de::Error) -> Self {
        move |source| Self::Malformed { path: path.display().to_string(), source: Box::new(source) }
    }
}

/// Reads and parses `path`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = std::fs::read_to_string(path).map_err(FileError::unreadable(path))?;
    toml::from_str(&text).map_err(FileError::malformed(path))
}

/// The `*.toml` of `folder`, by name.
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
