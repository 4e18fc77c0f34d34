//! What the daemon's state is told, and what it says to do.

use super::{Counts, LeftOver, Remembered};
use crate::board::Reading;
use crate::link::LinkId;
use crate::link::control::Peer;
use crate::media::{capture, chime::Chime, publisher};
use crate::policy::arbiter::RequestId;
use crate::policy::bitrate;
use crate::policy::camera::CaptureSettings;
use crate::protocol::control::{Refusal, Reply, ReportLine, Request};
use crate::protocol::{Failure, Metrics};

/// What happens to the daemon.
#[derive(Debug)]
pub enum Input {
    /// A client of the control socket asks; answered by [`Effect::Reply`].
    Control {
        /// From [`super::Core::next_request`].
        request: RequestId,
        /// Which connection.
        connection: u64,
        /// Who asks.
        peer: Peer,
        /// What is asked.
        what: Request,
    },
    /// The reply could not be delivered: what was granted by it is to be taken back.
    Undeliverable(RequestId),
    /// A connection of the control socket ended.
    ConnectionClosed(u64),
    /// A link is up.
    LinkUp(LinkId),
    /// A link is down.
    LinkDown(LinkId),
    /// A message came over a link.
    LinkMessage(LinkId, String),
    /// The capture of this generation says something.
    Capture(u64, capture::CaptureEvent),
    /// The publisher with this number says something.
    Publisher(u32, publisher::PublisherEvent),
    /// What the network carried the last time, bit/s of video; before the publisher with this number is connected.
    Uplink(u32, u32),
    /// A photo was taken, or why not.
    PhotoTaken(RequestId, Result<Vec<u8>, Refusal>),
    /// The answer to [`Effect::FindCamera`]: the device's node.
    CameraFound(RequestId, Result<String, Refusal>),
    /// How the stream does.
    Measured(Metrics),
    /// How the board does; also the answer to [`Effect::LookAtBoard`].
    Board(Reading),
    /// What the process before this one left.
    LeftOver(LeftOver),
    /// Video devices came or went.
    DevicesChanged,
    /// The next process is to go on with the stream: this one ends without a word.
    HandOver,
    /// The daemon is to end.
    Shutdown,
    /// The deadline is over.
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Open camera and microphone; events come tagged with the generation.
    OpenCapture(u64, CaptureSettings),
    /// Close that capture.
    CloseCapture(u64),
    /// The encoder in use failed: another is to be taken.
    DistrustEncoder(Failure),
    /// Tell the encoder of that capture what to make from now on.
    Encode(u64, bitrate::Decision),
    /// Begin a publication attempt; events come tagged with the number, which is never used again.
    OpenPublisher(u32, publisher::Target),
    /// Have the kernel hold at most this many bytes for that publisher.
    BoundSendBuffer(u32, u32),
    /// End that publisher.
    ClosePublisher(u32),
    /// Take a photo from the running capture.
    TakePhoto(RequestId),
    /// Look at heat, battery and network now.
    LookAtBoard,
    /// Find the camera for a process that leases it.
    FindCamera(RequestId),
    /// Tell the wearer.
    Play(Chime),
    /// Answer a control request.
    Reply(RequestId, Reply),
    /// Tell those who watch.
    Tell(ReportLine),
    /// Send over that link.
    Send(LinkId, String),
    /// Send over the cloud link, as a binary message.
    SendPhoto(Vec<u8>),
    /// Keep in mind what the network carried, bit/s of video; none if it was enough.
    RememberUplink(Option<u32>),
    /// Keep what must outlive the daemon.
    Remember(Option<Box<Remembered>>),
}

/// What leaves the state's parts: what is to be done, and what happened, for the metrics.
#[derive(Debug, Default)]
pub struct Outbox {
    pub effects: Vec<Effect>,
    pub counts: Counts,
}

impl Outbox {
    pub fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub fn reply(&mut self, request: RequestId, reply: Reply) {
        self.push(Effect::Reply(request, reply));
    }
}
