//! What a stream is told and what it says.

use std::time::Duration;

use crate::protocol::{Cause, Failure, StreamReport, StreamState};

/// What a stream was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ends the stream when no media went through for so long; `None`: never.
    pub give_up_after: Option<Duration>,
    /// Ends the stream when it streams so long without keep-alive. `None`: it has no id, or none are wanted.
    pub keep_alive_timeout: Option<Duration>,
    /// False on links known to fail one way: missing keep-alives then end nothing.
    pub stop_on_keep_alive_loss: bool,
    /// Ends the stream when the link is down for so long, 0 at once. `None`: the link plays no part.
    pub link_loss_grace: Option<Duration>,
    /// How long the RTMP connection is kept while the camera is gone.
    pub camera_hold: Duration,
    /// Ends the stream that long after it first streamed.
    pub duration_limit: Option<Duration>,
    /// Decides the jitter of retries.
    pub seed: u64,
    /// It streamed before, by a process that is gone: this begins with an outage, cause `daemon_restarted`.
    pub resumed: bool,
}

/// What happens to the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The camera gives encoded frames.
    CameraRunning,
    /// It does not, and is being tried again.
    CameraLost(Failure),
    /// This stream cannot have it.
    CameraFailed(Failure),
    /// Media was acked and the server's process reads. Said anew after each interruption of the frames.
    PublisherFlowing {
        /// Which publisher.
        attempt: u32,
    },
    /// That publisher failed; the media side closes it without being asked.
    PublisherLost {
        /// Which publisher.
        attempt: u32,
        /// Why.
        failure: Failure,
    },
    /// That publisher is gone.
    PublisherClosed {
        /// Which publisher.
        attempt: u32,
    },
    /// A keep-alive for this stream arrived.
    KeepAlive,
    /// The link that started it is back.
    LinkUp,
    /// The link that started it is lost.
    LinkDown,
    /// Somebody decided to end it.
    Stop(Cause),
    /// The deadline has come.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the server and send what the camera gives.
    OpenPublisher {
        /// Counts up over the stream's life, from 1.
        attempt: u32,
    },
    /// Close that publisher and say `PublisherClosed`.
    ClosePublisher {
        /// Which publisher.
        attempt: u32,
    },
    /// Tell whoever directs and watches the stream. Each differs from the one before.
    Report(StreamReport),
    /// The last action of all.
    End {
        /// `Stopped` or `Error`.
        state: StreamState,
        /// Why.
        failure: Failure,
    },
}
