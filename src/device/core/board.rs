//! What the board's heat, battery and light mean for streams.
//!
//! A start is judged by the last look at the board, which costs nothing. Where that speaks against it, it may be out of
//! date (a charger plugged in a moment ago), so such a start waits for a fresh look before it is refused.

use super::stream::Asked;
use super::{Core, Effect};
use crate::board::Reading;
use crate::device::config::Config;
use crate::policy::Time;
use crate::policy::arbiter::RequestId;
use crate::policy::battery::Battery;
use crate::policy::heat::{Allowance, Heat, STEPS};
use crate::protocol::control::Refusal;
use crate::protocol::{BatterySnapshot, BoardSnapshot, Cause, HeatSnapshot, StreamUrl};

/// Starts that wait for a look at most.
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

    /// Degrees Celsius, of the zone nearest to its limits.
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

    /// Why the stream that runs may not go on.
    fn end(&self) -> Option<Cause> {
        let unlit = self.reading.as_ref().is_some_and(|reading| reading.light_obeys == Some(false));
        if self.heat.too_hot() {
            Some(Cause::Overheated)
        } else if self.battery.ends_streams() {
            Some(Cause::BatteryLow)
        } else {
            (self.light_required && unlit).then_some(Cause::PrivacyLedFailed)
        }
    }

    fn snapshot(&self, in_use: bool) -> BoardSnapshot {
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
            // It is switched while the camera is being opened and closed; an instant early is as good.
            privacy_led: light.map(|obeys| if obeys { in_use } else { false }),
        }
    }
}

impl Core {
    /// Whether anybody uses the camera or is about to: so long its light is to shine.
    pub fn camera_in_use(&self) -> bool {
        self.capture.open.is_some() || self.capture.wanted || !self.processes.is_empty()
    }

    pub(super) fn board_snapshot(&self) -> BoardSnapshot {
        self.board.snapshot(self.camera_in_use())
    }

    /// Whether the board allows the start; if not it was refused, or is `doubted` until the next look.
    pub(super) fn board_allows(&mut self, request: RequestId, asked: Asked, looked: bool) -> Option<Asked> {
        let refusal = self.board.refusal(&asked.start.url);
        let unknown = self.board.reading.is_none();
        match refusal {
            None if looked || !unknown => return Some(asked),
            Some(refusal) if looked || self.board.doubted.len() == MOST_DOUBTED => {
                self.refuse_stream(&asked, refusal);
            }
            _ => {
                self.board.doubted.push((request, asked));
                self.effects.push(Effect::LookAtBoard);
            }
        }
        None
    }

    pub(super) fn board_read(&mut self, reading: Reading, now: Time) {
        let before = self.board.heat.step();
        if let Some(sample) = reading.heat {
            self.board.heat.on(sample, now);
        }
        self.board.battery.on(reading.battery);
        self.board.reading = Some(reading);
        let (step, allowance) = (self.board.heat.step(), self.board.allowance());
        if step != before {
            let celsius = self.board.celsius();
            let Allowance { percent, pictures } = allowance;
            tracing::info!(step, of = STEPS.len(), celsius, bitrate_percent = percent, ?pictures, "heat");
        }
        if let Some(what) = self.stream.as_mut().and_then(|stream| stream.rate.heat(allowance, now)) {
            self.encode(what);
        }
        if self.stream.is_some()
            && let Some(cause) = self.board.end()
        {
            self.stop_stream(cause, now);
        }
        for (request, asked) in std::mem::take(&mut self.board.doubted) {
            self.consider_stream(request, asked, true, now);
        }
    }
}
