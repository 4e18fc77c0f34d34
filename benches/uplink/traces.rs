//! Uplinks and scenes, generated from a seed: what the network could carry and what the camera saw, every 10 ms.
//!
//! None is recorded: no recordings with a suitable licence were found. Each family is one way in which uplinks fail;
//! its parameters are drawn anew for each seed.

use fastrand::Rng;

/// Time between two values, seconds.
pub const STEP_S: f64 = 0.01;
/// Length of each trace, seconds.
pub const LENGTH_S: f64 = 90.0;

/// A kind of uplink behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Always carries more than is requested.
    Steady,
    /// Falls at once to a part of its capacity, and returns at once.
    Step,
    /// Fades while the wearer walks away from the access point, and returns.
    WalkAway,
    /// Carries almost nothing for some seconds.
    Elevator,
    /// Carries too little, behind a queue that holds seconds.
    Bufferbloat,
    /// A mobile cell: its capacity wanders and fades, and it serves in bursts.
    Bursts,
    /// Other users on the channel: many short dips.
    Interference,
    /// The link is steady, but often nothing moves before the camera.
    StaticScene,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 8] = [
        Self::Steady,
        Self::Step,
        Self::WalkAway,
        Self::Elevator,
        Self::Bufferbloat,
        Self::Bursts,
        Self::Interference,
        Self::StaticScene,
    ];

    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Step => "step",
            Self::WalkAway => "walk away",
            Self::Elevator => "elevator",
            Self::Bufferbloat => "bufferbloat",
            Self::Bursts => "4G-like bursts",
            Self::Interference => "interference",
            Self::StaticScene => "static scene",
        }
    }
}

/// How the sender's TCP controls its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// By what was recently delivered.
    Bbr,
    /// Grows until something is lost.
    Cubic,
}

/// One uplink with one scene.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The requested bitrate, bit/s of video.
    pub wanted: f64,
    /// The link's capacity, bit/s, for each [`STEP_S`].
    pub capacity: Vec<f64>,
    /// The most the encoder can use, bit/s, for each [`STEP_S`].
    pub demand: Vec<f64>,
    /// Round trip of an empty link, seconds.
    pub round_trip_s: f64,
    /// Size of the narrowest queue on the way, bytes.
    pub buffer: f64,
    /// The sender's congestion control.
    pub congestion: Congestion,
}

/// The trace for a family and a seed.
pub fn generate(family: Family, seed: u64) -> Trace {
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (family as u64 + 1));
    let wanted = between(&mut rng, 1.5e6, 5e6);
    let steps = (LENGTH_S / STEP_S) as usize;
    let mut capacity = vec![0.0; steps];
    let mut demand = vec![f64::INFINITY; steps];
    let mut buffer_s = between(&mut rng, 0.1, 0.4);
    match family {
        Family::Steady => capacity.fill(wanted * between(&mut rng, 1.25, 3.0)),
        Family::Step => step(&mut capacity, wanted, &mut rng),
        Family::WalkAway => walk_away(&mut capacity, wanted, &mut rng),
        Family::Elevator => elevator(&mut capacity, wanted, &mut rng),
        Family::Bufferbloat => {
            buffer_s = between(&mut rng, 1.0, 3.0);
            wander(&mut capacity, wanted * between(&mut rng, 0.4, 0.8), 0.05, 5.0, &mut rng);
        }
        Family::Bursts => bursts(&mut capacity, wanted, &mut rng),
        Family::Interference => interference(&mut capacity, wanted, &mut rng),
        Family::StaticScene => {
            capacity.fill(wanted * between(&mut rng, 0.5, 0.9));
            still_and_moving(&mut demand, wanted, &mut rng);
        }
    }
    jitter(&mut capacity, &mut rng);
    let mean = capacity.iter().sum::<f64>() / capacity.len() as f64;
    Trace {
        wanted,
        demand,
        round_trip_s: between(&mut rng, 0.015, 0.15),
        buffer: (mean * buffer_s / 8.0).max(20_000.0),
        congestion: if rng.bool() { Congestion::Bbr } else { Congestion::Cubic },
        capacity,
    }
}

fn between(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.f64()
}

/// The step at a time.
fn at(seconds: f64) -> usize {
    (seconds / STEP_S) as usize
}

/// Normally distributed, mean 0, deviation 1 (a sum of uniform values).
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0
}

