//! A managed stream's media: opened at all services at once, watched, and closed at all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::http_server::Traffic;
use super::opus_feed::OpusFeed;
use super::restream::Restream;
use super::thumbnails::Thumbnails;
use crate::broadcast::{Bounds, Broadcast};
use crate::ingest::Ingest;
use crate::playback::{self, Playback};
use crate::protocol::Secret;
use crate::protocol::app::{Destination, Output};
use crate::whep::Whep;

/// The services that carry media, shared by all streams.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) ingest: Ingest,
    pub(super) playback: Playback,
    pub(super) whep: Whep,
    pub(super) thumbnails: Thumbnails,
    pub(super) traffic: Arc<Traffic>,
    /// How far back viewers can go.
    pub(super) dvr: Duration,
}

impl Services {
    /// Ends what the services are still doing.
    pub(super) async fn close(&self) {
        self.whep.shut_down().await;
        self.playback.shutdown().await;
    }
}

/// A change in a stream's media.
#[derive(Debug)]
pub(super) enum News {
    /// A segment of this publication is ready to play.
    Playable { stream_id: String, publication: u64, width: u32, height: u32 },
    /// The status of every restream destination.
    Outputs { stream_id: String, outputs: Vec<Output> },
}

impl News {
    pub(super) fn stream_id(&self) -> &str {
        match self {
            Self::Playable { stream_id, .. } | Self::Outputs { stream_id, .. } => stream_id,
        }
    }
}

pub(super) struct Live {
    pub(super) user: String,
    pub(super) broadcast: Broadcast,
    /// The current publication at ingest, 0 before the first.
    pub(super) publication: u64,
    pub(super) playback: String,
    restream: Option<(Restream, JoinHandle<()>)>,
    watching: JoinHandle<()>,
    bytes: u64,
}

impl Live {
    #[allow(clippy::too_many_arguments, reason = "an Open action's fields")]
    pub(super) fn open(
        services: &Services,
        user: String,
        stream_id: &str,
        key: &Secret,
        playback: String,
        webrtc: bool,
        destinations: Vec<Destination>,
        news: mpsc::Sender<News>,
    ) -> Self {
        let broadcast = Broadcast::new(Bounds::default());
        services.ingest.open(key, stream_id, broadcast.clone());
        let options = playback::Options::with_window(services.dvr);
        let state = services.playback.open(&playback, &broadcast, options);
        services.thumbnails.open(&playback, &broadcast);
        if webrtc {
            services.whep.open(&playback, &broadcast, Some(OpusFeed::new(&broadcast)));
        }
        let restream = (!destinations.is_empty()).then(|| {
            let (outputs, changes) = mpsc::channel(1);
            let telling = tokio::spawn(tell_outputs(stream_id.to_owned(), changes, news.clone()));
            (Restream::start(&broadcast, destinations, outputs), telling)
        });
        let watching = tokio::spawn(watch(stream_id.to_owned(), broadcast.clone(), state, news));
        Self { user, broadcast, publication: 0, playback, restream, watching, bytes: 0 }
    }

    /// Refuses its publisher, and ends the stream for its viewers.
    pub(super) fn close(self, services: &Services, stream_id: &str, farewells: &mut JoinSet<()>) {
        services.ingest.close(stream_id);
        services.whep.close(&self.playback);
        services.thumbnails.close(&self.playback);
        services.playback.close(&self.playback);
        farewells.spawn(self.let_go());
    }

    /// Ends its own tasks. Restream destinations are closed politely, which may take a few seconds.
    pub(super) async fn let_go(self) {
        let Self { restream, watching, .. } = self;
        watching.abort();
        let _ = watching.await; // aborted is what it is to be
        if let Some((restream, telling)) = restream {
            restream.stop().await;
            let _ = telling.await; // ends with the restream; a panic in it has been reported
        }
    }

    /// Whether media arrived since the last call.
    pub(super) fn has_moved(&mut self) -> bool {
        let bytes = self.broadcast.statistics().bytes;
        std::mem::replace(&mut self.bytes, bytes) != bytes
    }

    /// The number of people watching now.
    pub(super) fn viewers(&self, services: &Services) -> u64 {
        (self.http_viewers(services) + self.webrtc_viewers(services)) as u64
    }

    /// The viewers over HLS and DASH.
    pub(super) fn http_viewers(&self, services: &Services) -> usize {
        services.playback.state(&self.playback).map_or(0, |state| state.borrow().viewers)
    }

    /// The viewers over WebRTC.
    pub(super) fn webrtc_viewers(&self, services: &Services) -> usize {
        services.whep.viewers(&self.playback)
    }
}

/// Reports the status of the destinations. Ends with the restream.
async fn tell_outputs(stream_id: String, mut changes: mpsc::Receiver<Vec<Output>>, news: mpsc::Sender<News>) {
    while let Some(outputs) = changes.recv().await {
        if news.send(News::Outputs { stream_id: stream_id.clone(), outputs }).await.is_err() {
            return;
        }
    }
}

/// Reports when each publication is ready to play. Ends with the playback.
async fn watch(
    stream_id: String,
    broadcast: Broadcast,
    mut state: tokio::sync::watch::Receiver<playback::State>,
    news: mpsc::Sender<News>,
) {
    let mut told = 0;
    loop {
        let publication = state.borrow_and_update().publication;
        if publication > told {
            told = publication;
            let size = broadcast.statistics().video.map_or((0, 0), |video| (video.width, video.height));
            let (width, height) = size;
            let item = News::Playable { stream_id: stream_id.clone(), publication, width, height };
            if news.send(item).await.is_err() {
                return;
            }
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
