//! A board's `/sys` made of files: one thermal zone, one battery, one LED.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use super::clock::{monotonic, poll_until};

/// The folder, and what the files are.
pub struct Sys(TempDir);

impl Sys {
    /// A cool board that throttles at 85 degrees and dies at 103, with a full battery on no charger and its LED off.
    pub fn new() -> Self {
        let this = Self(TempDir::with_prefix("sys-").expect("a folder for /sys"));
        for (file, text) in [
            ("thermal/thermal_zone0/type", "cpu-thermal"),
            ("thermal/thermal_zone0/trip_point_0_type", "passive"),
            ("thermal/thermal_zone0/trip_point_0_temp", "85000"),
            ("thermal/thermal_zone0/trip_point_1_type", "critical"),
            ("thermal/thermal_zone0/trip_point_1_temp", "103000"),
            ("power_supply/battery/type", "Battery"),
            ("leds/privacy/max_brightness", "255"),
            ("leds/privacy/brightness", "0"),
        ] {
            this.write(file, text);
        }
        this.celsius(45);
        this.battery(90, "Discharging");
        this
    }

    /// The tables that point a daemon to it, with everything quick enough for a test.
    pub fn config(&self) -> String {
        format!(
            "[board]\nsys = \"{}\"\npoll_ms = 50\n[heat]\ndwell_s = 1\n[privacy_led]\nname = \"privacy\"\n",
            self.0.path().display()
        )
    }

    /// How hot the zone is.
    pub fn celsius(&self, celsius: u32) {
        self.write("thermal/thermal_zone0/temp", &(celsius * 1000).to_string());
    }

    /// How full the battery is, and what it says it does.
    pub fn battery(&self, percent: u32, status: &str) {
        self.write("power_supply/battery/status", status);
        self.write("power_supply/battery/capacity", &percent.to_string());
    }

    /// Takes the LED away.
    pub fn lose_led(&self) {
        fs::remove_file(self.file("leds/privacy/brightness")).expect("it was there");
    }

    /// Whether the LED shines.
    pub fn led(&self) -> bool {
        poll_until("the LED's brightness", Duration::from_secs(1), || shines(&self.file("leds/privacy/brightness")))
    }

    /// Waits for the LED to be on or off.
    pub fn wait_led(&self, on: bool, within: Duration) {
        poll_until(&format!("the LED to be on: {on}"), within, || (self.led() == on).then_some(()));
    }

    /// Notes every change of the LED from now on.
    pub fn follow_led(&self) -> LedChanges {
        let changes: Arc<Mutex<Vec<(Duration, bool)>>> = Arc::default();
        let end = Arc::new(AtomicBool::new(false));
        let (file, noted, ended) = (self.file("leds/privacy/brightness"), changes.clone(), end.clone());
        let mut last = self.led();
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if let Some(now) = shines(&file).filter(|&now| now != last) {
                    last = now;
                    noted.lock().expect("nobody panics with it").push((monotonic(), now));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        LedChanges { changes, end, thread: Some(thread) }
    }

    fn file(&self, file: &str) -> PathBuf {
        self.0.path().join("class").join(file)
    }

    /// In one step, so that nobody reads half of it; but in place where the daemon writes too.
    fn write(&self, file: &str, text: &str) {
        let file = self.file(file);
        fs::create_dir_all(file.parent().expect("it has one")).expect("a folder");
        let fresh = file.with_extension("new");
        fs::write(&fresh, format!("{text}\n")).and_then(|()| fs::rename(&fresh, &file)).expect("a file");
    }
}

/// A file that is being written is empty for a moment; a real LED's never is.
fn shines(file: &Path) -> Option<bool> {
    let text = fs::read_to_string(file).ok()?;
    let brightness: u32 = text.trim().parse().ok()?;
    Some(brightness > 0)
}

/// When the LED went on and off.
pub struct LedChanges {
    changes: Arc<Mutex<Vec<(Duration, bool)>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LedChanges {
    /// All so far, on `CLOCK_MONOTONIC`.
    pub fn so_far(&self) -> Vec<(Duration, bool)> {
        self.changes.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for LedChanges {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
