//! The score of a run, from the viewers' point of view.

/// The outcome of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Share of the usable bits of video that arrived, 0 to 1. Usable: the link could carry them and the encoder could
    /// use them.
    pub used: f64,
    /// 95th percentile of the pictures' waits (without the empty link's own delay), seconds.
    pub queue_p95_s: f64,
    /// Share of the time in which the picture had stood still for more than 500 ms.
    pub frozen: f64,
    /// Changes of the encoder's bitrate, per minute.
    pub changes: f64,
}

impl Outcome {
    /// 0 to 100: the share used, reduced by
    /// - the queue: half at a p95 of 1 s, `1 / (1 + (p95 / 1 s)²)`;
    /// - freezes: to nothing where a quarter of the time was frozen;
    /// - changes: each is a visible step; half at 300 a minute.
    pub fn score(&self) -> f64 {
        let queue = 1.0 / (1.0 + self.queue_p95_s.powi(2));
        let flowing = (1.0 - 4.0 * self.frozen).max(0.0);
        let calm = 1.0 / (1.0 + self.changes / 300.0);
        100.0 * self.used.min(1.0) * queue * flowing * calm
    }

    /// The mean of each figure over runs.
    pub fn mean(of: &[Self]) -> Self {
        let mean = |figure: fn(&Self) -> f64| of.iter().map(figure).sum::<f64>() / of.len().max(1) as f64;
        Self {
            used: mean(|o| o.used),
            queue_p95_s: mean(|o| o.queue_p95_s),
            frozen: mean(|o| o.frozen),
            changes: mean(|o| o.changes),
        }
    }
}

/// The mean of the runs' scores, not the score of their mean figures.
pub fn mean_score(of: &[Outcome]) -> f64 {
    of.iter().map(Outcome::score).sum::<f64>() / of.len().max(1) as f64
}
