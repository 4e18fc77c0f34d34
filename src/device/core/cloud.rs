//! Messages of phone or cloud, and what they are told. After each break of the link they get the whole state first,
//! then the ends they missed.

use std::time::{SystemTime, UNIX_EPOCH};

use super::stream::Origin;
use super::{Core, Effect, Remembered, UNTOLD_ENDS, Waiting};
use crate::policy::Time;
use crate::policy::arbiter::{Claim, Event as ArbiterEvent};
use crate::policy::stream::Event;
use crate::protocol::command::{self, Command, Incoming};
use crate::protocol::control::{Answer, Refusal, Reply};
use crate::protocol::{Cause, Metrics, StreamReport, StreamState, photo, report};

/// How many message ids are kept to recognise what is sent twice.
const SEEN_MESSAGES: usize = 64;
/// Photos that the link may have asked for at a time.
const MOST_PHOTOS: usize = 8;
/// Measurements come every second; links are told every second one (protocol facts B1: 2 s).
const METRICS_EVERY: u64 = 2;

impl Core {
    pub(super) fn cloud_up(&mut self, now: Time) {
        self.cloud_up = true;
        let snapshot = report::snapshot(&self.state(now), self.dialect);
        self.tell(snapshot.to_string());
        for message in std::mem::take(&mut self.untold_ends) {
            self.tell(message);
        }
        self.stream_event(Event::LinkUp, now);
    }

    pub(super) fn cloud_down(&mut self, now: Time) {
        self.counts.link_losses += u64::from(std::mem::replace(&mut self.cloud_up, false));
        self.stream_event(Event::LinkDown, now);
    }

    pub(super) fn cloud_message(&mut self, text: &str, now: Time) {
        match command::parse(text) {
            Ok(incoming) => {
                if self.acknowledge(incoming.message_id) {
                    self.obey(incoming, now);
                }
            }
            Err(error) => {
                tracing::warn!(cause = %error.cause, %error, "message from the link refused");
                self.counts.messages_refused.count(error.cause.name());
                if self.acknowledge(error.message_id) {
                    self.dialect = error.dialect;
                    self.tell(report::rejected(&error).to_string());
                }
            }
        }
    }

    /// Acknowledges a message that asks for it; false for one that came before.
    fn acknowledge(&mut self, message_id: Option<i64>) -> bool {
        let Some(id) = message_id else { return true };
        self.tell(report::msg_ack(id, timestamp_ms()).to_string());
        if self.seen_messages.contains(&id) {
            return false;
        }
        if self.seen_messages.len() == SEEN_MESSAGES {
            self.seen_messages.pop_front();
        }
        self.seen_messages.push_back(id);
        true
    }

    fn obey(&mut self, Incoming { dialect, command, .. }: Incoming, now: Time) {
        if !matches!(command, Command::Photo { .. } | Command::Ping | Command::Unknown { .. }) {
            self.dialect = dialect;
        }
        match command {
            Command::Start(start) => {
                let request = self.next_request();
                self.ask_for_stream(request, start, Origin::Cloud(dialect), now);
            }
            Command::Stop { stream_id, app } => self.cloud_stop(stream_id.as_deref(), &app, now),
            Command::GetStatus => {
                let snapshot = report::snapshot(&self.state(now), dialect);
                self.tell(snapshot.to_string());
            }
            Command::KeepAlive { stream_id, ack_id } => {
                if self.stream.as_ref().is_some_and(|stream| stream.start.stream_id == stream_id) {
                    self.counts.keep_alives += 1;
                    self.stream_event(Event::KeepAlive, now);
                    self.tell(report::keep_alive_ack(&stream_id, &ack_id, timestamp_ms()).to_string());
                } else {
                    self.counts.stray_keep_alives += 1;
                    self.tell(report::unknown_stream(&stream_id, dialect, report::Asked::KeepAlive).to_string());
                }
            }
            Command::Photo { request_id, app } => self.cloud_photo(request_id, app, now),
            Command::Ping => self.tell(report::pong().to_string()),
            Command::Unknown { kind } => tracing::debug!(kind, "message for somebody else"),
        }
    }

