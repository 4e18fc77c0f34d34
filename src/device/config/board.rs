//! The configuration tables for the board: heat, battery, privacy light.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::board::{self, Led, Light};
use crate::policy::battery::Floors;

/// Where and how often the board is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Board {
    /// The root of the kernel's sysfs. Default `/sys`.
    pub sys: PathBuf,
    /// Interval between readings of heat and battery while the camera is in use, milliseconds, 50 to 5000; seven times
    /// as long otherwise. Default 1500.
    pub poll_ms: u64,
}

impl Default for Board {
    fn default() -> Self {
        Self { sys: "/sys".into(), poll_ms: 1500 }
    }
}

/// When a stream is reduced or ended because of heat.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heat {
    /// The types of the thermal zones that count. Default: all.
    pub zones: Vec<String>,
    /// Temperature at which the board throttles, degrees Celsius; a stream gives way from 10 degrees below. Default:
    /// each zone's passive trip point, or 85.
    pub throttle_c: Option<f64>,
    /// Temperature at which a stream ends, degrees Celsius. Default: 3 degrees below each zone's hot or critical trip
    /// point, or 95.
    pub end_c: Option<f64>,
    /// How long it must be cooler before a stream gets something back, seconds. Default 20.
    pub dwell_s: u64,
}

impl Default for Heat {
    fn default() -> Self {
        Self { zones: Vec::new(), throttle_c: None, end_c: None, dwell_s: 20 }
    }
}

/// The charge below which the battery allows no stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Battery {
    /// Below this no stream starts and the running one ends, per cent; 0: never. Default 10.
    pub floor_percent: u8,
    /// The same while charging. Default 3.
    pub charging_floor_percent: u8,
}

impl Default for Battery {
    fn default() -> Self {
        Self { floor_percent: 10, charging_floor_percent: 3 }
    }
}

impl Battery {
    /// The limits, for the policy.
    pub fn floors(&self) -> Floors {
        Floors { discharging: self.floor_percent, charging: self.charging_floor_percent }
    }
}

/// The light that is on while the camera is in use. Without a name or path there is none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyLed {
    /// The LED's name under `/sys/class/leds`.
    pub name: Option<String>,
    /// The LED's folder, instead of a name.
    pub path: Option<PathBuf>,
    /// Whether streams need a working light: no light, no picture. Default false.
    pub require: bool,
}

impl super::Config {
    /// Settings for reading the board.
    pub fn board_settings(&self) -> board::Settings {
        board::Settings {
            sys: self.board.sys.clone(),
            every: Duration::from_millis(self.board.poll_ms),
            zones: self.heat.zones.clone(),
            throttle: self.heat.throttle_c,
            end: self.heat.end_c,
        }
    }

    /// The LED that shows that the camera is in use.
    pub fn led(&self) -> Option<Led> {
        match (&self.privacy_led.path, &self.privacy_led.name) {
            (Some(path), _) => Some(Led::at(path.clone())),
            (None, Some(name)) => Some(Led::named(&self.board.sys, name)),
            (None, None) => None,
        }
    }

    /// The same LED as a switchable light, off at first.
    pub fn light(&self) -> Option<Arc<Light>> {
        self.led().map(|led| Arc::new(Light::new(led)))
    }

    /// The first contradiction in these tables, if any.
    pub(super) fn board_contradiction(&self) -> Option<&'static str> {
        let sensible = |celsius: Option<f64>| celsius.is_none_or(|celsius| (30.0..=150.0).contains(&celsius));
        let led = &self.privacy_led;
        if !(50..=5000).contains(&self.board.poll_ms) {
            Some("board.poll_ms must be 50 to 5000")
        } else if !sensible(self.heat.throttle_c) || !sensible(self.heat.end_c) {
            Some("heat.throttle_c and heat.end_c must be 30 to 150 degrees Celsius")
        } else if self.heat.end_c.zip(self.heat.throttle_c).is_some_and(|(end, throttle)| end <= throttle) {
            Some("heat.end_c must be above heat.throttle_c")
        } else if !(1..=600).contains(&self.heat.dwell_s) {
            Some("heat.dwell_s must be 1 to 600")
        } else if self.battery.floor_percent > 100 || self.battery.charging_floor_percent > 100 {
            Some("battery.floor_percent and battery.charging_floor_percent must be 0 to 100")
        } else if led.name.is_some() && led.path.is_some() {
            Some("give either privacy_led.name or privacy_led.path, not both")
        } else if led.require && led.name.is_none() && led.path.is_none() {
            Some("privacy_led.require needs privacy_led.name or privacy_led.path")
        } else if led.name.as_ref().is_some_and(|name| name.is_empty() || name.contains('/') || name.starts_with('.')) {
            Some("privacy_led.name must be a name under /sys/class/leds; use privacy_led.path for a folder")
        } else {
            None
        }
    }
}
