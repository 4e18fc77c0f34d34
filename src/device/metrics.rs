//! The daemon's metrics for Prometheus, written on request: the core's counts, and the media's own counters of running
//! captures and publications, with those that are over ([`Totals`]) added.

use std::time::Duration;

use super::core::Core;
use crate::media::{publisher, video};
use crate::metrics::{Exposition, Kind, causes, process};
use crate::protocol::{BoardSnapshot, CameraState, DaemonState, StreamState};

/// Sums over the life of the daemon.
#[derive(Debug, Default)]
pub struct Totals {
    /// Sums of the captures that are over.
    captures: video::Counters,
    /// Sums of the publications that are over.
    publications: publisher::Counters,
    /// The current attempt: its number, when it began, whether media arrived.
    attempt: Option<(u32, Duration, bool)>,
    attempts: u64,
    accepted: Mean,
    flowing: Mean,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: Duration,
    count: u64,
}

impl Mean {
    fn add(&mut self, more: Duration) {
        self.sum += more;
        self.count += 1;
    }
}

impl Totals {
    /// Adds a capture that is over.
    pub fn capture_over(&mut self, counters: video::Counters) {
        self.captures += counters;
    }

    /// Adds a publication that is over.
    pub fn publication_over(&mut self, counters: publisher::Counters) {
        let sum = &mut self.publications;
        sum.passed += counters.passed;
        sum.dropped += counters.dropped;
        sum.bytes += counters.bytes;
        sum.acked += counters.acked;
    }

    /// An attempt to publish begins.
    pub fn attempt(&mut self, attempt: u32, now: Duration) {
        self.attempt = Some((attempt, now, false));
        self.attempts += 1;
    }

    /// The server accepted the attempt.
    pub fn accepted(&mut self, attempt: u32, now: Duration) {
        if let Some((_, began, _)) = self.attempt.filter(|(current, ..)| *current == attempt) {
            self.accepted.add(now.saturating_sub(began));
        }
    }

    /// Media arrives at the server, for the first time or again.
    pub fn flowing(&mut self, attempt: u32, now: Duration) {
        if let Some((current, began, flows)) = &mut self.attempt
            && *current == attempt
            && !std::mem::replace(flows, true)
        {
            self.flowing.add(now.saturating_sub(*began));
        }
    }
}

/// The running parts, to be added to the totals.
#[derive(Debug)]
pub struct Present<'a> {
    /// The core, with its counts.
    pub core: &'a Core,
    /// The state, as shown by `status`.
    pub state: &'a DaemonState,
    /// Sums of all running captures.
    pub captures: video::Counters,
    /// Time since the camera gave a picture, while it is open.
    pub camera_silent: Option<Duration>,
    /// The running publications: one, or two while an old one ends.
    pub publishers: &'a [publisher::Counters],
}

