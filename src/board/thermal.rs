//! Thermal zones: `class/thermal/thermal_zone*`.

use std::path::PathBuf;

use super::{Settings, folders, line};
use crate::policy::heat::{Limits, Trip, TripKind};

/// More trip points than any zone has.
const MOST_TRIPS: usize = 32;

/// A thermal zone: a place whose temperature the kernel watches.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The kernel's name for it, for example `cpu-thermal`.
    pub name: String,
    /// The temperatures at which the kernel and a stream act.
    pub limits: Limits,
    /// Whether these come from the zone itself; otherwise they are defaults.
    pub has_trips: bool,
    file: PathBuf,
}

impl Zone {
    /// Degrees Celsius. `None` if the sensor sleeps, is gone, or reports an impossible value.
    pub fn celsius(&self) -> Option<f64> {
        let celsius = line(&self.file)?.parse::<f64>().ok()? / 1000.0;
        (-40.0..=150.0).contains(&celsius).then_some(celsius)
    }
}

/// The zones that count, according to `settings`.
pub fn zones(settings: &Settings) -> Vec<Zone> {
    let folders = folders(&settings.sys.join("class/thermal"))
        .into_iter()
        .filter(|folder| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("thermal_zone")));
    let zone = |folder: PathBuf| {
        let name = line(&folder.join("type"))?;
        if !settings.zones.is_empty() && !settings.zones.contains(&name) {
            return None;
        }
        let trips: Vec<Trip> = (0..MOST_TRIPS)
            .map_while(|index| {
                let kind = line(&folder.join(format!("trip_point_{index}_type")))?;
                Some((kind, line(&folder.join(format!("trip_point_{index}_temp")))?))
            })
            .filter_map(|(kind, temp)| {
                let kind = match kind.as_str() {
                    "passive" => TripKind::Passive,
                    "hot" => TripKind::Hot,
                    "critical" => TripKind::Critical,
                    _ => return None, // `active` switches a fan on
                };
                Some(Trip { kind, celsius: temp.parse::<f64>().ok()? / 1000.0 })
            })
            .collect();
        let power_allocator = line(&folder.join("policy")).is_some_and(|policy| policy == "power_allocator");
        let limits = Limits::of(&trips, power_allocator).or(settings.throttle, settings.end);
        Some(Zone { name, limits, has_trips: !trips.is_empty(), file: folder.join("temp") })
    };
    folders.filter_map(zone).collect()
}
