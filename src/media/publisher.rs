//! One attempt to publish: connect, publish, carry media, and notice when it no longer arrives.
//!
//! `appsrc ! rtmp2sink`, thrown away after the attempt. An event that follows the metadata shows that the server
//! accepted the publication: it reaches rtmp2sink's pad only after the metadata was taken, which waits for the server.
//! Then the gate opens with a fresh key frame. `Flowing` is reported only when the server's kernel has acknowledged
//! media and nothing suggests that its process does not read; it is reported again after each pause or reopening of
//! the camera.
//!
//! The older rtmpsink is no choice: it uses librtmp, which blocks in its own sockets without a deadline, exposes no
//! socket to watch and writes to stderr, key included.

mod attempt;
mod intake;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::feed::Feed;

use attempt::run;
pub use attempt::{PublisherEvent, Target};
pub use intake::Counters;
use intake::Intake;

/// A running attempt. If it is dropped without [`Publisher::close`], its task ends by itself at its next check.
#[derive(Debug)]
pub struct Publisher {
    intake: Arc<Intake>,
    close: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Begins an attempt. Its events are tagged with `attempt`.
    pub fn open(attempt: u32, target: Target, feed: Arc<Feed>, events: mpsc::Sender<(u32, PublisherEvent)>) -> Self {
        let intake = Arc::new(Intake::new(feed));
        let (close, closed) = oneshot::channel();
        let task = tokio::spawn(run(attempt, target, intake.clone(), closed, events));
        Self { intake, close: Some(close), task }
    }

    /// Ends the attempt politely: what the gate let through still goes out. `Closed` follows within the limits of the
    /// farewell and the teardown. A second call changes nothing.
    pub fn close(&mut self) {
        drop(self.close.take()); // the dropped sender is the message
    }

    /// Limits the bytes that the kernel holds; see [`super::socket::Connection::bound_send_buffer`].
    pub fn bound_send_buffer(&self, bytes: u32) {
        if let Some(socket) = self.intake.socket.get() {
            socket.bound_send_buffer(bytes);
        }
    }

    /// Counts and state of the connection so far.
    pub fn counters(&self) -> Counters {
        self.intake.counters()
    }

    /// Waits for the end.
    pub async fn join(self) {
        let _ = self.task.await;
    }
}
