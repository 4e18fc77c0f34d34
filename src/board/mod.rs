//! What the kernel tells about the board under `/sys`: how hot it is, how full its battery, whether it has a network; and
//! the light that says that the camera sees.
//!
//! Every file may be missing: a board without it is one of which nothing is known, and nothing follows from that. Reading
//! and writing may block on a slow bus, so it is done on threads for blocking work, by the task of [`Watch`].

mod led;
mod network;
mod power;
mod thermal;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use led::{Led, LedError, Light};
pub use power::battery;
pub use thermal::{Zone, zones};
pub use watch::Watch;

use crate::policy::battery::Charge;
use crate::policy::heat::Sample;

/// Where to look, how often, and at what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `/sys`, or another root for tests.
    pub sys: PathBuf,
    /// Between looks while the camera is in use. Otherwise seven times as long.
    pub every: Duration,
    /// The types of the thermal zones that count; all if empty.
    pub zones: Vec<String>,
    /// In place of what the zones say, degrees Celsius.
    pub throttle: Option<f64>,
    /// Likewise.
    pub end: Option<f64>,
}

/// One look at the board.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The zone nearest to its limits, by its type, and its temperature, degrees Celsius.
    pub hottest: Option<(String, f64)>,
    /// How it does.
    pub heat: Option<Sample>,
    /// How full the battery is.
    pub battery: Option<Charge>,
    /// Whether a network interface besides loopback is up. `None`: not known.
    pub network: Option<bool>,
    /// Whether the light is as it should be. `None`: there is to be none.
    pub light_obeys: Option<bool>,
}

/// The first line of a file, without white space around it.
fn line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The folders in a folder, in the order of their names; numbers in them count as numbers.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    folders.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (stem, number) = name.split_at(name.len() - digits);
        (stem.to_owned(), number.parse::<u64>().unwrap_or(0))
    });
    folders
}

#[cfg(test)]
mod tests;
