use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::policy::heat::Limits;

/// A `/sys` made of plain files.
struct Sys(TempDir);

impl Sys {
    fn new(files: &[(&str, &str)]) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            this.write(path, text);
        }
        this
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.0.path().join("class").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("{text}\n")).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn settings(&self) -> Settings {
        let every = Duration::from_millis(5);
        Settings { sys: self.path().to_owned(), every, zones: vec![], throttle: None, end: None }
    }
}

const CPU: [(&str, &str); 6] = [
    ("thermal/thermal_zone0/type", "cpu-thermal"),
    ("thermal/thermal_zone0/temp", "61500"),
    ("thermal/thermal_zone0/trip_point_0_type", "passive"),
    ("thermal/thermal_zone0/trip_point_0_temp", "80000"),
    ("thermal/thermal_zone0/trip_point_1_type", "critical"),
    ("thermal/thermal_zone0/trip_point_1_temp", "110000"),
];

#[test]
fn zones_are_read_with_their_trip_points_and_the_absurd_is_nothing() {
    let sys = Sys::new(&CPU);
    sys.write("thermal/thermal_zone10/type", "modem");
    sys.write("thermal/thermal_zone10/temp", "-273000");
    sys.write("thermal/thermal_zone2/type", "battery");
    sys.write("thermal/cooling_device0/type", "fan");
    let zones = zones(&sys.settings());
    let names: Vec<_> = zones.iter().map(|zone| zone.name.as_str()).collect();
    assert_eq!(names, ["cpu-thermal", "battery", "modem"]);
    assert_eq!(zones[0].celsius(), Some(61.5));
    assert_eq!((zones[0].limits, zones[0].has_trips), (Limits { throttle: 80.0, end: 107.0 }, true));
    assert_eq!((zones[1].celsius(), zones[2].celsius()), (None, None));
    let only = Settings { zones: vec!["modem".into()], throttle: Some(70.0), ..sys.settings() };
    let only = super::zones(&only);
    assert_eq!((only.len(), only[0].limits.throttle), (1, 70.0));
}

#[test]
fn only_the_boards_own_battery_counts() {
    let sys = Sys::new(&[
        ("power_supply/usb/type", "USB"),
        ("power_supply/mouse/type", "Battery"),
        ("power_supply/mouse/scope", "Device"),
        ("power_supply/mouse/capacity", "2"),
    ]);
    assert_eq!(battery(sys.path()), None);
    sys.write("power_supply/bat/type", "Battery");
    assert_eq!(battery(sys.path()), None, "does not say");
    sys.write("power_supply/bat/capacity", "81");
    sys.write("power_supply/bat/status", "Discharging");
    assert_eq!(battery(sys.path()), Some(Charge { percent: 81, charging: false }));
    sys.write("power_supply/bat/status", "Charging");
    assert_eq!(battery(sys.path()), Some(Charge { percent: 81, charging: true }));
}

#[test]
fn a_network_is_an_interface_that_is_up_and_not_loopback() {
    let sys = Sys::new(&[]);
    assert_eq!(network::up(sys.path()), None);
    sys.write("net/lo/operstate", "unknown");
    sys.write("net/lo/flags", "0x9");
    sys.write("net/wlan0/operstate", "down");
    sys.write("net/wlan0/flags", "0x1003");
    assert_eq!(network::up(sys.path()), Some(false));
    sys.write("net/wwan0/operstate", "unknown");
    sys.write("net/wwan0/flags", "0x80");
    assert_eq!(network::up(sys.path()), Some(false), "nobody set it up");
    sys.write("net/wwan0/flags", "0x81");
    assert_eq!(network::up(sys.path()), Some(true));
}

fn led(sys: &Sys) -> Led {
    sys.write("leds/privacy/brightness", "0");
    sys.write("leds/privacy/max_brightness", "31");
    sys.write("leds/privacy/trigger", "none [heartbeat] mmc0");
    Led::named(sys.path(), "privacy")
}

fn brightness(led: &Led) -> String {
    line(&led.folder().join("brightness")).unwrap()
}

#[test]
fn an_led_is_taken_from_its_trigger_switched_and_read_back() {
    let sys = Sys::new(&[]);
    let led = led(&sys);
    led.switch(true).unwrap();
    assert_eq!((brightness(&led).as_str(), led.shines().unwrap()), ("31", true));
    assert_eq!(fs::read_to_string(led.folder().join("trigger")).unwrap(), "none");
    led.switch(false).unwrap();
    assert_eq!(brightness(&led), "0");
    let missing = Led::named(sys.path(), "other");
    let error = missing.switch(true).unwrap_err().to_string();
    assert!(error.contains("leds/other/brightness"), "{error}");
    assert!(!missing.folder().exists(), "nothing is made up");
}

#[test]
fn an_led_that_swallows_what_is_written_is_found_out() {
    let sys = Sys::new(&[("leds/privacy/max_brightness", "1")]);
    let folder = sys.path().join("class/leds/privacy");
    std::os::unix::fs::symlink("/dev/null", folder.join("brightness")).unwrap();
    let led = Led::at(folder);
    assert!(led.is_writable().is_ok());
    assert!(led.switch(true).is_err());
}

#[test]
fn a_light_is_in_the_end_what_was_wanted_last_and_dark_when_nobody_has_it() {
    let sys = Sys::new(&[]);
    let led = led(&sys);
    let light = Arc::new(Light::new(led.clone()));
    light.want(true);
    light.want(false);
    light.settle().unwrap();
    assert_eq!(brightness(&led), "0");
    light.want(true);
    light.settle().unwrap();
    assert_eq!(brightness(&led), "31");
    drop(light);
    assert_eq!(brightness(&led), "0");
}

#[tokio::test]
async fn the_watch_looks_lights_and_goes_dark() {
    let sys = Sys::new(&CPU);
    let led = led(&sys);
    sys.write("leds/privacy/brightness", "7"); // left on by one that was killed
    let (sender, mut readings) = mpsc::channel(64);
    let slow = Settings { every: Duration::from_mins(1), ..sys.settings() };
    let watch = Watch::start(slow, Some(Arc::new(Light::new(led.clone()))), sender);
    let first = readings.recv().await.unwrap();
    assert_eq!(first.hottest, Some(("cpu-thermal".into(), 61.5)));
    assert_eq!((first.light_obeys, first.battery, first.network), (Some(true), None, None));
    assert_eq!(brightness(&led), "0");
    // Comes at once, although the next scheduled reading is a minute away.
    watch.camera_in_use(true);
    readings.recv().await.unwrap();
    assert_eq!(brightness(&led), "31");
    sys.write("thermal/thermal_zone0/temp", "70000");
    watch.look();
    assert_eq!(readings.recv().await.unwrap().heat.map(|heat| heat.over), Some(-10.0));
    watch.end().await;
    assert_eq!(brightness(&led), "0");
    assert_eq!(readings.recv().await, None);
}
