//! Whether the battery has enough charge for a stream.
//!
//! A stream is refused below the floor and ends when the level falls below it: the wearer may need the charge to find
//! the way home, and a power cut leaves no time to say why the picture stopped. Ten per cent is what `MentraOS` and
//! its phones expect (docs/protocol.md#refusals). On a charger the level rises, so streams may go down to a lower
//! floor; a level that still falls to it means that the charger is too weak, and the stream ends before the board
//! browns out.
//!
//! Fuel gauges jump: a stream ends only after two readings below in a row.

/// The battery's charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// 0 to 100.
    pub percent: u8,
    /// On a charger, or fully charged.
    pub charging: bool,
}

/// The levels below which no stream runs, per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floors {
    /// On the battery alone.
    pub discharging: u8,
    /// On a charger.
    pub charging: u8,
}

impl Floors {
    /// The floor that applies to `charge`.
    pub fn of(self, charge: Charge) -> u8 {
        if charge.charging { self.charging } else { self.discharging }
    }
}

/// Decides from the latest readings whether streams may run.
#[derive(Debug)]
pub struct Battery {
    floors: Floors,
    last: Option<Charge>,
    /// Readings below the floor in a row.
    below: u32,
}

impl Battery {
    /// A state without readings.
    pub fn new(floors: Floors) -> Self {
        Self { floors, last: None, below: 0 }
    }

    /// Takes a reading; `None` if the board has no battery or does not report it.
    pub fn on(&mut self, charge: Option<Charge>) {
        self.last = charge;
        self.below = if self.too_low().is_some() { self.below.saturating_add(1) } else { 0 };
    }

    /// The latest reading.
    pub fn charge(&self) -> Option<Charge> {
        self.last
    }

    /// If starts are refused: the level, and the floor that it is below.
    pub fn too_low(&self) -> Option<(u8, u8)> {
        let charge = self.last?;
        let floor = self.floors.of(charge);
        (charge.percent < floor).then_some((charge.percent, floor))
    }

    /// Whether a running stream must end.
    pub fn ends_streams(&self) -> bool {
        self.below >= 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLOORS: Floors = Floors { discharging: 10, charging: 3 };

    #[allow(clippy::unnecessary_wraps, reason = "as readings come")]
    fn at(percent: u8, charging: bool) -> Option<Charge> {
        Some(Charge { percent, charging })
    }

    #[test]
    fn the_floor_is_ten_and_three_on_a_charger() {
        let mut battery = Battery::new(FLOORS);
        for (charge, refused) in [
            (None, None),
            (at(10, false), None),
            (at(9, false), Some((9, 10))),
            (at(9, true), None),
            (at(3, true), None),
            (at(2, true), Some((2, 3))),
        ] {
            battery.on(charge);
            assert_eq!(battery.too_low(), refused, "{charge:?}");
        }
    }

    #[test]
    fn a_charger_pulled_out_below_the_floor_ends_the_stream() {
        let mut battery = Battery::new(FLOORS);
        battery.on(at(7, true));
        battery.on(at(7, false));
        assert!(!battery.ends_streams(), "one reading is none");
        battery.on(at(7, false));
        assert!(battery.ends_streams());
    }

    proptest! {
        #[test]
        fn streams_end_exactly_after_two_low_readings_in_a_row(
            readings in prop::collection::vec(prop::option::of((0..=100_u8, any::<bool>())), 1..60)
        ) {
            let mut battery = Battery::new(FLOORS);
            let low = |reading: &Option<(u8, bool)>| {
                reading.is_some_and(|(percent, charging)| percent < if charging { 3 } else { 10 })
            };
            for (index, reading) in readings.iter().enumerate() {
                battery.on(reading.map(|(percent, charging)| Charge { percent, charging }));
                prop_assert_eq!(battery.too_low().is_some(), low(reading));
                let twice = index > 0 && low(reading) && low(&readings[index - 1]);
                prop_assert_eq!(battery.ends_streams(), twice);
            }
        }
    }
}
