//! Heat, battery and privacy light as text.

use lenscast::protocol::{BatterySnapshot, BoardSnapshot, HeatSnapshot, PictureShare};

use crate::text::{Row, Tone, clean};

/// What is known of the board; empty if nothing is.
pub fn rows(board: &BoardSnapshot) -> Vec<Row> {
    let mut row = Row::new("board");
    if let Some(celsius) = board.temperature_c {
        let zone = board.zone.as_deref().unwrap_or_default();
        let tone = if board.heat.is_some() { Tone::Warn } else { Tone::Plain };
        row = row.with(tone, format!("{celsius:.1} \u{b0}C")).with(Tone::Dim, zone);
    }
    if let Some(charge) = board.battery {
        row = row.with(Tone::Plain, battery(charge));
    }
    if let Some(on) = board.privacy_led {
        row = row.with(if on { Tone::Good } else { Tone::Dim }, led(on));
    }
    let known = board.temperature_c.is_some() || board.battery.is_some() || board.privacy_led.is_some();
    let heat = board.heat.map(|given_up| Row::new("heat").with(Tone::Warn, heat(given_up)));
    known.then_some(row).into_iter().chain(heat).collect()
}

/// News of the board, one line each; if there is no `old`, whatever is notable.
pub fn changes(old: Option<&BoardSnapshot>, new: &BoardSnapshot) -> Vec<String> {
    let mut lines = Vec::new();
    let before = old.and_then(|old| old.heat);
    if before != new.heat {
        lines.push(new.heat.map_or_else(|| "heat limit lifted".into(), |given_up| format!("heat {}", heat(given_up))));
    }
    if old.and_then(|old| old.battery) != new.battery
        && let Some(charge) = new.battery
    {
        lines.push(battery(charge));
    }
    if old.and_then(|old| old.privacy_led) != new.privacy_led
        && let Some(on) = new.privacy_led
    {
        lines.push(led(on).into());
    }
    lines.iter().map(|line| clean(line)).collect()
}

fn heat(HeatSnapshot { step, of, bitrate_percent, pictures }: HeatSnapshot) -> String {
    let pictures = match pictures {
        PictureShare::All => "",
        PictureShare::Half => ", every second picture",
        PictureShare::Quarter => ", every fourth picture",
        PictureShare::KeyFrames => ", one picture a second",
    };
    format!("step {step} of {of}: {bitrate_percent} % of the bitrate{pictures}")
}

fn battery(charge: BatterySnapshot) -> String {
    format!("battery {} %{}", charge.percent, if charge.charging { ", charging" } else { "" })
}

fn led(on: bool) -> &'static str {
    if on { "privacy LED on" } else { "privacy LED off" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot() -> BoardSnapshot {
        BoardSnapshot {
            temperature_c: Some(79.94),
            zone: Some("cpu-thermal".into()),
            heat: Some(HeatSnapshot { step: 3, of: 5, bitrate_percent: 45, pictures: PictureShare::Half }),
            battery: Some(BatterySnapshot { percent: 81, charging: true }),
            privacy_led: Some(true),
        }
    }

    #[test]
    fn a_hot_board_is_shown_in_full_and_an_unknown_one_not_at_all() {
        let shown: Vec<String> = rows(&hot()).iter().flat_map(|row| row.lines(100, false)).collect();
        assert_eq!(
            shown,
            [
                "board    79.9 \u{b0}C  cpu-thermal  battery 81 %, charging  privacy LED on",
                "heat     step 3 of 5: 45 % of the bitrate, every second picture"
            ]
        );
        assert!(rows(&BoardSnapshot::default()).is_empty());
    }

    #[test]
    fn only_news_makes_a_line_and_degrees_are_none() {
        assert_eq!(changes(None, &BoardSnapshot::default()), Vec::<String>::new());
        assert_eq!(changes(None, &hot()).len(), 3);
        let warmer = BoardSnapshot { temperature_c: Some(80.1), ..hot() };
        assert_eq!(changes(Some(&hot()), &warmer), Vec::<String>::new());
        let cool = BoardSnapshot { heat: None, privacy_led: Some(false), ..hot() };
        assert_eq!(changes(Some(&hot()), &cool), ["heat limit lifted", "privacy LED off"]);
    }
}
