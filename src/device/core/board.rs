//! What the board's heat, battery and light mean for streams.
//!
//! A start is judged by the last look at the board, which costs nothing. A look that forbids the start may be out of date (a
//! charger was plugged in a moment ago), so the start waits for a fresh look before it is refused.

use super::stream::Asked;
use super::{Effect, Outbox};
use crate::board::Reading;
use crate::device::config::Config;
use crate::policy::Time;
use crate::policy::arbiter::RequestId;
use crate::policy::battery::Battery;
use crate::policy::heat::{Allowance, Heat, STEPS};
use crate::protocol::control::Refusal;
use crate::protocol::{BatterySnapshot, BoardSnapshot, Cause, HeatSnapshot, StreamUrl};

/// The most starts that wait for a look.
const MOST_DOUBTED: usize = 16;

/// What is known of the board.
#[derive(Debug)]
pub struct Board {
    reading: Option<Reading>,
    heat: Heat,
    battery: Battery,
    light_required: bool,
    doubted: Vec<(RequestId, Asked)>,
}

impl Board {
    pub fn new(config: &Config) -> Self {
        Self {
            reading: None,
            heat: Heat::new(std::time::Duration::from_secs(config.heat.dwell_s)),
            battery: Battery::new(config.battery.floors()),
            light_required: config.privacy_led.require,
            doubted: Vec::new(),
        }
    }

    /// Takes out the starts that wait for a look, where `which` says so.
    pub fn withdraw(&mut self, which: impl Fn(&Asked) -> bool) -> Vec<Asked> {
        self.doubted.extract_if(.., |(_, asked)| which(asked)).map(|(_, asked)| asked).collect()
    }

    /// What heat leaves of a stream.
    pub fn allowance(&self) -> Allowance {
        self.heat.allowance()
    }

    /// Degrees Celsius of the zone nearest to its limits.
    pub fn celsius(&self) -> Option<f64> {
        self.reading.as_ref()?.hottest.as_ref().map(|(_, celsius)| *celsius)
    }

    /// Why no stream may start, in the order in which `MentraOS` looks (docs/protocol.md#refusals).
    fn refusal(&self, url: &StreamUrl) -> Option<Refusal> {
        if let Some((percent, floor)) = self.battery.too_low() {
            // MentraOS's own sentence: programs compare with it.
            let message = format!("Battery level too low ({percent}%) - minimum {floor}% required");
            return Some(Refusal { cause: Cause::BatteryLow, message, owner: None });
        }
        if self.heat.too_hot() {
            return Some(Cause::Overheated.into());
        }
        let no_network = self.reading.as_ref().is_some_and(|reading| reading.network == Some(false));
        (no_network && !url.is_loopback()).then(|| Cause::NetworkUnreachable.into())
    }

    /// Why the running stream must end.
    pub fn end(&self) -> Option<Cause> {
        let unlit = self.reading.as_ref().is_some_and(|reading| reading.light_obeys == Some(false));
        if self.heat.too_hot() {
            Some(Cause::Overheated)
        } else if self.battery.ends_streams() {
            Some(Cause::BatteryLow)
        } else {
            (self.light_required && unlit).then_some(Cause::PrivacyLedFailed)
        }
    }

    /// `in_use`: somebody uses the camera or is about to, so its light is to shine.
    pub fn snapshot(&self, in_use: bool) -> BoardSnapshot {
        let reading = self.reading.as_ref();
        let hottest = reading.and_then(|reading| reading.hottest.clone());
        let light = reading.and_then(|reading| reading.light_obeys);
        BoardSnapshot {
            temperature_c: hottest.as_ref().map(|(_, celsius)| (celsius * 10.0).round() / 10.0),
            zone: hottest.map(|(zone, _)| zone),
            heat: (self.heat.step() > 0).then(|| HeatSnapshot {
                step: self.heat.step() as u32,
                of: STEPS.len() as u32,
                bitrate_percent: self.allowance().percent,
                pictures: self.allowance().pictures.into(),
            }),
            battery: self
                .battery
                .charge()
                .map(|charge| BatterySnapshot { percent: charge.percent, charging: charge.charging }),
            // The light is switched while the camera opens and closes; this may be an instant early.
            privacy_led: light.map(|obeys| if obeys { in_use } else { false }),
        }
    }

    /// Whether the board allows the start. `looked`: it was looked at for this one.
    pub fn judge(&mut self, request: RequestId, asked: Asked, looked: bool, out: &mut Outbox) -> Judgement {
        match self.refusal(&asked.start.url) {
            None if looked || self.reading.is_some() => Judgement::Allowed(asked),
            Some(refusal) if looked || self.doubted.len() == MOST_DOUBTED => Judgement::Refused(asked, refusal),
            _ => {
                self.doubted.push((request, asked));
                out.push(Effect::LookAtBoard);
                Judgement::Doubted
            }
        }
    }

    /// The board was looked at. Returns the starts that waited for it.
    pub fn on(&mut self, reading: Reading, now: Time) -> Vec<(RequestId, Asked)> {
        let before = self.heat.step();
        if let Some(sample) = reading.heat {
            self.heat.on(sample, now);
        }
        self.battery.on(reading.battery);
        self.reading = Some(reading);
        let step = self.heat.step();
        if step != before {
            let celsius = self.celsius();
            let Allowance { percent, pictures } = self.allowance();
            tracing::info!(step, of = STEPS.len(), celsius, bitrate_percent = percent, ?pictures, "heat");
        }
        std::mem::take(&mut self.doubted)
    }
}

/// What the board says to a start.
#[derive(Debug)]
pub enum Judgement {
    Allowed(Asked),
    Refused(Asked, Refusal),
    /// It waits for the look that was asked for.
    Doubted,
}
