//! The long stream: what arrives, with heat, battery and processor meanwhile.

use std::path::Path;
use std::time::Duration;

use lenscast::ingest::sink::Arrived;
use lenscast::protocol::StreamState;
use lenscast::protocol::control::VideoWish;
use tokio::time::{Instant, sleep};

use super::live::{self, BEGIN, Live, News, said};
use super::processor::Processor;
use super::report::{Sample, Step};
use crate::failure::Failure;

/// Between samples, unless the stream is short.
const EVERY: Duration = Duration::from_secs(5);
/// The time for an encoder to find its bitrate, and for a camera to find its exposure.
const SETTLE: Duration = Duration::from_secs(2);
/// The least share of the requested rate.
const RATE_FLOOR: f64 = 0.9;
/// The largest share of the requested bitrate. A lower bitrate may come from an easy picture.
pub const BITRATE_CEILING: f64 = 1.3;
/// The longest gap between pictures: key frames are a second apart.
const LONGEST_GAP: Duration = Duration::from_millis(1500);

/// What was measured.
#[derive(Debug, Default)]
struct Seen {
    arrived: Arrived,
    seconds: f64,
    first_after_s: f64,
    dropped: u64,
    /// Complaints.
    troubles: Vec<String>,
    has_sound: bool,
}

/// Streams for `time`. Returns the step, the samples, and the microphone that the daemon used.
pub async fn run(
    socket: &Path,
    video: VideoWish,
    time: Duration,
    tell: &mut dyn FnMut(&str),
) -> Result<(Step, Vec<Sample>, Option<String>), Failure> {
    const NAME: &str = "stream";
    let mut live = match Live::begin(socket, video).await {
        Ok(live) => live,
        Err(Failure::Client(error)) => return Ok((Step::failed(NAME, error.to_string()), Vec::new(), None)),
        Err(other) => return Err(other),
    };
    let mut samples = Vec::new();
    let outcome = if let Err(why) = live.wait(StreamState::Streaming, BEGIN).await? {
        Step::failed(NAME, why)
    } else {
        let first_after_s = live.age();
        let seen = watch(socket, &mut live, time, &mut samples, tell).await?;
        judge(NAME, &video, Seen { first_after_s, ..seen }, &samples)
    };
    let microphone = live.state.camera.audio.clone();
    live::stop(socket).await;
    Ok((outcome, samples, microphone))
}

async fn watch(
    socket: &Path,
    live: &mut Live,
    time: Duration,
    samples: &mut Vec<Sample>,
    tell: &mut dyn FnMut(&str),
) -> Result<Seen, Failure> {
    let mut processor = Processor::of_daemon(socket).await;
    sleep(SETTLE.min(time / 4)).await;
    let (begun, before) = (Instant::now(), live.sink.arrived());
    let end = begun + time;
    let every = EVERY.min(time / 4);
    let mut seen = Seen::default();
    let mut opening = None;
    let mut next = begun + every;
    while Instant::now() < end {
        match live.next(next.min(end)).await? {
            News::Report(report) => match report.state {
                StreamState::Streaming => {}
                state if state.is_terminal() => {
                    seen.troubles.push(format!("after {:.0} s it ended: {}", live.age(), said(&report)));
                    break;
                }
                _ => seen.troubles.push(format!("after {:.0} s {}", live.age(), said(&report))),
            },
            News::Nothing => {
                samples.push(sample(live, processor.as_mut().and_then(Processor::percent)));
                tell(&format!("stream: {:.0} of {:.0} s", begun.elapsed().as_secs_f64(), time.as_secs_f64()));
                next += every;
            }
        }
        let generation = live.state.camera.generation;
        if *opening.get_or_insert(generation) != generation {
            seen.troubles.push(format!("after {:.0} s the camera or its encoder was opened anew", live.age()));
            opening = Some(generation);
        }
    }
    seen.seconds = begun.elapsed().as_secs_f64();
    seen.arrived = live::since(&before, &live.sink.arrived());
    seen.dropped = live.state.stream.as_ref().map_or(0, |stream| stream.metrics.dropped_frames);
    seen.has_sound = live.state.camera.audio.is_some();
    Ok(seen)
}

fn sample(live: &Live, cpu_percent: Option<f64>) -> Sample {
    let board = &live.state.board;
    let metrics = live.state.stream.as_ref().map(|stream| &stream.metrics);
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    Sample {
        at_s: tenths(live.age()),
        temperature_c: board.temperature_c.map(tenths),
        heat_step: board.heat.map(|heat| heat.step),
        battery_percent: board.battery.map(|battery| battery.percent),
        charging: board.battery.map(|battery| battery.charging),
        cpu_percent: cpu_percent.map(tenths),
        bitrate: metrics.map_or(0, |metrics| metrics.bitrate),
        fps: tenths(metrics.map_or(0.0, |metrics| metrics.fps)),
    }
}

