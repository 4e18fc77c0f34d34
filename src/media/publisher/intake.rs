//! Takes what the capture's threads deliver through the gate into the sink's queue.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app::AppSrc;

use crate::media::feed::{Consumer, Feed, Unit};
use crate::media::flv;
use crate::media::gate::{Gate, Verdict};
use crate::media::socket::{Connection, TcpInfo};
use crate::policy::bitrate;

/// Without a picture for this long the camera counts as paused, and `Flowing` must be earned again.
const CAMERA_PAUSE: Duration = Duration::from_millis(700);
/// Key frames come every second; one that is this late is requested.
const KEY_FRAME_OVERDUE: Duration = Duration::from_millis(1050);

/// Counts and state of the connection so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Pictures handed to the sink.
    pub passed: u64,
    /// Pictures dropped by the gate since the first one passed.
    pub dropped: u64,
    /// Bytes of media handed to the sink.
    pub bytes: u64,
    /// Duration of the media waiting to be sent.
    pub queued: Duration,
    /// Smoothed round-trip time.
    pub round_trip: Duration,
    /// Bytes acknowledged by the server's machine, including RTMP's and TLS's own.
    pub acked: u64,
    /// Bytes given to the kernel and not acknowledged, sent or not.
    pub outstanding: u64,
    /// The unsent part of `outstanding`.
    pub unsent: u64,
    /// Age of the oldest byte of `outstanding`.
    pub oldest: Duration,
}

/// State shared by the capture's threads and the attempt's task.
pub(super) struct Intake {
    pub(super) feed: Arc<Feed>,
    pub(super) appsrc: AppSrc,
    /// Set once connected.
    pub(super) socket: OnceLock<Connection>,
    state: Mutex<IntakeState>,
    open: AtomicBool,
    /// The latest timestamp that entered the sink, milliseconds.
    pub(super) sent_ms: AtomicU32,
    bytes: AtomicU64,
    /// Bytes of video, whether or not the gate let them through.
    encoded: AtomicU64,
}

#[derive(Default)]
pub(super) struct IntakeState {
    pub(super) gate: Gate,
    video_config: Option<Arc<[u8]>>,
    audio_config: Option<Arc<[u8]>>,
    last_picture: Option<Instant>,
    /// The camera opening of the latest picture.
    opening: u64,
    /// The capture's time of the last key frame, or of our last request for one.
    key_frame_at: Duration,
    /// The connection's state at the last check.
    pub(super) connection: TcpInfo,
    /// The age of its oldest byte at that check.
    pub(super) oldest: Duration,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Intake {
    pub(super) fn new(feed: Arc<Feed>) -> Self {
        let caps = gst::Caps::builder("video/x-flv").build();
        let appsrc = AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .is_live(true)
            .block(false)
            .max_bytes(0) // the gate bounds it, by time
            .build();
        Self {
            feed,
            appsrc,
            socket: OnceLock::new(),
            state: Mutex::new(IntakeState { gate: Gate::new(), ..IntakeState::default() }),
            open: AtomicBool::new(false),
            sent_ms: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            encoded: AtomicU64::new(0),
        }
    }

    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, IntakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self) -> Counters {
        let state = self.state();
        Counters {
            passed: state.gate.passed(),
            dropped: state.gate.dropped(),
            bytes: self.bytes.load(Ordering::Relaxed),
            queued: self.queued(&state.gate),
            round_trip: Duration::from_micros(state.connection.rtt_us.into()),
            acked: state.connection.acked,
            outstanding: state.connection.outstanding,
            unsent: state.connection.unsent.into(),
            oldest: state.oldest,
        }
    }

    fn queued(&self, gate: &Gate) -> Duration {
        let sent = self.sent_ms.load(Ordering::Relaxed);
        Duration::from_millis(gate.newest_ms().saturating_sub(sent).into())
    }

    pub(super) fn sample(&self, info: &TcpInfo) -> bitrate::UplinkSample {
        bitrate::UplinkSample {
            acked: info.acked,
            arrived: info.arrived,
            outstanding: info.outstanding,
            unsent: info.unsent.into(),
            waiting: self.appsrc.current_level_bytes(),
            queued: self.queued(&self.state().gate),
            round_trip: Duration::from_micros(info.rtt_us.into()),
            encoded: self.encoded.load(Ordering::Relaxed),
        }
    }

    fn push_media(&self, dts_ms: u32, tag: Vec<u8>) {
        self.bytes.fetch_add(tag.len() as u64, Ordering::Relaxed);
        self.push(dts_ms, tag);
    }

    pub(super) fn push(&self, dts_ms: u32, tag: Vec<u8>) {
        let mut buffer = gst::Buffer::from_mut_slice(tag);
        let time = gst::ClockTime::from_mseconds(dts_ms.into());
        buffer.get_mut().expect("a new buffer is ours alone").set_pts(time);
        let _ = self.appsrc.push_buffer(buffer); // fails only while the attempt is being torn down
    }

    pub(super) fn let_in(&self) {
        self.open.store(true, Ordering::Release);
        self.feed.ask_for_key_frame();
    }

    pub(super) fn shut(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// The camera opening that delivers pictures, if any does.
    pub(super) fn camera(&self) -> Option<u64> {
        let state = self.state();
        state.last_picture.filter(|last| last.elapsed() <= CAMERA_PAUSE).map(|_| state.opening)
    }
}

impl Consumer for Intake {
    fn video(&self, unit: Unit<'_>) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        self.encoded.fetch_add(unit.data.len() as u64, Ordering::Relaxed);
        let mut state = self.state();
        state.last_picture = Some(Instant::now());
        state.opening = unit.opening;
        let queued = self.queued(&state.gate);
        if unit.key {
            state.key_frame_at = unit.dts;
        }
        // Some encoders take no interval in frames (the Raspberry Pi's stays at 60 pictures whatever it is told).
        let overdue = unit.dts.saturating_sub(state.key_frame_at) > KEY_FRAME_OVERDUE;
        if overdue {
            state.key_frame_at = unit.dts;
        }
        match state.gate.video(unit.pts, unit.dts, unit.key, queued) {
            Verdict::Pass { dts_ms, composition_ms } => {
                if state.video_config.as_ref() != Some(unit.config) {
                    state.video_config = Some(unit.config.clone());
                    self.push_media(dts_ms, flv::video_configuration(dts_ms, unit.config));
                }
                self.push_media(dts_ms, flv::video_frame(dts_ms, composition_ms, unit.key, unit.data));
                drop(state);
                if overdue {
                    self.feed.ask_for_key_frame();
                }
            }
            Verdict::AskForKeyFrame => {
                drop(state);
                self.feed.ask_for_key_frame();
            }
            Verdict::Drop => {}
        }
    }

    fn audio(&self, unit: Unit<'_>) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        let queued = self.queued(&state.gate);
        if let Verdict::Pass { dts_ms, .. } = state.gate.audio(unit.pts, queued) {
            if state.audio_config.as_ref() != Some(unit.config) {
                state.audio_config = Some(unit.config.clone());
                self.push_media(dts_ms, flv::audio_configuration(dts_ms, unit.config));
            }
            self.push_media(dts_ms, flv::audio_frame(dts_ms, unit.data));
        }
    }
}
