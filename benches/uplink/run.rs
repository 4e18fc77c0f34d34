//! One run: camera, encoder, the daemon's own gate, the sink, the path, and a rule that controls them.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use lenscast::media::gate::{Gate, Verdict};
use lenscast::policy::bitrate::{Decision, Rule, UplinkEvent, UplinkSample};

use crate::path::Path;
use crate::score::Outcome;
use crate::traces::{STEP_S, Trace};

/// Pictures per second.
pub const FRAME_RATE: u32 = 30;
/// Frames in rtmp2sink's own queue, which nothing shows.
const SINK_HOLDS: usize = 3;
/// Bytes of a frame of sound, one every second step: 64 kbit/s.
const SOUND: f64 = 160.0;
const SOUND_RATE: f64 = 64e3;

/// A point of a run, for the plot.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub at_s: f64,
    /// The link's capacity, bit/s.
    pub capacity: f64,
    pub bitrate: f64,
    /// How long the latest arrived picture had waited, seconds.
    pub waited_s: f64,
}

/// A model of an encoder.
struct Encoder {
    rng: Rng,
    /// The current output rate, bit/s.
    rate: f64,
    until_key: u32,
    skip: u32,
    /// Least size of a picture, at its coarsest, bytes.
    least: f64,
}

impl Encoder {
    /// The next picture's size in bytes and whether it is a key frame; `None` if it is left out.
    fn picture(&mut self, decision: Decision, demand: f64, asked_for_key: bool) -> Option<(f64, bool)> {
        let target = f64::from(decision.bitrate);
        // It follows downwards within some pictures, upwards more slowly (x264 with a short buffer).
        let time = if target < self.rate { 0.15 } else { 0.8 };
        self.rate += (target - self.rate) * (1.0 / f64::from(FRAME_RATE) / time).min(1.0);
        self.until_key = self.until_key.saturating_sub(1);
        self.skip += 1;
        let one_in = decision.pictures.one_in(FRAME_RATE);
        if self.skip < one_in {
            return None;
        }
        self.skip = 0;
        let key = asked_for_key || self.until_key == 0;
        if key {
            self.until_key = FRAME_RATE;
        }
        let mean = self.rate.min(demand) * f64::from(one_in) / f64::from(FRAME_RATE) / 8.0;
        let pictures_a_second = f64::from(FRAME_RATE / one_in);
        let weight = match (key, pictures_a_second > 1.0) {
            (_, false) => 1.0,
            (true, true) => pictures_a_second.min(4.0),
            (false, true) => (pictures_a_second - pictures_a_second.min(4.0)) / (pictures_a_second - 1.0),
        };
        let noise = (0.15 * ((0..12).map(|_| self.rng.f64()).sum::<f64>() - 6.0)).exp();
        Some(((mean * weight * noise).max(self.least), key))
    }
}

#[derive(Clone, Copy)]
struct Message {
    left: f64,
    born_s: f64,
    dts_ms: u32,
    /// Of video; the bytes it began with.
    video: Option<f64>,
}

/// Everything in front of the kernel.
#[derive(Default)]
struct Sender {
    waiting: VecDeque<Message>,
    sink: VecDeque<Message>,
    waiting_bytes: f64,
    sent_ms: u32,
    /// For each picture: where it ends in the stream of bytes, when it was made, and its size.
    on_their_way: VecDeque<(f64, f64, f64)>,
    written: f64,
}

impl Sender {
    fn push(&mut self, message: Message) {
        self.waiting_bytes += message.left;
        self.waiting.push_back(message);
    }

    fn write(&mut self, path: &mut Path) {
        while self.sink.len() < SINK_HOLDS
            && let Some(message) = self.waiting.pop_front()
        {
            self.waiting_bytes -= message.left;
            self.sent_ms = self.sent_ms.max(message.dts_ms);
            self.sink.push_back(message);
        }
        while let Some(message) = self.sink.front_mut() {
            let taken = message.left.min(path.room());
            path.write(taken);
            self.written += taken;
            message.left -= taken;
            if message.left > 0.0 {
                return;
            }
            if let Some(bytes) = message.video {
                self.on_their_way.push_back((self.written, message.born_s, bytes));
            }
            self.sink.pop_front();
        }
    }
}

/// The receiving end.
struct Viewer {
    last_s: f64,
    frozen_s: f64,
    waited: Vec<f64>,
    bytes: f64,
}

impl Viewer {
    fn sees(&mut self, now: f64, waited: f64, bytes: f64) {
        self.frozen_s += (now - self.last_s - 0.5).max(0.0);
        self.last_s = now;
        self.waited.push(waited.max(0.0));
        self.bytes += bytes;
    }
}

