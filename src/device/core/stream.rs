//! A stream: as it was asked for, and as it lives.

use super::camera::StreamNeed;
use super::rate::Rate;
use crate::link::LinkId;
use crate::media::flv::Metadata;
use crate::media::publisher;
use crate::policy::arbiter::{LeaseId, RequestId};
use crate::policy::camera::CaptureSettings;
use crate::policy::stream::Stream;
use crate::protocol::command::{Dialect, StartStream};
use crate::protocol::{Metrics, StreamSnapshot};

/// A stream that was asked for.
#[derive(Debug)]
pub struct Asked {
    pub start: StartStream,
    pub origin: Origin,
    /// A stream of the previous process: how many processes in a row crashed during it.
    pub crashes: Option<u32>,
}

/// Who asked for a stream, and is told about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// That link, in this dialect.
    Link(LinkId, Dialect),
    /// A client of the control socket.
    Control(RequestId),
}

impl Origin {
    /// The link, if it is one.
    pub fn link(self) -> Option<LinkId> {
        match self {
            Self::Link(link, _) => Some(link),
            Self::Control(_) => None,
        }
    }
}

/// The stream that lives.
#[derive(Debug)]
pub struct Active {
    pub life: Stream,
    pub lease: LeaseId,
    pub start: StartStream,
    pub origin: Origin,
    /// A control request that waits to hear whether the start came to anything.
    pub unanswered: Option<RequestId>,
    /// Control requests that wait for its end.
    pub stoppers: Vec<RequestId>,
    pub publications: u32,
    /// Its attempts count from 1, the daemon's publishers on from this number: one that is slow to end is never taken for a
    /// publisher of the next stream.
    pub publishers_before: u32,
    /// The wearer heard that it is live.
    pub heard: bool,
    /// How many processes in a row crashed during it.
    pub crashes: u32,
    /// What the encoder makes.
    pub rate: Rate,
}

impl Active {
    pub fn snapshot(&self, metrics: &Metrics) -> StreamSnapshot {
        StreamSnapshot {
            stream_id: self.start.stream_id.clone(),
            app: self.start.app.clone(),
            kind: self.start.kind,
            state: self.life.state(),
            failure: self.life.failure().cloned(),
            url: self.start.url.to_string(),
            attempt: self.life.attempt(),
            publications: self.publications,
            metrics: metrics.clone(),
        }
    }

    pub fn need(&self) -> StreamNeed {
        StreamNeed {
            lease: self.lease,
            settings: CaptureSettings { video: self.start.video, audio: self.start.audio },
            bitrate: self.rate.decision().bitrate,
        }
    }

    pub fn target(&self, sound: bool) -> publisher::Target {
        let (video, audio) = (&self.start.video, &self.start.audio);
        publisher::Target {
            url: self.start.url.clone(),
            metadata: Metadata {
                width: video.width,
                height: video.height,
                frame_rate: f64::from(video.frame_rate),
                video_bitrate: video.bitrate,
                audio: sound.then_some((audio.bitrate, audio.sample_rate)),
            },
        }
    }
}
