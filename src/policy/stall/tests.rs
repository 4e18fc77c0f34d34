//! Recordings (`*.txt`: milliseconds, acked, outstanding, window) are from real sockets on Linux 6.18: 30 frames/s,
//! key frames five times the size, and audio, over veth (MTU 1500) or loopback. `unitN` is the scaling unit of the
//! receiver's window (1024 with `tcp_rmem` up to 32 MiB, 128 with the kernel's default of 6 MiB). The fault begins 5 s
//! in. The other traces are made up.

use proptest::prelude::*;

use super::*;

const FAULT: Time = Time::from_secs(5);

fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// The first verdict of a detector on a trace.
fn first(trace: impl IntoIterator<Item = (Time, TcpSample)>) -> Option<(Time, Cause)> {
    first_behind(trace, true)
}

fn first_behind(trace: impl IntoIterator<Item = (Time, TcpSample)>, end_to_end: bool) -> Option<(Time, Cause)> {
    let mut detector = StallDetector::new(Time::ZERO, end_to_end);
    trace.into_iter().find_map(|(now, sample)| detector.sample(now, sample).map(|cause| (now, cause)))
}

fn recorded(text: &str) -> Vec<(Time, TcpSample)> {
    text.lines()
        .map(|line| {
            let n: Vec<u64> = line.split(' ').map(|field| field.parse().unwrap()).collect();
            (ms(n[0]), TcpSample { acked: n[1], outstanding: n[2], window: u32::try_from(n[3]).unwrap() })
        })
        .collect()
}

/// A connection in steps of 100 ms: the sender writes `rate` bytes a second, the link carries `link`, the receiving
/// process reads `read(t)`, in pieces of `piece`.
struct Model {
    rate: u64,
    link: u64,
    buffer: u64,
    unit: u64,
    piece: u64,
}

impl Model {
    fn run(&self, seconds: u64, read: impl Fn(u64) -> u64, wire: impl Fn(u64) -> bool) -> Vec<(Time, TcpSample)> {
        let (mut written, mut acked, mut taken, mut budget) = (0u64, 0u64, 0u64, 0u64);
        let mut granted = self.buffer;
        let mut window = self.buffer;
        (0..seconds * 10)
            .map(|step| {
                let t = step * 100;
                written += self.rate / 10;
                if wire(t) {
                    acked += (written - acked).min(self.link / 10).min(granted - acked);
                    budget = (budget + read(t) / 10).min(self.piece + read(t) / 10);
                    while budget >= self.piece && taken < acked {
                        let n = self.piece.min(acked - taken);
                        taken += n;
                        budget -= self.piece;
                    }
                    granted = granted.max(taken + self.buffer);
                    window = (granted - acked) / self.unit * self.unit;
                }
                let window = u32::try_from(window).unwrap();
                (ms(t), TcpSample { acked, outstanding: written - acked, window })
            })
            .collect()
    }
}

const FAST: u64 = 100_000_000;

#[test]
fn frozen_servers_are_found_within_3_s() {
    for (name, text) in [
        ("2 Mbit/s, unit 1024", include_str!("frozen_2000_unit1024.txt")),
        ("2 Mbit/s, unit 128", include_str!("frozen_2000_unit128.txt")),
        ("2 Mbit/s, loopback", include_str!("frozen_2000_loopback.txt")),
        ("300 kbit/s, unit 1024", include_str!("frozen_300_unit1024.txt")),
        ("300 kbit/s, unit 128", include_str!("frozen_300_unit128.txt")),
        ("300 kbit/s, loopback", include_str!("frozen_300_loopback.txt")),
    ] {
        let (at, cause) = first(recorded(text)).unwrap_or_else(|| panic!("{name}: not noticed"));
        assert_eq!(cause, Cause::ServerFrozen, "{name}");
        assert!(at >= FAULT + ms(1900) && at <= FAULT + ms(3000), "{name}: {at:?}");
    }
}