fn judge(name: &str, video: &VideoWish, seen: Seen, samples: &[Sample]) -> Step {
    let Seen { arrived, seconds, first_after_s, dropped, troubles: mut complaints, has_sound } = seen;
    let rate = arrived.pictures as f64 / seconds;
    let bitrate = arrived.picture_bytes as f64 * 8.0 / seconds;
    if let Some(asked) = video.frame_rate.map(f64::from).filter(|asked| rate < asked * RATE_FLOOR) {
        complaints.push(format!("{rate:.1} pictures a second arrived where {asked:.0} were asked for"));
    }
    if let Some(asked) = video.bitrate.map(f64::from).filter(|asked| bitrate > asked * BITRATE_CEILING) {
        complaints.push(format!("{:.0} kbit/s where {:.0} were asked for", bitrate / 1e3, asked / 1e3));
    }
    if arrived.longest_gap > LONGEST_GAP {
        complaints.push(format!("no picture for {} ms", arrived.longest_gap.as_millis()));
    }
    if has_sound && arrived.sounds == 0 {
        complaints.push("no sound arrived".into());
    }
    if let Some(sample) = samples.iter().find(|sample| sample.heat_step.is_some()) {
        complaints.push(format!("after {:.0} s the stream gave way to heat", sample.at_s));
    }
    let known = |value: fn(&Sample) -> Option<f64>| samples.iter().filter_map(value).collect::<Vec<_>>();
    let hottest = |values: &[f64]| values.iter().copied().reduce(f64::max);
    let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let (heat, cpu) = (known(|sample| sample.temperature_c), known(|sample| sample.cpu_percent));
    let battery = known(|sample| sample.battery_percent.map(f64::from));
    Step::judged(name, &complaints)
        .with("time", seconds, "s")
        .with("live_after", first_after_s, "s")
        .with("rate", rate, "pictures/s")
        .with("bitrate", bitrate, "bit/s")
        .with("key_frames", arrived.key_frames as f64, "")
        .with("dropped_pictures", dropped as f64, "")
        .with("longest_gap", arrived.longest_gap.as_secs_f64() * 1e3, "ms")
        .with("sound_bitrate", arrived.sound_bytes as f64 * 8.0 / seconds, "bit/s")
        .with_known("temperature_at_first", heat.first().copied(), "degrees Celsius")
        .with_known("temperature_highest", hottest(&heat), "degrees Celsius")
        .with_known("battery_at_first", battery.first().copied(), "%")
        .with_known("battery_at_last", battery.last().copied(), "%")
        .with_known("cpu_mean", mean(&cpu), "% of a core")
        .with_known("cpu_highest", hottest(&cpu), "% of a core")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptance::report::Outcome;

    fn wish() -> VideoWish {
        VideoWish { width: Some(1280), height: Some(720), bitrate: Some(1_000_000), frame_rate: Some(30) }
    }

    fn good() -> Seen {
        let arrived = Arrived { pictures: 300, picture_bytes: 1_250_000, sounds: 430, ..Arrived::default() };
        Seen { arrived, seconds: 10.0, has_sound: true, ..Seen::default() }
    }

    fn reason(seen: Seen, samples: &[Sample]) -> String {
        let step = judge("stream", &wish(), seen, samples);
        assert_eq!(step.outcome, Outcome::Failed, "{step:?}");
        step.reason.unwrap()
    }

    #[test]
    fn what_was_asked_for_passes_with_its_figures() {
        let sample = |temperature| Sample { temperature_c: Some(temperature), ..Sample::default() };
        let step = judge("stream", &wish(), good(), &[sample(40.0), sample(52.5), sample(51.0)]);
        assert_eq!((step.outcome, step.reason), (Outcome::Passed, None));
        let value = |name: &str| step.figures.get(name).map(|figure| figure.value);
        assert_eq!((value("rate"), value("bitrate")), (Some(30.0), Some(1_000_000.0)));
        assert_eq!((value("temperature_at_first"), value("temperature_highest")), (Some(40.0), Some(52.5)));
        assert_eq!(value("battery_at_last"), None, "a board without a battery has no figure of it");
    }

    #[test]
    fn each_fault_is_named() {
        let slow = Arrived { pictures: 200, ..good().arrived };
        assert_eq!(
            reason(Seen { arrived: slow, ..good() }, &[]),
            "20.0 pictures a second arrived where 30 were asked for"
        );
        let much = Arrived { picture_bytes: 2_000_000, ..good().arrived };
        assert_eq!(reason(Seen { arrived: much, ..good() }, &[]), "1600 kbit/s where 1000 were asked for");
        let gap = Arrived { longest_gap: Duration::from_secs(2), sounds: 0, ..good().arrived };
        assert_eq!(reason(Seen { arrived: gap, ..good() }, &[]), "no picture for 2000 ms; no sound arrived");
        let hot = Sample { at_s: 240.2, heat_step: Some(1), ..Sample::default() };
        assert_eq!(reason(good(), &[hot]), "after 240 s the stream gave way to heat");
        let trouble = "after 3 s reconnecting: it (network_stalled)".to_owned();
        assert_eq!(reason(Seen { troubles: vec![trouble.clone()], ..good() }, &[]), trouble);
    }
}
