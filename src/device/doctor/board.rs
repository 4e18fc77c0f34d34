//! Heat, battery and privacy light.

use super::line;
use crate::board::{Led, Zone, battery, zones};
use crate::device::config::Config;
use crate::policy::heat::SPAN;
use crate::protocol::control::{DoctorLine, Level};

/// Checks what the kernel reports about the board.
pub fn examine(config: &Config) -> Vec<DoctorLine> {
    let zones = zones(&config.board_settings());
    let mut lines: Vec<DoctorLine> = zones.iter().map(examine_zone).collect();
    if lines.is_empty() {
        let text = if config.heat.zones.is_empty() {
            "the kernel reports no thermal zone; streams do not give way to heat".into()
        } else {
            format!("no thermal zone has a type listed in heat.zones = {:?}", config.heat.zones)
        };
        lines.push(line(Level::Warn, "heat", text));
    }
    lines.push(examine_battery(config));
    lines.extend(config.led().map(|led| examine_led(&led, config.privacy_led.require)));
    lines
}

fn examine_zone(zone: &Zone) -> DoctorLine {
    let whose = if zone.has_trips { "by its trip points" } else { "by default, as it has no trip points" };
    let limits = zone.limits;
    let plan = format!(
        "streams give way from {:.0} \u{b0}C, the board throttles at {:.0}, streams end at {:.0} ({whose})",
        limits.throttle - SPAN,
        limits.throttle,
        limits.end
    );
    match zone.celsius() {
        Some(celsius) => {
            let level = if celsius < limits.throttle { Level::Ok } else { Level::Warn };
            line(level, "heat", format!("{}: {celsius:.1} \u{b0}C; {plan}", zone.name))
        }
        // Many sensors sleep together with what they watch.
        None => line(Level::Ok, "heat", format!("{}: no reading at the moment; {plan}", zone.name)),
    }
}

fn examine_battery(config: &Config) -> DoctorLine {
    let Some(charge) = battery(&config.board.sys) else {
        return line(Level::Ok, "battery", "the kernel reports none");
    };
    let floor = config.battery.floors().of(charge);
    let level = if charge.percent < floor { Level::Warn } else { Level::Ok };
    let charging = if charge.charging { ", charging" } else { "" };
    line(level, "battery", format!("{} %{charging}; streams need {floor} %", charge.percent))
}

fn examine_led(led: &Led, require: bool) -> DoctorLine {
    let folder = led.folder().display();
    match led.shines().and_then(|shines| led.is_writable().map(|()| shines)) {
        Ok(shines) => {
            let now = if shines { "on" } else { "off" };
            line(Level::Ok, "privacy LED", format!("{folder} can be switched; it is {now}"))
        }
        Err(error) => {
            let (level, so) = if require { (Level::Fail, "; streams require it") } else { (Level::Warn, "") };
            line(level, "privacy LED", format!("{error}{so}"))
        }
    }
}
