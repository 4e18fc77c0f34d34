//! The cloud's metrics for Prometheus, written when somebody asks.

use std::collections::BTreeMap;

use super::{Core, PERSON};
use crate::broadcast::Statistics;
use crate::cloud::{photos, webhook};
use crate::ingest::Stop;
use crate::metrics::{Exposition, Kind, Tally, causes, process};
use crate::policy::orchestration::END_REASONS;
use crate::protocol::StreamKind;
use crate::protocol::app::OutputState;

/// Events since the cloud began that nothing else counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) begun: Tally,
    pub(super) ended: Tally,
    pub(super) publications: u64,
    pub(super) publications_ended: Tally,
    /// What arrived for streams that are closed by now.
    pub(super) past: Arrived,
}

/// What arrived at ingest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    pictures: u64,
    sounds: u64,
    bytes: u64,
}

impl Arrived {
    pub(super) fn add(&mut self, statistics: &Statistics) {
        self.pictures += statistics.pictures;
        self.sounds += statistics.sounds;
        self.bytes += statistics.bytes;
    }
}

/// The statuses of managed and unmanaged streams, in the words that apps are told.
const STATUSES: [(StreamKind, &[&str]); 2] = [
    (StreamKind::Managed, &["initializing", "preparing", "active", "stopping"]),
    (StreamKind::Unmanaged, &["initializing", "active", "reconnecting", "stopping"]),
];

pub(super) fn kind_name(kind: StreamKind) -> &'static str {
    match kind {
        StreamKind::Managed => "managed",
        StreamKind::Unmanaged => "unmanaged",
    }
}

fn output_status(status: OutputState) -> &'static str {
    match status {
        OutputState::Connecting => "connecting",
        OutputState::Active => "active",
        OutputState::Error => "error",
        OutputState::Stopped => "stopped",
    }
}

