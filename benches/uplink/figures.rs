//! Observations of a stream on a real link, as a line of a table.

use std::fmt;
use std::time::Duration;

use crate::phases::{HIGH, LOW, SETTLED, Times};
use crate::support::Viewing;
use crate::support::recordings::Recording;

/// The head of each table.
pub const TABLE: &str =
    "| who | waits | gap | used at first | used of 600 kbit/s | used after | back |\n|---|---|---|---|---|---|---|";

/// Figures of one run, or of several.
pub struct Figures {
    name: String,
    /// 95th percentile of the pictures' waits above the least wait; without those of the start (5 s) and of the first
    /// second of the fall.
    waits: Duration,
    /// The longest time without a picture among the same.
    gap: Duration,
    /// Pictures and sound as shares of what the link carries, once [`SETTLED`] has passed after a change.
    media: [f64; 3],
    /// The same for everything that the link itself counted.
    left: Option<[f64; 3]>,
    /// Time until 90 % of the rate before the fall arrived again.
    back: Option<Duration>,
    lost_connection: bool,
}

impl Figures {
    /// Figures of the publication with the most pictures.
    pub fn of(name: &str, all: &[Recording], times: &Times, left: Option<[f64; 3]>) -> Self {
        let &Times { begun, fell, rose, end } = times;
        let longest = all.iter().max_by_key(|recording| recording.frames().len()).expect("there was a picture");
        let whole = Viewing::of(longest);
        let second = Duration::from_secs(1);
        let before = whole.between(begun + SETTLED, fell);
        let low = whole.between(fell + SETTLED, rose);
        let after = whole.between(rose + SETTLED, end);
        let (first, fallen) = (whole.between(begun + 5 * second, fell), whole.between(fell + second, end));
        for stretch in [&first, &fallen] {
            let (at, gap) = stretch.longest_gap_since();
            let at = at.as_secs_f64() - fell.as_secs_f64();
            eprintln!("{name}: {} ms without a picture, beginning {at:+.2} s from the fall", gap.as_millis());
        }
        let gap = first.longest_gap().max(fallen.longest_gap());
        Self {
            name: name.to_owned(),
            waits: first.and(fallen).wait_p95(),
            gap,
            media: [before.rate() / f64::from(HIGH), low.rate() / f64::from(LOW), after.rate() / f64::from(HIGH)],
            left,
            back: whole.between(rose, end).reached(0.9 * before.rate(), rose),
            lost_connection: all.len() > 1,
        }
    }

    /// The medians of several runs, but the longest gap of any.
    pub fn of_all(runs: &[Self]) -> Self {
        let shares = |of: fn(&Self) -> [f64; 3]| [0, 1, 2].map(|phase| median(runs.iter().map(|run| of(run)[phase])));
        Self {
            name: runs[0].name.clone(),
            waits: median(runs.iter().map(|run| run.waits)),
            gap: runs.iter().map(|run| run.gap).max().unwrap_or_default(),
            media: shares(|run| run.media),
            left: runs.iter().all(|run| run.left.is_some()).then(|| shares(|run| run.left.unwrap_or_default())),
            // Never counts as the longest.
            back: median(runs.iter().map(|run| run.back.unwrap_or(Duration::MAX))).into(),
            lost_connection: runs.iter().any(|run| run.lost_connection),
        }
    }
}

fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut sorted: Vec<T> = values.collect();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("no NaN was measured"));
    sorted[sorted.len() / 2]
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = if self.lost_connection { " (lost the connection)" } else { "" };
        write!(f, "| {}{lost} | {} ms | {} ms ", self.name, self.waits.as_millis(), self.gap.as_millis())?;
        for (phase, media) in self.media.iter().enumerate() {
            match self.left {
                Some(left) => write!(f, "| {:.0} % ({:.0} %) ", 100.0 * left[phase], 100.0 * media)?,
                None => write!(f, "| {:.0} % ", 100.0 * media)?,
            }
        }
        match self.back.filter(|back| *back < Duration::MAX) {
            Some(back) => write!(f, "| {:.1} s |", back.as_secs_f64()),
            None => write!(f, "| never |"),
        }
    }
}
