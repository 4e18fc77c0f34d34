//! The battery: `class/power_supply/*`.

use std::path::Path;

use super::{folders, line};
use crate::policy::battery::Charge;

/// The charge of the board's own battery; of several, the emptiest. Batteries of connected devices (`scope` is
/// `Device`) do not count.
pub fn battery(sys: &Path) -> Option<Charge> {
    let charge = |folder: std::path::PathBuf| {
        let is_battery = line(&folder.join("type")).is_some_and(|kind| kind == "Battery");
        let is_own = line(&folder.join("scope")).is_none_or(|scope| scope != "Device");
        if !is_battery || !is_own {
            return None;
        }
        let percent = line(&folder.join("capacity"))?.parse::<u8>().ok()?.min(100);
        let status = line(&folder.join("status")).unwrap_or_default();
        Some(Charge { percent, charging: matches!(status.as_str(), "Charging" | "Full") })
    };
    folders(&sys.join("class/power_supply")).into_iter().filter_map(charge).min_by_key(|charge| charge.percent)
}