impl Core {
    /// The text for Prometheus.
    pub(in crate::cloud) fn numbers(&self) -> String {
        let mut text = Exposition::default();
        text.family("lenscast_cloud_build_info", Kind::Gauge, "The cloud's version.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], true);
        self.write_streams(&mut text);
        self.write_ingest(&mut text);
        self.write_viewers(&mut text);
        self.write_connections(&mut text);
        process(&mut text);
        text.finish()
    }

    fn write_streams(&self, text: &mut Exposition) {
        let mut statuses: BTreeMap<(&str, String), u64> = BTreeMap::new();
        let mut outputs: BTreeMap<&str, u64> = BTreeMap::new();
        for (overview, _) in self.users.keys().filter_map(|name| self.overview(name)) {
            *statuses.entry((overview.stream.kind, overview.stream.status)).or_default() += 1;
            for output in overview.outputs {
                *outputs.entry(output_status(output.status)).or_default() += 1;
            }
        }
        let mut family = text.family("lenscast_cloud_streams", Kind::Gauge, "Streams by status.");
        for (kind, words) in STATUSES {
            for word in words {
                let count = statuses.get(&(kind_name(kind), (*word).to_owned())).copied().unwrap_or(0);
                family.sample(&[("kind", kind_name(kind)), ("status", word)], count);
            }
        }
        let mut family = text.family("lenscast_cloud_streams_started_total", Kind::Counter, "Streams that began.");
        self.counts.begun.write(&mut family, "kind", STATUSES.map(|(kind, _)| kind_name(kind)));
        let mut family = text.family("lenscast_cloud_streams_ended_total", Kind::Counter, "Streams that ended.");
        self.counts.ended.write(&mut family, "cause", causes().chain(END_REASONS));
        let mut family = text.family("lenscast_cloud_restream_outputs", Kind::Gauge, "Restream destinations.");
        for status in [OutputState::Connecting, OutputState::Active, OutputState::Error, OutputState::Stopped] {
            let status = output_status(status);
            family.sample(&[("status", status)], outputs.get(status).copied().unwrap_or(0));
        }
    }

    fn write_ingest(&self, text: &mut Exposition) {
        let mut arrived = self.counts.past;
        for live in self.live.values() {
            arrived.add(&live.broadcast.statistics());
        }
        text.counter("lenscast_cloud_ingest_bytes_total", "Bytes of media received.", arrived.bytes);
        text.family("lenscast_cloud_ingest_frames_total", Kind::Counter, "Pictures and frames of sound received.")
            .sample(&[("media", "video")], arrived.pictures)
            .sample(&[("media", "audio")], arrived.sounds);
        text.counter("lenscast_cloud_publications_total", "Publications that began.", self.counts.publications);
        let mut family =
            text.family("lenscast_cloud_publications_ended_total", Kind::Counter, "Publications that ended.");
        self.counts.publications_ended.write(&mut family, "reason", Stop::NAMES);
        text.counter(
            "lenscast_cloud_publishers_refused_total",
            "Publishers refused because no stream has their key.",
            self.services.ingest.refused(),
        );
    }

    fn write_viewers(&self, text: &mut Exposition) {
        let services = &self.services;
        let (mut http, mut webrtc) = (0, 0);
        for live in self.live.values() {
            http += live.http_viewers(services);
            webrtc += live.webrtc_viewers(services);
        }
        text.family("lenscast_cloud_viewers", Kind::Gauge, "People watching now, over HLS and DASH or over WebRTC.")
            .sample(&[("kind", "http")], http)
            .sample(&[("kind", "webrtc")], webrtc);
        let served = services.playback.served();
        let mut family = text.family("lenscast_cloud_playback_files_total", Kind::Counter, "Files sent to players.");
        for (kind, count) in served.files() {
            family.sample(&[("kind", kind)], count);
        }
        text.counter("lenscast_cloud_playback_bytes_total", "Bytes of files sent to players.", served.bytes());
        let sessions = services.whep.sessions();
        text.family("lenscast_cloud_whep_offers_total", Kind::Counter, "Offers of WebRTC viewers.")
            .sample(&[("outcome", "agreed")], sessions.agreed.get())
            .sample(&[("outcome", "refused")], sessions.refused.get());
        text.counter("lenscast_cloud_thumbnails_total", "Thumbnails made.", services.thumbnails.made());
    }

    fn write_connections(&self, text: &mut Exposition) {
        let apps: usize = self.users.values().map(|user| user.apps.len()).sum();
        let glasses = self.users.values().filter(|user| user.devices.present().is_some()).count();
        let persons = self.users.values().filter(|user| user.machine.has_app(PERSON)).count();
        text.family(
            "lenscast_cloud_connected",
            Kind::Gauge,
            "Connected apps and glasses, and users with a stream started by lenscastctl.",
        )
        .sample(&[("kind", "app")], apps)
        .sample(&[("kind", "glasses")], glasses)
        .sample(&[("kind", "person")], persons);
        let traffic = &self.services.traffic;
        text.gauge("lenscast_cloud_http_connections", "HTTP connections, WebSockets included.", traffic.open());
        let mut family = text.family("lenscast_cloud_http_answers_total", Kind::Counter, "HTTP answers.");
        for (class, count) in traffic.answers() {
            family.sample(&[("class", class)], count);
        }
        let outcomes = |text: &mut Exposition, name, help, tally: &Tally, known: &[&'static str]| {
            tally.write(&mut text.family(name, Kind::Counter, help), "outcome", known.iter().copied());
        };
        let help = "Calls of apps' webhooks, for starts and stops.";
        outcomes(text, "lenscast_cloud_webhooks_total", help, &self.launcher.outcomes(), webhook::OUTCOMES);
        let help = "Requests for photos, by outcome.";
        outcomes(text, "lenscast_cloud_photos_total", help, &self.photos.outcomes(), photos::OUTCOMES);
    }
}