#[test]
fn frozen_with_a_made_up_autotuned_window_is_found_at_any_rate() {
    for kbit in [250, 300, 500, 2000, 6000] {
        for buffer in [64 << 10, 450 << 10, 3 << 20] {
            let model = Model { rate: kbit * 125, link: FAST, buffer, unit: 128, piece: 1 };
            let trace = model.run(15, |t| if t < 5000 { FAST } else { 0 }, |_| true);
            let (at, cause) = first(trace).unwrap_or_else(|| panic!("{kbit} kbit/s, {buffer}: not noticed"));
            assert_eq!(cause, Cause::ServerFrozen, "{kbit} kbit/s, {buffer}");
            // The time the window takes to leave its maximum visibly, plus 2 s.
            let limit = if kbit < 1000 { 2600 } else { 2200 };
            assert!(at >= FAULT + ms(1900) && at <= FAULT + ms(limit), "{kbit} kbit/s, {buffer}: {at:?}");
        }
    }
}

#[test]
fn a_cut_network_is_told_from_a_frozen_server() {
    // The cut was made 5.2 s into the recording.
    let (at, cause) = first(recorded(include_str!("cut_2000.txt"))).unwrap();
    assert_eq!(cause, Cause::NetworkStalled);
    assert!(at >= ms(7500) && at <= ms(8200), "{at:?}");

    for kbit in [100, 300, 2000, 6000] {
        let model = Model { rate: kbit * 125, link: FAST, buffer: 300 << 10, unit: 128, piece: 30_000 };
        let (at, cause) = first(model.run(12, |_| FAST, |t| t < 5000)).unwrap();
        assert_eq!(cause, Cause::NetworkStalled, "{kbit} kbit/s");
        assert!(at >= FAULT + ms(2300) && at <= FAULT + ms(2600), "{kbit} kbit/s: {at:?}");
    }
}

#[test]
fn a_network_cut_after_a_burst_that_was_not_read_yet_is_no_frozen_server() {
    let mut trace =
        Model { rate: 250_000, link: FAST, buffer: 300 << 10, unit: 128, piece: 1 }.run(5, |_| FAST, |_| true);
    let (at, last) = *trace.last().unwrap();
    let cut = TcpSample { acked: last.acked + 40_000, outstanding: 50_000, window: last.window - 40_000 };
    trace.extend((1..40).map(|n| (at + INTERVAL * n, cut)));
    assert_eq!(first(trace).map(|verdict| verdict.1), Some(Cause::NetworkStalled));
}

#[test]
fn three_pauses_of_a_second_are_no_verdict() {
    assert_eq!(first(recorded(include_str!("pauses_2000.txt"))), None);
    assert_eq!(first(recorded(include_str!("pauses_300.txt"))), None);
    for buffer in [128 << 10, 600 << 10] {
        let model = Model { rate: 250_000, link: FAST, buffer, unit: 128, piece: 1 };
        let paused = |t: u64| [5, 7, 9].contains(&(t / 1000));
        assert_eq!(first(model.run(20, |t| if paused(t) { 0 } else { FAST }, |_| true)), None, "{buffer}");
    }
}

#[test]
fn a_server_that_reads_too_slowly_is_not_frozen() {
    for text in [
        include_str!("slow_reader_2000_unit1024.txt"),
        include_str!("slow_reader_2000_unit128.txt"),
        include_str!("slow_reader_300_unit128.txt"),
    ] {
        assert_eq!(first(recorded(text)), None);
    }
    for (buffer, piece, link) in
        [(450 << 10, 1, FAST), (3 << 20, 1, FAST), (450 << 10, 65536, FAST), (450 << 10, 4096, 230_000)]
    {
        let model = Model { rate: 250_000, link, buffer, unit: 128, piece };
        let trace = model.run(60, |t| if t < 5000 { FAST } else { 175_000 }, |_| true);
        assert_eq!(first(trace), None, "buffer {buffer}, pieces of {piece}, link {link}");
    }
}