/// Runs a rule over a trace; `interval` is how often it samples. `points`, if given, gets ten points a second.
pub fn run(
    trace: &Trace,
    rule: &mut dyn Rule,
    interval: Duration,
    seed: u64,
    mut points: Option<&mut Vec<Point>>,
) -> Outcome {
    let steps = trace.capacity.len();
    let every = (interval.as_secs_f64() / STEP_S).round().max(1.0) as usize;
    let mut gate = Gate::new();
    let mut path = Path::new(trace);
    let mut sender = Sender::default();
    let mut viewer = Viewer { last_s: 0.0, frozen_s: 0.0, waited: Vec::new(), bytes: 0.0 };
    let mut decision = rule.on(UplinkEvent::Connected, Duration::ZERO);
    let least = trace.wanted * 0.02 / 8.0 / f64::from(FRAME_RATE);
    let mut encoder =
        Encoder { rng: Rng::with_seed(seed), rate: f64::from(decision.bitrate), until_key: 0, skip: 0, least };
    let (mut changes, mut pictures, mut asked, mut made) = (0_u32, 0_u32, false, 0.0);
    for number in 0..steps {
        let now_s = number as f64 * STEP_S;
        let now = Duration::from_secs_f64(now_s);
        let queued = Duration::from_millis(gate.newest_ms().saturating_sub(sender.sent_ms).into());
        if number % 2 == 0
            && let Verdict::Pass { dts_ms, .. } = gate.audio(now, queued)
        {
            sender.push(Message { left: SOUND, born_s: now_s, dts_ms, video: None });
        }
        if now_s * f64::from(FRAME_RATE) >= f64::from(pictures) {
            pictures += 1;
            if let Some((bytes, key)) = encoder.picture(decision, trace.demand[number], asked) {
                asked &= !key;
                made += bytes;
                match gate.video(now, now, key, queued) {
                    Verdict::Pass { dts_ms, .. } => {
                        sender.push(Message { left: bytes, born_s: now_s, dts_ms, video: Some(bytes) });
                    }
                    Verdict::AskForKeyFrame => asked = true,
                    Verdict::Drop => {}
                }
            }
        }
        sender.write(&mut path);
        path.step(number);
        while let Some(&(end, born_s, bytes)) = sender.on_their_way.front()
            && end <= path.delivered + 0.5
        {
            sender.on_their_way.pop_front();
            viewer.sees(now_s, now_s - born_s, bytes);
        }
        if number % every == every - 1 {
            let sample = UplinkSample {
                acked: path.acked as u64,
                arrived: path.acked as u64,
                outstanding: path.outstanding() as u64,
                unsent: path.unsent() as u64,
                waiting: sender.waiting_bytes as u64,
                queued: Duration::from_millis(gate.newest_ms().saturating_sub(sender.sent_ms).into()),
                round_trip: Duration::from_secs_f64(path.round_trip_s),
                encoded: made as u64,
            };
            let before = std::mem::replace(&mut decision, rule.on(UplinkEvent::Sampled(sample), now));
            changes += u32::from(before != decision);
        }
        if let Some(points) = points.as_deref_mut().filter(|_| number % 10 == 0) {
            let near = &trace.capacity[number.saturating_sub(10)..=number];
            points.push(Point {
                at_s: now_s,
                capacity: near.iter().sum::<f64>() / near.len() as f64,
                bitrate: f64::from(decision.bitrate),
                waited_s: viewer.waited.last().copied().unwrap_or(0.0),
            });
        }
    }
    let length_s = steps as f64 * STEP_S;
    viewer.frozen_s += (length_s - viewer.last_s - 0.5).max(0.0);
    let waits_now =
        sender.on_their_way.iter().map(|&(_, born_s, _)| born_s).chain(sender.waiting.iter().map(|m| m.born_s));
    viewer.waited.extend(waits_now.map(|born_s| length_s - born_s));
    viewer.waited.sort_by(f64::total_cmp);
    let p95 = viewer.waited.get(viewer.waited.len() * 95 / 100).copied().unwrap_or(length_s);
    Outcome {
        used: viewer.bytes * 8.0 / usable(trace),
        queue_p95_s: p95,
        frozen: viewer.frozen_s / length_s,
        changes: f64::from(changes) * 60.0 / length_s,
    }
}

/// Bits of video that a perfect sender would get through, second by second.
fn usable(trace: &Trace) -> f64 {
    let seconds = (1.0 / STEP_S).round() as usize;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let pairs = trace.capacity.chunks(seconds).zip(trace.demand.chunks(seconds));
    pairs.map(|(link, scene)| (mean(link) - SOUND_RATE).max(0.0).min(trace.wanted).min(mean(scene))).sum()
}
