//! The streams that can be watched: the only state that handles share with the owning task. Sessions belong to the task
//! alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::OpusSource;
use crate::broadcast::{Broadcast, Media};

/// An open stream.
pub struct Stream {
    /// Unlike an id, never reused.
    pub number: u64,
    pub broadcast: Broadcast,
    pub opus: Option<Arc<dyn OpusSource>>,
    pub viewers: AtomicUsize,
    /// Closes when the stream is closed.
    pub open: watch::Receiver<()>,
}

/// Why a stream cannot be watched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatchable {
    /// No picture has come yet.
    NotStarted,
    /// Nothing more will come.
    Ended,
    /// It has B-frames, which WebRTC's H.264 cannot carry.
    BFrames,
}

#[derive(Debug, Default)]
pub struct Registry(Mutex<Streams>);

#[derive(Debug, Default)]
struct Streams {
    opened: u64,
    by_id: HashMap<String, (Arc<Stream>, watch::Sender<()>)>,
}

impl Registry {
    pub fn open(&self, id: &str, broadcast: &Broadcast, opus: Option<Arc<dyn OpusSource>>) {
        let mut streams = self.lock();
        streams.opened += 1;
        let (sender, open) = watch::channel(());
        let viewers = AtomicUsize::new(0);
        let stream = Stream { number: streams.opened, broadcast: broadcast.clone(), opus, viewers, open };
        streams.by_id.insert(id.to_owned(), (Arc::new(stream), sender));
    }

    pub fn close(&self, id: &str) {
        self.lock().by_id.remove(id);
    }

    pub fn find(&self, id: &str) -> Option<Arc<Stream>> {
        self.lock().by_id.get(id).map(|(stream, _)| stream.clone())
    }

    pub fn viewers(&self, id: &str) -> usize {
        self.find(id).map_or(0, |stream| stream.viewers.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// The H.264 profile (`profile_idc`), if the stream can be watched.
    pub fn watchable(&self) -> Result<u8, Unwatchable> {
        if self.broadcast.has_ended() {
            return Err(Unwatchable::Ended);
        }
        let format = self.broadcast.statistics().video.ok_or(Unwatchable::NotStarted)?;
        // The record gives the most reordering that is possible. Many encoders leave it out, and never reorder.
        if format.reorder > 0 {
            let mut reader = self.broadcast.reader();
            while let Some(frame) = reader.try_next() {
                if matches!(frame.media, Media::Video { pts, .. } if pts > frame.dts) {
                    return Err(Unwatchable::BFrames);
                }
            }
        }
        Ok(format.sps.get(1).copied().unwrap_or_default())
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("number", &self.number).finish_non_exhaustive()
    }
}
