//! What the kernel reports about the board under `/sys`: its heat, its battery, its network; and the light that shows
//! that the camera sees.
//!
//! Every file may be missing: then the value is unknown, and nothing follows from it. Reading and writing may block on
//! a slow bus, so the task of [`Watch`] does it on threads for blocking work.

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
use crate::policy::heat::HeatSample;

/// What to read, where, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The root of sysfs: `/sys`, or another folder in tests.
    pub sys: PathBuf,
    /// Interval between readings while the camera is in use; seven times as long otherwise.
    pub every: Duration,
    /// Types of the thermal zones that count; all zones if empty.
    pub zones: Vec<String>,
    /// Throttling point that replaces the zones' own, degrees Celsius.
    pub throttle: Option<f64>,
    /// End point that replaces the zones' own, degrees Celsius.
    pub end: Option<f64>,
}

/// One reading of the board.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The zone nearest to its limits: its type, and its temperature in degrees Celsius.
    pub hottest: Option<(String, f64)>,
    /// Heat relative to the limits.
    pub heat: Option<HeatSample>,
    /// The battery's charge.
    pub battery: Option<Charge>,
    /// Whether a network interface other than loopback is up. `None`: unknown.
    pub network: Option<bool>,
    /// Whether the light is as requested. `None`: there is no light.
    pub light_obeys: Option<bool>,
}

/// The first line of a file, trimmed.
fn line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The folders in a folder, sorted by name; numbers in names sort as numbers.
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