fn scale(values: &mut [f64], factor: f64) {
    for value in values {
        *value *= factor;
    }
}

/// A few per cent every tenth of a second: no link is constant.
fn jitter(capacity: &mut [f64], rng: &mut Rng) {
    for tenth in capacity.chunks_mut(at(0.1)) {
        let factor = (1.0 + 0.04 * normal(rng)).clamp(0.85, 1.15);
        scale(tenth, factor);
    }
}

fn step(capacity: &mut [f64], wanted: f64, rng: &mut Rng) {
    let (high, low) = (wanted * between(rng, 0.7, 1.5), wanted * between(rng, 0.15, 0.5));
    let fall = between(rng, 15.0, 35.0);
    let rise = fall + between(rng, 15.0, 30.0);
    capacity.fill(high);
    capacity[at(fall)..at(rise)].fill(low);
}

fn walk_away(capacity: &mut [f64], wanted: f64, rng: &mut Rng) {
    let (near, far) = (wanted * between(rng, 1.0, 2.0), wanted * between(rng, 0.08, 0.3));
    let (leaves, walks) = (between(rng, 5.0, 15.0), between(rng, 15.0, 30.0));
    let back = leaves + walks + between(rng, 5.0, 15.0);
    let returns = between(rng, 5.0, 15.0);
    for (index, value) in capacity.iter_mut().enumerate() {
        let now = index as f64 * STEP_S;
        let away = ((now - leaves) / walks).clamp(0.0, 1.0) - ((now - back) / returns).clamp(0.0, 1.0);
        *value = near * (far / near).powf(away);
    }
}

fn elevator(capacity: &mut [f64], wanted: f64, rng: &mut Rng) {
    capacity.fill(wanted * between(rng, 0.8, 1.8));
    let mut now = between(rng, 10.0, 20.0);
    while now < LENGTH_S - 20.0 {
        let end = now + between(rng, 2.0, 8.0);
        capacity[at(now)..at(end)].fill(between(rng, 0.0, 60e3));
        now = end + between(rng, 15.0, 30.0);
    }
}

/// A random walk of the logarithm that returns to its mean within `memory_s`.
fn wander(capacity: &mut [f64], mean: f64, deviation: f64, memory_s: f64, rng: &mut Rng) {
    let mut offset = 0.0;
    for half in capacity.chunks_mut(at(0.5)) {
        offset += deviation * normal(rng) - offset * 0.5 / memory_s;
        half.fill(mean * f64::exp(offset));
    }
}

fn bursts(capacity: &mut [f64], wanted: f64, rng: &mut Rng) {
    wander(capacity, wanted * between(rng, 0.5, 1.1), 0.18, 6.0, rng);
    let mut now = between(rng, 5.0, 15.0);
    while now < LENGTH_S - 2.0 {
        let end = now + between(rng, 0.3, 1.2);
        scale(&mut capacity[at(now)..at(end)], 0.1);
        now = end + between(rng, 5.0, 15.0);
    }
    // Served in bursts of some tens of milliseconds; the mean is unchanged.
    let mut index = 0;
    while index < capacity.len() {
        let served = rng.usize(1..4);
        let silent = rng.usize(0..5);
        let end = (index + served + silent).min(capacity.len());
        let factor = (end - index) as f64 / served.min(end - index) as f64;
        for (place, value) in capacity[index..end].iter_mut().enumerate() {
            *value *= if place < served { factor } else { 0.0 };
        }
        index = end;
    }
}

fn interference(capacity: &mut [f64], wanted: f64, rng: &mut Rng) {
    capacity.fill(wanted * between(rng, 0.9, 1.8));
    let mut now = between(rng, 1.0, 5.0);
    while now < LENGTH_S - 1.0 {
        let end = now + between(rng, 0.1, 0.6);
        let depth = between(rng, 0.05, 0.5);
        scale(&mut capacity[at(now)..at(end)], depth);
        now = end + between(rng, 1.0, 8.0);
    }
}

fn still_and_moving(demand: &mut [f64], wanted: f64, rng: &mut Rng) {
    let mut now = between(rng, 3.0, 8.0);
    while now < LENGTH_S {
        let end = (now + between(rng, 6.0, 20.0)).min(LENGTH_S);
        demand[at(now)..at(end)].fill(wanted * between(rng, 0.03, 0.15));
        now = end + between(rng, 4.0, 12.0);
    }
}