#[test]
fn a_slow_link_is_no_verdict() {
    assert_eq!(first(recorded(include_str!("congested_600_of_2000.txt"))), None);
    let model = Model { rate: 250_000, link: 75_000, buffer: 450 << 10, unit: 128, piece: 1 };
    assert_eq!(first(model.run(60, |_| FAST, |_| true)), None);
}

#[test]
fn an_idle_stream_is_no_verdict_even_if_its_last_window_was_low() {
    let mut trace =
        Model { rate: 250_000, link: FAST, buffer: 300 << 10, unit: 128, piece: 1 }.run(5, |_| FAST, |_| true);
    let (at, last) = *trace.last().unwrap();
    let idle = TcpSample { acked: last.acked + 60_000, outstanding: 0, window: last.window - 60_000 };
    trace.extend((1..100).map(|n| (at + INTERVAL * n, idle)));
    let (at, _) = *trace.last().unwrap();
    // The connection goes on with small packets; the first ACK shows what was read meanwhile.
    trace.extend((1..100u32).map(|n| {
        let acked = idle.acked + u64::from(n) * 200;
        (at + INTERVAL * n, TcpSample { acked, outstanding: 200, window: last.window })
    }));
    assert_eq!(first(trace), None);
}

#[test]
fn a_window_that_stays_below_an_old_maximum_is_no_verdict_while_acks_go_on() {
    let trace = (0..200u64).map(|n| {
        let window = if n < 10 { 400 << 10 } else { 100 << 10 };
        (ms(n * 100), TcpSample { acked: n * 25_000, outstanding: 10_000, window })
    });
    assert_eq!(first(trace), None);
}

#[test]
fn jitter_of_a_small_window_is_no_verdict() {
    for base in [0u32, 2000, 20_000] {
        let trace = (0..600u32).map(|n| {
            let window = base + 1 + n * 7919 % 8000;
            (INTERVAL * n, TcpSample { acked: u64::from(n) * 3000, outstanding: 3000, window })
        });
        assert_eq!(first(trace), None, "{base}");
    }
}

#[test]
fn a_window_of_zero_is_a_frozen_server() {
    let trace = (0..100u64).map(|n| {
        let stopped = n.min(50);
        let window = if n < 50 { 4000 } else { 0 };
        (ms(n * 100), TcpSample { acked: stopped * 1000, outstanding: (n - stopped) * 1000, window })
    });
    let (at, cause) = first(trace).unwrap();
    assert_eq!(cause, Cause::ServerFrozen);
    assert!(at >= ms(6900) && at <= ms(7100), "{at:?}");
}

#[test]
fn probes_that_are_acked_do_not_hide_a_frozen_server() {
    let trace = (0..100u64).map(|n| {
        let acked = n.min(50) * 20_000 + n.saturating_sub(50);
        // The window opens once more, by a crack, and closes no further.
        let window = if n < 50 { 200_000 } else { u32::from(n > 55) * 1024 };
        (ms(n * 100), TcpSample { acked, outstanding: 50_000, window })
    });
    let (at, cause) = first(trace).unwrap();
    assert_eq!(cause, Cause::ServerFrozen);
    assert!(at <= FAULT + ms(2700), "{at:?}");
}

#[test]
fn a_small_window_that_shrank_until_acks_stopped_is_a_frozen_server() {
    let trace = (0..100u64).map(|n| {
        let window = if n < 50 { 8000 } else { 500 };
        (ms(n * 100), TcpSample { acked: n.min(50) * 1000, outstanding: 5000, window })
    });
    assert_eq!(first(trace), Some((ms(7500), Cause::ServerFrozen)));
}

#[test]
fn a_burst_after_an_idle_time_is_no_verdict_before_it_is_read() {
    let mut trace =
        Model { rate: 250_000, link: FAST, buffer: 300 << 10, unit: 128, piece: 1 }.run(5, |_| FAST, |_| true);
    let (at, last) = *trace.last().unwrap();
    let idle = TcpSample { acked: last.acked + 10_000, outstanding: 0, window: last.window - 10_000 };
    trace.extend((1..40).map(|n| (at + INTERVAL * n, idle)));
    let burst = TcpSample { acked: idle.acked + 30_000, outstanding: 2000, window: last.window - 30_000 };
    trace.push((at + INTERVAL * 40, burst));
    assert_eq!(first(trace), None);
}

