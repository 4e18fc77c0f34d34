//! One attempt to publish: connect, publish, carry media, and notice when it no longer arrives.
//!
//! `appsrc ! rtmp2sink`, thrown away after the attempt. That the server accepted the publication shows by an event
//! that we send behind the metadata: it reaches rtmp2sink's pad only after the metadata was taken, which waits for the
//! server. Then the gate opens with a fresh key frame. `Flowing` is said only when the server's kernel has
//! acknowledged media and nothing speaks against its process reading; it is said again after each pause or reopening of
//! the camera.
//!
//! rtmp2sink, not the older rtmpsink: that one is librtmp, which blocks in its own sockets without a deadline, shows
//! no socket to watch and writes its own words to stderr, key included.

mod attempt;
mod intake;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::feed::Feed;

use attempt::run;
pub use attempt::{Event, Target};
pub use intake::Counters;
use intake::Intake;

/// A running attempt. Dropping it without [`Publisher::close`] leaves the task to end by itself when it next looks.
#[derive(Debug)]
pub struct Publisher {
    intake: Arc<Intake>,
    close: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Begins an attempt. Its events come tagged with `attempt`.
    pub fn open(attempt: u32, target: Target, feed: Arc<Feed>, events: mpsc::Sender<(u32, Event)>) -> Self {
        let intake = Arc::new(Intake::new(feed));
        let (close, closed) = oneshot::channel();
        let task = tokio::spawn(run(attempt, target, intake.clone(), closed, events));
        Self { intake, close: Some(close), task }
    }

    /// Ends it politely: what the gate let through still goes out. `Closed` follows within the farewell's limit and
    /// the teardown's. Asking twice changes nothing.
    pub fn close(&mut self) {
        drop(self.close.take()); // the dropped sender is the message
    }

    /// Has the kernel hold no more than so many bytes; see [`super::socket::Connection::bound_send_buffer`].
    pub fn bound_send_buffer(&self, bytes: u32) {
        if let Some(socket) = self.intake.socket.get() {
            socket.bound_send_buffer(bytes);
        }
    }

    /// What went out so far.
    pub fn counters(&self) -> Counters {
        self.intake.counters()
    }

    /// Waits for the end.
    pub async fn join(self) {
        let _ = self.task.await;
    }
}
