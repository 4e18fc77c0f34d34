//! What phone, cloud and the control socket's clients command: each command is brought to the parts that it is about.

use super::claims::Purpose;
use super::control::{DEFAULT_APP, read_start};
use super::links::timestamp_ms;
use super::stream::Origin;
use super::{Core, Effect};
use crate::link::LinkId;
use crate::link::control::Peer;
use crate::policy::Time;
use crate::policy::arbiter::{Claim, RequestId};
use crate::policy::stream::StreamEvent;
use crate::protocol::command::{Command, Dialect, Incoming, StartStream};
use crate::protocol::control::{Answer, Holder, Refusal, Request};
use crate::protocol::{Cause, report};

impl Core {
    pub(super) fn obey(&mut self, link: LinkId, Incoming { dialect, command, .. }: Incoming, now: Time) {
        let undirected = [Command::Ping, Command::PhoneReady].contains(&command);
        if !undirected && !matches!(command, Command::Photo { .. } | Command::Unknown { .. }) {
            self.links.speaks(link, dialect);
        }
        match command {
            Command::Start(start) => {
                let request = self.next_request();
                self.ask_for_stream(request, start, Origin::Link(link, dialect), now);
            }
            Command::Stop { stream_id, app } => self.link_stop(link, stream_id.as_deref(), &app, now),
            Command::GetStatus => self.tell_snapshot(link, dialect, now),
            Command::KeepAlive { stream_id, ack_id } => self.keep_alive(link, dialect, &stream_id, &ack_id, now),
            Command::Photo { request_id, app } if link == LinkId::Cloud => {
                if self.links.may_ask_for_photo(&request_id, &mut self.out) {
                    let request = self.next_request();
                    self.links.asked_for_photo(request, request_id);
                    self.ask(request, Claim::Photo { app }, Purpose::Photo { connection: None }, now);
                }
            }
            Command::Photo { request_id, .. } => {
                let message = "a serial line carries no photos".into();
                let refusal = Refusal { cause: Cause::InvalidRequest, message, owner: None };
                self.links.refuse_photo(link, &request_id, &refusal, &mut self.out);
            }
            Command::Ping => self.links.tell(link, report::pong().to_string(), &mut self.out),
            Command::PhoneReady => {
                self.links.tell(link, report::glasses_ready(timestamp_ms()).to_string(), &mut self.out);
                // The phone's app began anew, and knows nothing.
                self.tell_snapshot(link, self.links.dialect(link), now);
            }
            Command::Unknown { kind } => tracing::debug!(kind, "message for somebody else"),
        }
    }

    fn keep_alive(&mut self, link: LinkId, dialect: Dialect, stream_id: &str, ack_id: &str, now: Time) {
        let message = if self.streams.active().is_some_and(|stream| stream.start.stream_id == stream_id) {
            self.out.counts.keep_alives += 1;
            self.stream_event(StreamEvent::KeepAlive, now);
            report::keep_alive_ack(stream_id, ack_id, timestamp_ms())
        } else {
            self.out.counts.stray_keep_alives += 1;
            report::unknown_stream(stream_id, dialect, report::Asked::KeepAlive)
        };
        self.links.tell(link, message.to_string(), &mut self.out);
    }

    /// Without an id, a link stops what it started; with one, that stream, if a link started it.
    fn link_stop(&mut self, link: LinkId, stream_id: Option<&str>, app: &str, now: Time) {
        let asked = stream_id.filter(|id| !id.is_empty());
        let meant = |origin: Origin, start: &StartStream| {
            origin.link().is_some_and(|of| asked.map_or(of == link, |id| id == start.stream_id))
        };
        // What waits first: the end of what runs would begin it.
        let withdrawn = self.withdraw_starts(Cause::Requested, |waiting| meant(waiting.origin, &waiting.start), now);
        if self.streams.active().is_some_and(|stream| meant(stream.origin, &stream.start)) {
            self.stream_event(StreamEvent::Stop(Cause::Requested), now);
        } else if !withdrawn {
            tracing::info!(stream_id = asked, app, "stop for a stream that the link does not have");
            let message = report::unknown_stream(asked.unwrap_or(""), self.links.dialect(link), report::Asked::Stop);
            self.links.tell(link, message.to_string(), &mut self.out);
        }
    }

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
                    self.out.counts.refused.count(refusal.cause.name());
                    self.out.reply(request, Err(refusal));
                }
            },
            Request::Stop { stream_id } => self.control_stop(request, stream_id.as_deref(), now),
            Request::Bitrate { bitrate } => match self.streams.limit_bitrate(bitrate, now) {
                Some(what) => {
                    self.camera.encode(what, &mut self.out);
                    self.out.reply(request, Ok(Answer::Done));
                }
                None => self.out.reply(request, Err(no_stream())),
            },
            Request::Photo { app } => {
                let claim = Claim::Photo { app: app.unwrap_or_else(|| DEFAULT_APP.into()) };
                self.ask(request, claim, Purpose::Photo { connection: Some(connection) }, now);
            }
            Request::CameraAcquire { program } => {
                let program = program.unwrap_or_else(|| peer.program.clone());
                let claim = Claim::Process { pid: peer.pid, program: program.clone() };
                self.ask(request, claim, Purpose::Process { connection, program }, now);
            }
            Request::CameraRelease => {
                let outcomes = self.camera.release(connection);
                self.after_camera(outcomes, now);
                self.out.reply(request, Ok(Answer::Done));
            }
            Request::CameraWho => {
                let owner = self.claims.owner(now);
                self.out.reply(request, Ok(Answer::Holder(Holder { owner })));
            }
            // Served by the link, or by the task, which may ask devices.
            Request::Status | Request::Watch | Request::CameraList | Request::Doctor => {
                self.out.push(Effect::Reply(request, Err(Cause::Internal.into())));
            }
        }
    }

    fn control_stop(&mut self, request: RequestId, stream_id: Option<&str>, now: Time) {
        let meant = |start: &StartStream| stream_id.is_none_or(|id| start.stream_id == id);
        // What waits first: the end of what runs would begin it.
        let withdrawn = self.withdraw_starts(Cause::Requested, |waiting| meant(&waiting.start), now);
        match self.streams.active() {
            Some(stream) if meant(&stream.start) => {
                self.streams.answer_at_end(request);
                self.stream_event(StreamEvent::Stop(Cause::Requested), now);
            }
            _ if withdrawn => self.out.reply(request, Ok(Answer::Done)),
            Some(_) => self.out.reply(request, Err(Cause::UnknownStream.into())),
            None => self.out.reply(request, Err(no_stream())),
        }
    }

    /// A client of the control socket is gone, and with it what it was lent and what it waits for.
    pub(super) fn connection_closed(&mut self, connection: u64, now: Time) {
        let outcomes = self.camera.release(connection);
        self.after_camera(outcomes, now);
        let theirs = |purpose: &Purpose| match purpose {
            Purpose::Photo { connection: of } => *of == Some(connection),
            Purpose::Process { connection: of, .. } => *of == connection,
            Purpose::Stream(_) => false,
        };
        self.claims.withdraw(theirs, now);
    }
}

fn no_stream() -> Refusal {
    Refusal { cause: Cause::UnknownStream, message: "no stream is running".into(), owner: None }
}