/// All metrics as text: a section for each stage that media passes, then the board and the process.
pub fn write(totals: &Totals, present: &Present<'_>) -> String {
    let mut text = Exposition::default();
    text.family("lenscast_build_info", Kind::Gauge, "The daemon's version.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], true);
    stream(&mut text, present);
    capture(&mut text, totals, present);
    encode(&mut text, totals, present);
    publish(&mut text, totals, present);
    requests(&mut text, present);
    board(&mut text, &present.state.board);
    process(&mut text);
    text.finish()
}

fn stream(text: &mut Exposition, present: &Present<'_>) {
    let counts = present.core.counts();
    let now = present.state.stream.as_ref().map(|stream| stream.state);
    let mut family = text.family("lenscast_stream_state", Kind::Gauge, "1 for the state that the stream is in.");
    for state in StreamState::ALL.into_iter().filter(|state| !state.is_terminal()) {
        family.sample(&[("state", state.name())], now == Some(state));
    }
    text.family("lenscast_streams_started_total", Kind::Counter, "Streams that were granted the camera.")
        .sample(&[("kind", "unmanaged")], counts.unmanaged)
        .sample(&[("kind", "managed")], counts.managed);
    let by_cause = [
        ("lenscast_streams_refused_total", "Requests for a stream that were refused.", &counts.refused),
        ("lenscast_streams_ended_total", "Streams that ended.", &counts.ended),
        (
            "lenscast_stream_reconnects_total",
            "Publications and attempts that were lost and followed by another attempt.",
            &counts.retries,
        ),
    ];
    for (name, help, counts) in by_cause {
        counts.write(&mut text.family(name, Kind::Counter, help), "cause", causes());
    }
}

fn capture(text: &mut Exposition, totals: &Totals, present: &Present<'_>) {
    let mut sum = totals.captures;
    sum += present.captures;
    let camera = &present.state.camera;
    let mut family = text.family("lenscast_camera_state", Kind::Gauge, "1 for the state that the camera is in.");
    for state in CameraState::ALL {
        family.sample(&[("state", state.name())], camera.state == state);
    }
    text.counter("lenscast_capture_frames_total", "Pictures that the camera gave.", sum.captured);
    text.counter(
        "lenscast_capture_missed_frames_total",
        "Pictures that the camera counted and did not deliver.",
        sum.missed,
    );
    text.gauge_if_any(
        "lenscast_capture_last_frame_age_seconds",
        "Time since the camera gave a picture, or since it was opened; absent while it is closed.",
        present.camera_silent,
    );
    let mut family = text.family(
        "lenscast_captures_lost_total",
        Kind::Counter,
        "Openings of camera and encoder that failed or were lost.",
    );
    present.core.counts().captures_lost.write(&mut family, "cause", causes());
}

fn encode(text: &mut Exposition, totals: &Totals, present: &Present<'_>) {
    let mut sum = totals.captures;
    sum += present.captures;
    let mut family = text.family("lenscast_encoder_info", Kind::Gauge, "The encoder in use, by its profile's name.");
    if let Some(encoder) = &present.state.camera.encoder {
        family.sample(&[("encoder", encoder)], true);
    }
    text.counter(
        "lenscast_encode_left_out_frames_total",
        "Pictures left out on purpose, as the uplink carries no more.",
        sum.left_out,
    );
    text.counter(
        "lenscast_encode_offered_frames_total",
        "Pictures that the encoder was to take; those it was too slow for are offered and not encoded.",
        sum.offered,
    );
    text.counter("lenscast_encode_frames_total", "Pictures that left the encoder.", sum.encoded);
    text.counter("lenscast_encode_bytes_total", "Bytes of video that left the encoder.", sum.encoded_bytes);
    text.gauge_if_any(
        "lenscast_encode_target_bytes_per_second",
        "The rate of video that the encoder is asked for; absent without a stream.",
        present.core.target_bitrate().map(|bits| f64::from(bits) / 8.0),
    );
    text.summary(
        "lenscast_encode_latency_seconds",
        "Time from the camera until a picture has left the encoder.",
        sum.latency,
        sum.encoded,
    );
}

fn publish(text: &mut Exposition, totals: &Totals, present: &Present<'_>) {
    let sum =
        |of: fn(&publisher::Counters) -> u64| of(&totals.publications) + present.publishers.iter().map(of).sum::<u64>();
    let latest = present.publishers.last();
    text.counter("lenscast_publish_frames_total", "Pictures that passed the gate to the server.", sum(|of| of.passed));
    text.counter(
        "lenscast_publish_dropped_frames_total",
        "Pictures that the gate dropped, since more waited than may.",
        sum(|of| of.dropped),
    );
    text.gauge_if_any(
        "lenscast_publish_queue_seconds",
        "Media that passed the gate and waits to be sent; absent without a publication, as are the next four.",
        latest.map(|of| of.queued),
    );
    text.gauge_if_any(
        "lenscast_publish_unacknowledged_bytes",
        "Bytes in the socket that the server's machine has not acknowledged.",
        latest.map(|of| of.outstanding),
    );
    text.gauge_if_any(
        "lenscast_publish_unsent_bytes",
        "The part of these that the network did not take yet.",
        latest.map(|of| of.unsent),
    );
    text.gauge_if_any(
        "lenscast_publish_oldest_byte_age_seconds",
        "How long the oldest of them has been in the socket.",
        latest.map(|of| of.oldest),
    );
    text.gauge_if_any(
        "lenscast_publish_round_trip_seconds",
        "Smoothed round-trip time of the connection.",
        latest.map(|of| of.round_trip),
    );
    text.counter(
        "lenscast_publish_bytes_total",
        "Bytes of media that passed the gate to the server.",
        sum(|of| of.bytes),
    );
    text.counter(
        "lenscast_publish_acknowledged_bytes_total",
        "Bytes that the server's machine acknowledged, those of RTMP and TLS included; its rate is the rate of delivery.",
        sum(|of| of.acked),
    );
    text.counter("lenscast_publish_attempts_total", "Attempts to publish.", totals.attempts);
    text.summary(
        "lenscast_publish_accept_seconds",
        "Time from an attempt's beginning until the server accepted the publication.",
        totals.accepted.sum,
        totals.accepted.count,
    );
    text.summary(
        "lenscast_publish_first_media_seconds",
        "Time from an attempt's beginning until media arrived at the server.",
        totals.flowing.sum,
        totals.flowing.count,
    );
}

/// Metrics of the requests to the daemon.
fn requests(text: &mut Exposition, present: &Present<'_>) {
    let counts = present.core.counts();
    text.counter("lenscast_photos_taken_total", "Photos that were taken.", counts.photos);
    let failed = "Photos that were refused or failed.";
    counts.photos_failed.write(
        &mut text.family("lenscast_photos_failed_total", Kind::Counter, failed),
        "cause",
        causes(),
    );
    text.family(
        "lenscast_keep_alives_total",
        Kind::Counter,
        "Keep-alives from phone or cloud, by the stream they are for.",
    )
    .sample(&[("stream", "known")], counts.keep_alives)
    .sample(&[("stream", "unknown")], counts.stray_keep_alives);
    text.gauge("lenscast_link_up", "Whether a link to phone or cloud is up.", present.core.is_linked());
    text.counter("lenscast_link_losses_total", "Times that such a link was lost.", counts.link_losses);
    let refused = "Messages over links that could not be obeyed.";
    counts.messages_refused.write(
        &mut text.family("lenscast_link_messages_refused_total", Kind::Counter, refused),
        "cause",
        causes(),
    );
}

/// Metrics of the board; values without a sensor are absent.
fn board(text: &mut Exposition, board: &BoardSnapshot) {
    let mut family = text.family(
        "lenscast_board_temperature_celsius",
        Kind::Gauge,
        "Temperature of the thermal zone nearest to its limits.",
    );
    if let (Some(celsius), Some(zone)) = (board.temperature_c, &board.zone) {
        family.sample(&[("zone", zone)], celsius);
    }
    let step = board.temperature_c.map(|_| board.heat.map_or(0, |heat| heat.step));
    text.gauge_if_any(
        "lenscast_board_heat_step",
        "Steps of what a stream gives up because of heat that are taken; 0 to 5.",
        step.map(f64::from),
    );
    text.gauge_if_any(
        "lenscast_board_battery_ratio",
        "Charge of the battery, 0 to 1.",
        board.battery.map(|battery| f64::from(battery.percent) / 100.0),
    );
    text.gauge_if_any(
        "lenscast_board_battery_charging",
        "Whether a charger charges the battery.",
        board.battery.map(|battery| battery.charging),
    );
    text.gauge_if_any("lenscast_board_privacy_led", "Whether the privacy light shines.", board.privacy_led);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::BatterySnapshot;

    #[test]
    fn the_boards_sensors_show() {
        let mut text = Exposition::default();
        let board = super::board;
        let snapshot = BoardSnapshot {
            temperature_c: Some(81.5),
            zone: Some("cpu-thermal".into()),
            battery: Some(BatterySnapshot { percent: 42, charging: false }),
            privacy_led: Some(true),
            ..BoardSnapshot::default()
        };
        board(&mut text, &snapshot);
        let text = text.finish();
        for line in [
            "lenscast_board_temperature_celsius{zone=\"cpu-thermal\"} 81.5",
            "lenscast_board_heat_step 0",
            "lenscast_board_battery_ratio 0.42",
            "lenscast_board_battery_charging 0",
            "lenscast_board_privacy_led 1",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_sums_outlive_what_they_are_of() {
        let mut totals = Totals::default();
        totals.capture_over(video::Counters { captured: 10, encoded: 8, ..video::Counters::default() });
        totals.publication_over(publisher::Counters { passed: 5, acked: 700, ..publisher::Counters::default() });
        let at = Duration::from_secs;
        totals.attempt(1, at(1));
        totals.accepted(1, at(3));
        totals.flowing(1, at(4));
        totals.flowing(1, at(9)); // after a pause
        totals.attempt(2, at(10));
        totals.accepted(1, at(11)); // of the one before
        let core = Core::new(&super::super::config::Config::default());
        let running = publisher::Counters { passed: 2, queued: at(1), ..publisher::Counters::default() };
        let present = Present {
            core: &core,
            state: &core.state(at(12)),
            captures: video::Counters { captured: 3, ..video::Counters::default() },
            camera_silent: None,
            publishers: &[running],
        };
        let text = write(&totals, &present);
        for line in [
            "lenscast_capture_frames_total 13",
            "lenscast_encode_frames_total 8",
            "lenscast_publish_frames_total 7",
            "lenscast_publish_acknowledged_bytes_total 700",
            "lenscast_publish_queue_seconds 1",
            "lenscast_publish_accept_seconds_sum 2",
            "lenscast_publish_accept_seconds_count 1",
            "lenscast_publish_first_media_seconds_sum 3",
            "lenscast_publish_first_media_seconds_count 1",
            "lenscast_camera_state{state=\"closed\"} 1",
            "lenscast_stream_state{state=\"streaming\"} 0",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
        assert!(!text.contains("\nlenscast_board_"), "there is no sensor");
        assert!(!text.contains("\nlenscast_capture_last_frame_age_seconds "), "there is no camera");
    }
}