#[test]
fn behind_a_proxy_only_missing_acks_count() {
    assert_eq!(first_behind(recorded(include_str!("frozen_300_unit128.txt")), false), None);
    let trace = (0..100u64).map(|n| (ms(n * 100), TcpSample { acked: n.min(50) * 1000, outstanding: 1000, window: 0 }));
    assert_eq!(first_behind(trace, false), Some((ms(7500), Cause::NetworkStalled)));
}

/// What the next hop takes and the server acknowledges, every 100 ms: `rate` bytes a second, and an acknowledgement
/// per `step` bytes until the server freezes.
fn acknowledging(rate: u64, step: u64, frozen: Time) -> Option<(Time, Cause)> {
    let mut detector = UnreadDetector::default();
    (0..600u64).find_map(|n| {
        let (now, taken) = (ms(n * 100), n * rate / 10);
        let read = taken.min(rate * frozen.as_millis() as u64 / 1000);
        let acknowledged = read.checked_div(step).map_or(0, |steps| steps * step);
        detector.sample(now, taken, acknowledged).map(|cause| (now, cause))
    })
}

#[test]
fn a_server_that_freezes_behind_a_proxy_acknowledges_no_more() {
    for (rate, limit) in [(40_000, 4500), (250_000, 3000), (750_000, 3000)] {
        let (at, cause) = acknowledging(rate, 65_536, ms(20_000)).expect("noticed");
        assert_eq!(cause, Cause::ServerFrozen);
        assert!(at > ms(20_500) && at < ms(20_000 + limit), "noticed at {at:?} with {rate} bytes a second");
    }
}

#[test]
fn a_server_that_acknowledges_seldom_or_never_is_not_frozen() {
    assert_eq!(acknowledging(40_000, 0, ms(60_000)), None);
    for step in [65_536, 500_000, 5_000_000] {
        assert_eq!(acknowledging(40_000, step, ms(60_000)), None, "every {step} bytes");
    }
    assert_eq!(acknowledging(40_000, 2_500_000, ms(20_000)), None, "nothing is known of its habit");
}

#[test]
fn a_sampler_that_slept_saw_nothing() {
    let mut detector = StallDetector::new(Time::ZERO, true);
    let sample = TcpSample { acked: 1000, outstanding: 500, window: 60_000 };
    assert_eq!(detector.sample(ms(0), sample), None);
    assert_eq!(detector.sample(ms(100), sample), None);
    assert_eq!(detector.sample(ms(60_000), sample), None);
    assert_eq!(detector.sample(ms(60_100), sample), None);
}

proptest! {
    /// At any rates: a process that reads everything that arrives is never called frozen, and a link that carries
    /// anything is never called cut.
    #[test]
    fn healthy_connections_are_no_verdict(
        rate in 2_000u64..1_000_000,
        link in 2_000u64..10_000_000,
        buffer in 16_384u64..4_000_000,
        unit in prop::sample::select(vec![1u64, 128, 1024]),
        piece in 1u64..4096,
    ) {
        let model = Model { rate, link, buffer, unit, piece };
        prop_assert_eq!(first(model.run(40, |_| FAST, |_| true)), None);
    }

    /// Nonsense never panics, and the histories stay bounded.
    #[test]
    fn nonsense_is_survived(samples in prop::collection::vec((0u64..2000, any::<u64>(), any::<u64>(), any::<u32>()), 0..600)) {
        let mut detector = StallDetector::new(Time::ZERO, true);
        let mut now = Time::ZERO;
        for (step, acked, outstanding, window) in samples {
            now += ms(step / 20);
            detector.sample(now, TcpSample { acked, outstanding, window });
            prop_assert!(detector.recent.len() <= HISTORY && detector.maxima.len() <= HISTORY);
        }
    }
}