    /// Without an id, the link stops what it started; with one, that stream, if it is the link's.
    fn cloud_stop(&mut self, stream_id: Option<&str>, app: &str, now: Time) {
        let asked = stream_id.filter(|id| !id.is_empty());
        match &self.stream {
            Some(stream)
                if asked.is_none_or(|id| id == stream.start.stream_id) && matches!(stream.origin, Origin::Cloud(_)) =>
            {
                self.stop_stream(Cause::Requested, now);
            }
            _ => {
                if self.withdraw_doubted_of_link(asked) {
                    return;
                }
                tracing::info!(stream_id = asked, app, "stop for a stream that the link does not have");
                let message = report::unknown_stream(asked.unwrap_or(""), self.dialect, report::Asked::Stop);
                self.tell(message.to_string());
            }
        }
    }

    fn cloud_photo(&mut self, name: String, app: String, now: Time) {
        if self.cloud_photos.values().any(|known| *known == name) {
            return; // asked twice, answered once
        }
        if self.cloud_photos.len() == MOST_PHOTOS {
            let message = "too many photos are being taken".into();
            let refusal = Refusal { cause: Cause::CameraBusy, message, owner: None };
            self.counts.photos_failed.count(refusal.cause.name());
            return self.tell(photo::failure(&name, &refusal).to_string());
        }
        let request = self.next_request();
        self.cloud_photos.insert(request, name);
        self.waiting.insert(request, Waiting::Photo { connection: None });
        self.arbitrate(ArbiterEvent::Ask { request, claim: Claim::Photo { app } }, now);
    }

    /// The answer to the link's request for a photo.
    pub(super) fn tell_photo(&mut self, name: &str, reply: Reply) {
        let refusal = match reply {
            Ok(Answer::Photo(jpeg)) => match photo::frame(name, &jpeg) {
                Some(frame) if self.cloud_up => return self.effects.push(Effect::SendPhoto(frame)),
                Some(_) => return,
                None => Refusal { message: "the photo is too large for the link".into(), ..Cause::Internal.into() },
            },
            Ok(_) => Cause::Internal.into(),
            Err(refusal) => refusal,
        };
        self.tell(photo::failure(name, &refusal).to_string());
    }

    pub(super) fn measured(&mut self, metrics: Metrics) {
        self.metrics = metrics;
        self.measured += 1;
        let Some(stream) = &self.stream else { return };
        if let Origin::Cloud(dialect) = stream.origin
            && stream.life.state() == StreamState::Streaming
            && self.measured.is_multiple_of(METRICS_EVERY)
        {
            let board = self.board_snapshot();
            let message = report::metrics(&self.metrics, &board, &stream.start.stream_id, dialect).to_string();
            self.tell(message);
        }
    }

    /// Sends what is of use now or never.
    pub(super) fn tell(&mut self, message: String) {
        if self.cloud_up {
            self.effects.push(Effect::Send(message));
        }
    }

    /// Sends a stream's end, or keeps it until the link is back.
    pub(super) fn tell_end(&mut self, message: String) {
        if self.cloud_up {
            return self.tell(message);
        }
        if self.untold_ends.len() == UNTOLD_ENDS {
            self.untold_ends.pop_front();
        }
        self.untold_ends.push_back(message);
    }

    /// The stream of a predecessor that ended without a word.
    pub(super) fn tell_left_over(&mut self, left_over: &Remembered) {
        let end = StreamReport {
            state: StreamState::Stopped,
            cause: Some(Cause::DaemonRestarted),
            attempt: 0,
            max_attempts: None,
            retry_in: None,
            reconnected: false,
        };
        self.tell_end(report::status(&end, &left_over.stream_id, left_over.dialect).to_string());
        self.effects.push(Effect::Remember(None));
    }
}

/// Wall-clock milliseconds, as the wire wants them; nothing is decided by them.
fn timestamp_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
