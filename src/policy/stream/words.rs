//! A stream's events and actions.

use std::time::Duration;

use crate::protocol::{Cause, Failure, StreamReport, StreamState};

/// What a stream was started with.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// Ends the stream when no media went through for this long; `None`: never.
    pub give_up_after: Option<Duration>,
    /// Ends the stream when it streams this long without keep-alive. `None`: it has no id, or keep-alives are not
    /// required.
    pub keep_alive_timeout: Option<Duration>,
    /// False on links known to fail one way: missing keep-alives then do not end the stream.
    pub stop_on_keep_alive_loss: bool,
    /// Ends the stream when the link is down for this long; 0: at once. `None`: the link does not matter.
    pub link_loss_grace: Option<Duration>,
    /// How long the RTMP connection is kept while the camera is gone.
    pub camera_hold: Duration,
    /// Ends the stream this long after it first streamed.
    pub duration_limit: Option<Duration>,
    /// Decides the jitter of retries.
    pub seed: u64,
    /// The stream was begun by an earlier process: this one begins with an outage, cause `daemon_restarted`.
    pub resumed: bool,
}

/// What happens to the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The camera delivers encoded frames.
    CameraRunning,
    /// The camera delivers no frames and is being retried.
    CameraLost(Failure),
    /// The camera is not available to this stream.
    CameraFailed(Failure),
    /// Media was acked and the server's process reads. Reported again after each interruption of the frames.
    PublisherFlowing {
        /// Which publisher.
        attempt: u32,
    },
    /// The publisher failed; the media side closes it without being asked.
    PublisherLost {
        /// Which publisher.
        attempt: u32,
        failure: Failure,
    },
    /// The publisher is gone.
    PublisherClosed {
        /// Which publisher.
        attempt: u32,
    },
    /// A keep-alive for this stream arrived.
    KeepAlive,
    /// The link that started the stream is back.
    LinkUp,
    /// The link that started the stream is lost.
    LinkDown,
    /// The stream's end was decided.
    Stop(Cause),
    /// The deadline has come.
    Tick,
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamAction {
    /// Connect to the server and send what the camera delivers.
    OpenPublisher {
        /// Counts up over the stream's life, from 1.
        attempt: u32,
    },
    /// Close the publisher; it answers with `PublisherClosed`.
    ClosePublisher {
        /// Which publisher.
        attempt: u32,
    },
    /// Tell whoever controls or watches the stream. Each report differs from the one before.
    Report(StreamReport),
    /// The last action.
    End {
        /// `Stopped` or `Error`.
        state: StreamState,
        failure: Failure,
    },
}
