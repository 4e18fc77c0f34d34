//! Requests of the control socket's clients: `lenscastctl`, scripts, other programs that want the camera.

use std::time::Duration;

use serde_json::json;

use super::stream::Origin;
use super::{Core, Waiting};
use crate::link::control::Peer;
use crate::policy::Time;
use crate::policy::arbiter::{Claim, Event, RequestId};
use crate::protocol::control::{Answer, Holder, Refusal, Request, Start};
use crate::protocol::{AudioSettings, Cause, SettingsError, StartStream, StreamKind, StreamUrl, VideoSettings};

/// The app a stream runs for when a client does not say: a person at the keyboard.
const DEFAULT_APP: &str = "lenscastctl";

impl Core {
    pub(super) fn control_request(
        &mut self,
        request: RequestId,
        connection: u64,
        peer: &Peer,
        what: Request,
        now: Time,
    ) {
        match what {
            Request::Start(start) => match read_start(start) {
                Ok(start) => self.ask_for_stream(request, start, Origin::Control(request), now),
                Err(refusal) => {
                    self.counts.refused.count(refusal.cause.name());
                    self.reply(request, Err(refusal));
                }
            },
            Request::Stop { stream_id } => self.control_stop(request, stream_id.as_deref(), now),
            Request::Bitrate { bitrate } => self.change_bitrate(request, bitrate, now),
            Request::Photo { app } => {
                self.waiting.insert(request, Waiting::Photo { connection: Some(connection) });
                let claim = Claim::Photo { app: app.unwrap_or_else(|| DEFAULT_APP.into()) };
                self.arbitrate(Event::Ask { request, claim }, now);
            }
            Request::CameraAcquire { program } => {
                let program = program.unwrap_or_else(|| peer.program.clone());
                self.waiting.insert(request, Waiting::Process { connection, program: program.clone() });
                let claim = Claim::Process { pid: peer.pid, program };
                self.arbitrate(Event::Ask { request, claim }, now);
            }
            Request::CameraRelease => {
                self.release_processes(now, |process| process.connection == connection);
                self.reply(request, Ok(Answer::Done));
            }
            Request::CameraWho => {
                let owner = self.arbiter.owner(now);
                self.reply(request, Ok(Answer::Holder(Holder { owner })));
            }
            // Served by the link, or by the task, which may ask devices.
            Request::Status | Request::Watch | Request::CameraList | Request::Doctor => {
                self.reply(request, Err(Cause::Internal.into()));
            }
        }
    }

    fn control_stop(&mut self, request: RequestId, stream_id: Option<&str>, now: Time) {
        let meant = |start: &StartStream| stream_id.is_none_or(|id| start.stream_id == id);
        // What waits first: the end of what runs would begin it.
        let withdrawn = self.withdraw_starts(Cause::Requested, |waiting| meant(&waiting.start), now);
        match &self.stream {
            Some(stream) if meant(&stream.start) => self.stop_stream_for(request, now),
            _ if withdrawn => self.reply(request, Ok(Answer::Done)),
            Some(_) => self.reply(request, Err(Cause::UnknownStream.into())),
            None => self.reply(request, Err(no_stream())),
        }
    }

    fn change_bitrate(&mut self, request: RequestId, bitrate: u32, now: Time) {
        let Some(stream) = &mut self.stream else {
            return self.reply(request, Err(no_stream()));
        };
        let bitrate = VideoSettings::clamp_bitrate(bitrate);
        stream.start.video.bitrate = bitrate;
        if let Some(open) = &mut self.capture.open {
            open.video.bitrate = bitrate; // the same capture still: nothing has to be reopened
        }
        let what = stream.rate.limit(bitrate, now);
        self.encode(what);
        self.reply(request, Ok(Answer::Done));
    }

    pub(super) fn connection_closed(&mut self, connection: u64, now: Time) {
        self.release_processes(now, |process| process.connection == connection);
        let theirs = |waiting: &Waiting| match waiting {
            Waiting::Photo { connection: of } => *of == Some(connection),
            Waiting::Process { connection: of, .. } => *of == connection,
            Waiting::Stream(_) => false,
        };
        let gone: Vec<RequestId> =
            self.waiting.extract_if(|_, waiting| theirs(waiting)).map(|(request, _)| request).collect();
        for request in gone {
            self.arbitrate(Event::Withdraw { request }, now);
        }
    }

    /// Whoever was granted something never heard of it.
    pub(super) fn take_back(&mut self, request: RequestId, now: Time) {
        self.release_processes(now, |process| process.request == request);
    }
}

fn no_stream() -> Refusal {
    Refusal { cause: Cause::UnknownStream, message: "no stream is running".into(), owner: None }
}

fn read_start(start: Start) -> Result<StartStream, Refusal> {
    let url = StreamUrl::parse(&start.url).map_err(|error| Refusal {
        cause: error.cause(),
        message: error.to_string(),
        owner: None,
    })?;
    for id in [&start.app, &start.stream_id].into_iter().flatten() {
        if id.chars().count() > 256 || id.chars().any(char::is_control) {
            let message = "app and stream_id take at most 256 characters and no control characters".into();
            return Err(Refusal { cause: Cause::InvalidRequest, message, owner: None });
        }
    }
    // By way of the parser of the other hop, so that there is one place for defaults and clamps.
    let unreadable =
        |error: SettingsError| Refusal { cause: Cause::InvalidRequest, message: error.to_string(), owner: None };
    let video = VideoSettings::parse(&json!(start.video)).map_err(unreadable)?;
    let audio = AudioSettings::parse(&json!(start.audio)).map_err(unreadable)?;
    Ok(StartStream {
        url,
        stream_id: start.stream_id.unwrap_or_else(|| format!("c{:08x}", fastrand::u32(..))),
        app: start.app.unwrap_or_else(|| DEFAULT_APP.into()),
        kind: start.kind.unwrap_or(StreamKind::Unmanaged),
        video,
        audio,
        duration_limit: start.duration_s.filter(|&seconds| seconds > 0).map(Duration::from_secs),
        flash: true,
        sound: true,
    })
}
