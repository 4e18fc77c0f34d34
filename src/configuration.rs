//! How both programs read their configuration: a TOML file, then the drop-ins beside it (`NAME.d/*.toml`, sorted by
//! name). Later files override earlier ones, but lists of tables (`[[app]]`) are appended to. An unknown key is an
//! error that names file and line.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::protocol::Secret;
use crate::toml_file::{self, FileError};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read, or its content is invalid.
    #[error(transparent)]
    File(#[from] FileError),
    /// Two keys contradict each other, or a value is not allowed.
    #[error("{0}")]
    Contradiction(String),
}

/// Reads `path` and the drop-ins beside it. A missing file at `default` means all defaults; a `path` that is given must
/// exist.
pub fn load<T: DeserializeOwned>(path: Option<&Path>, default: &Path) -> Result<T, ConfigError> {
    let main = path.unwrap_or(default);
    let mut merged = toml::Table::new();
    let mut files = if path.is_none() && !main.exists() { vec![] } else { vec![main.to_owned()] };
    files.extend(drop_ins(main)?);
    for file in files {
        merge(&mut merged, read::<T>(&file)?);
    }
    Ok(merged.try_into().map_err(FileError::malformed(main, ""))?)
}

/// Reads a file that contains only a secret. White space around it is removed.
pub fn read_secret(path: &Path) -> Result<Secret, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(FileError::unreadable(path))?;
    Ok(Secret::new(text.trim()))
}

/// Fails unless `path` exists.
pub fn must_exist(path: &Path) -> Result<(), ConfigError> {
    Ok(std::fs::metadata(path).map(drop).map_err(FileError::unreadable(path))?)
}

/// `lenscastd.d/*.toml` beside `lenscastd.toml`, sorted by name.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, FileError> {
    let folder = main.with_extension("d");
    if folder.try_exists().map_err(FileError::unreadable(&folder))? { toml_file::list(&folder) } else { Ok(vec![]) }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<toml::Table, FileError> {
    // Each file is first parsed on its own: only then does an error know its line.
    toml_file::read::<T>(path)?;
    toml_file::read(path)
}

pub(crate) fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => merge(base, over),
            (Some(toml::Value::Array(base)), toml::Value::Array(over)) if over.iter().all(toml::Value::is_table) => {
                base.extend(over);
            }
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_merge_lists_of_tables_grow_and_other_lists_are_replaced() {
        let mut base: toml::Table = toml::from_str("list = [1, 2]\n[t]\na = 1\nb = 2\n[[app]]\nn = 1\n").unwrap();
        merge(&mut base, toml::from_str("list = [3]\n[t]\nb = 3\n[[app]]\nn = 2\n").unwrap());
        let wanted: toml::Table =
            toml::from_str("list = [3]\n[t]\na = 1\nb = 3\n[[app]]\nn = 1\n[[app]]\nn = 2\n").unwrap();
        assert_eq!(base, wanted);
    }
}
