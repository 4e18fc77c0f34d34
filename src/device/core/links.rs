//! Messages of phone and cloud, and what they are told. An answer goes back over the link that the question came by. What
//! becomes of a stream that a link started is told over each that is up, in the dialect it speaks; measurements only over
//! the one that started it, and that one alone is told later what it missed. After a break a link gets the whole state
//! first, then the ends it missed.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use super::stream::Origin;
use super::{Core, Effect, Waiting};
use crate::link::LinkId;
use crate::policy::Time;
use crate::policy::arbiter::{Claim, Event as ArbiterEvent};
use crate::policy::stream::Event;
use crate::protocol::command::{self, Command, Dialect, Incoming, StartStream};
use crate::protocol::control::{Answer, Refusal, Reply};
use crate::protocol::{Cause, Metrics, StreamReport, StreamState, photo, report};

/// How many message ids are kept to recognise what is sent twice.
const SEEN_MESSAGES: usize = 64;
/// Photos that the link may have asked for at a time.
const MOST_PHOTOS: usize = 8;
/// Measurements come every second; links are told every second one: `MentraOS` expects them every 2 s.
const METRICS_EVERY: u64 = 2;
/// Ends that wait for a link at most; more than a day of failures is of no use to anybody.
const UNTOLD_ENDS: usize = 16;

/// What is known of a link.
#[derive(Debug)]
pub(super) struct Link {
    pub up: bool,
    /// That it last spoke.
    dialect: Dialect,
    seen_messages: VecDeque<i64>,
    untold_ends: VecDeque<String>,
}

impl Default for Link {
    fn default() -> Self {
        Self { up: false, dialect: Dialect::Stream, seen_messages: VecDeque::new(), untold_ends: VecDeque::new() }
    }
}

/// What is known of each.
#[derive(Debug, Default)]
pub(super) struct Links {
    cloud: Link,
    uart: Link,
}

impl Links {
    pub fn of(&self, link: LinkId) -> &Link {
        match link {
            LinkId::Cloud => &self.cloud,
            LinkId::Uart => &self.uart,
        }
    }

    fn of_mut(&mut self, link: LinkId) -> &mut Link {
        match link {
            LinkId::Cloud => &mut self.cloud,
            LinkId::Uart => &mut self.uart,
        }
    }
}

impl Core {
    pub(super) fn link_up(&mut self, link: LinkId, now: Time) {
        self.links.of_mut(link).up = true;
        self.tell_snapshot(link, self.links.of(link).dialect, now);
        for message in std::mem::take(&mut self.links.of_mut(link).untold_ends) {
            self.tell(link, message);
        }
        if self.streams_for(link) {
            self.stream_event(Event::LinkUp, now);
        }
    }

    pub(super) fn link_down(&mut self, link: LinkId, now: Time) {
        self.counts.link_losses += u64::from(std::mem::replace(&mut self.links.of_mut(link).up, false));
        if self.streams_for(link) {
            self.stream_event(Event::LinkDown, now);
        }
    }

    /// Whether this link started the stream.
    fn streams_for(&self, link: LinkId) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.origin.link() == Some(link))
    }

    fn tell_snapshot(&mut self, link: LinkId, dialect: Dialect, now: Time) {
        let snapshot = report::snapshot(&self.state(now), dialect);
        self.tell(link, snapshot.to_string());
    }

    pub(super) fn link_message(&mut self, link: LinkId, text: &str, now: Time) {
        match command::parse(text) {
            Ok(incoming) => {
                if self.acknowledge(link, incoming.message_id) {
                    self.obey(link, incoming, now);
                }
            }
            Err(error) => {
                tracing::warn!(cause = %error.cause, %error, "message from the link refused");
                self.counts.messages_refused.count(error.cause.name());
                if self.acknowledge(link, error.message_id) {
                    self.links.of_mut(link).dialect = error.dialect;
                    self.tell(link, report::rejected(&error).to_string());
                }
            }
        }
    }

    /// Acknowledges a message that asks for it; false for one that came before.
    fn acknowledge(&mut self, link: LinkId, message_id: Option<i64>) -> bool {
        let Some(id) = message_id else { return true };
        self.tell(link, report::msg_ack(id, timestamp_ms()).to_string());
        let seen = &mut self.links.of_mut(link).seen_messages;
        if seen.contains(&id) {
            return false;
        }
        if seen.len() == SEEN_MESSAGES {
            seen.pop_front();
        }
        seen.push_back(id);
        true
    }

    fn obey(&mut self, link: LinkId, Incoming { dialect, command, .. }: Incoming, now: Time) {
        let undirected = [Command::Ping, Command::PhoneReady].contains(&command);
        if !undirected && !matches!(command, Command::Photo { .. } | Command::Unknown { .. }) {
            self.links.of_mut(link).dialect = dialect;
        }
        match command {
            Command::Start(start) => {
                let request = self.next_request();
                self.ask_for_stream(request, start, Origin::Link(link, dialect), now);
            }
            Command::Stop { stream_id, app } => self.link_stop(link, stream_id.as_deref(), &app, now),
            Command::GetStatus => self.tell_snapshot(link, dialect, now),
            Command::KeepAlive { stream_id, ack_id } => {
                if self.stream.as_ref().is_some_and(|stream| stream.start.stream_id == stream_id) {
                    self.counts.keep_alives += 1;
                    self.stream_event(Event::KeepAlive, now);
                    self.tell(link, report::keep_alive_ack(&stream_id, &ack_id, timestamp_ms()).to_string());
                } else {
                    self.counts.stray_keep_alives += 1;
                    let message = report::unknown_stream(&stream_id, dialect, report::Asked::KeepAlive);
                    self.tell(link, message.to_string());
                }
            }
            Command::Photo { request_id, app } if link == LinkId::Cloud => self.cloud_photo(request_id, app, now),
            Command::Photo { request_id, .. } => {
                let message = "a serial line carries no photos".into();
                let refusal = Refusal { cause: Cause::InvalidRequest, message, owner: None };
                self.counts.photos_failed.count(refusal.cause.name());
                self.tell(link, photo::failure(&request_id, &refusal).to_string());
            }
            Command::Ping => self.tell(link, report::pong().to_string()),
            Command::PhoneReady => {
                self.tell(link, report::glasses_ready(timestamp_ms()).to_string());
                // The phone's app began anew, and knows nothing.
                self.tell_snapshot(link, self.links.of(link).dialect, now);
            }
            Command::Unknown { kind } => tracing::debug!(kind, "message for somebody else"),
        }
    }

    /// Without an id, a link stops what it started; with one, that stream, if a link started it.
    fn link_stop(&mut self, link: LinkId, stream_id: Option<&str>, app: &str, now: Time) {
        let asked = stream_id.filter(|id| !id.is_empty());
        let meant = |origin: Origin, start: &StartStream| {
            origin.link().is_some_and(|of| asked.map_or(of == link, |id| id == start.stream_id))
        };
        // What waits first: the end of what runs would begin it.
        let withdrawn = self.withdraw_starts(Cause::Requested, |waiting| meant(waiting.origin, &waiting.start), now);
        if self.stream.as_ref().is_some_and(|stream| meant(stream.origin, &stream.start)) {
            self.stop_stream(Cause::Requested, now);
        } else if !withdrawn {
            tracing::info!(stream_id = asked, app, "stop for a stream that the link does not have");
            let dialect = self.links.of(link).dialect;
            let message = report::unknown_stream(asked.unwrap_or(""), dialect, report::Asked::Stop);
            self.tell(link, message.to_string());
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
            return self.tell(LinkId::Cloud, photo::failure(&name, &refusal).to_string());
        }
        let request = self.next_request();
        self.cloud_photos.insert(request, name);
        self.waiting.insert(request, Waiting::Photo { connection: None });
        self.arbitrate(ArbiterEvent::Ask { request, claim: Claim::Photo { app } }, now);
    }

    /// The answer to the cloud link's request for a photo.
    pub(super) fn tell_photo(&mut self, name: &str, reply: Reply) {
        let refusal = match reply {
            Ok(Answer::Photo(jpeg)) => match photo::frame(name, &jpeg) {
                Some(frame) if self.links.of(LinkId::Cloud).up => return self.effects.push(Effect::SendPhoto(frame)),
                Some(_) => return,
                None => Refusal { message: "the photo is too large for the link".into(), ..Cause::Internal.into() },
            },
            Ok(_) => Cause::Internal.into(),
            Err(refusal) => refusal,
        };
        self.tell(LinkId::Cloud, photo::failure(name, &refusal).to_string());
    }

    pub(super) fn measured(&mut self, metrics: Metrics, now: Time) {
        self.metrics = metrics;
        self.measured += 1;
        self.remember_now_and_then(now);
        let Some(stream) = &self.stream else { return };
        if let Origin::Link(link, dialect) = stream.origin
            && stream.life.state() == StreamState::Streaming
            && self.measured.is_multiple_of(METRICS_EVERY)
        {
            let board = self.board_snapshot();
            let message = report::metrics(&self.metrics, &board, &stream.start.stream_id, dialect).to_string();
            self.tell(link, message);
        }
    }

    /// Tells of a change in the life of a stream that `link` started.
    pub(super) fn tell_report(&mut self, link: LinkId, dialect: Dialect, stream_id: &str, report: &StreamReport) {
        for other in LinkId::ALL {
            let dialect = if other == link { dialect } else { self.links.of(other).dialect };
            let message = report::status(report, stream_id, dialect).to_string();
            if other == link && report.state.is_terminal() {
                self.tell_end(link, message);
            } else {
                self.tell(other, message);
            }
        }
    }

    /// Sends what is of use now or never.
    pub(super) fn tell(&mut self, link: LinkId, message: String) {
        if self.links.of(link).up {
            self.effects.push(Effect::Send(link, message));
        }
    }

    /// Sends a stream's end, or keeps it until the link is back.
    pub(super) fn tell_end(&mut self, link: LinkId, message: String) {
        if self.links.of(link).up {
            return self.tell(link, message);
        }
        let untold = &mut self.links.of_mut(link).untold_ends;
        if untold.len() == UNTOLD_ENDS {
            untold.pop_front();
        }
        untold.push_back(message);
    }
}

/// Wall-clock milliseconds, as the wire wants them; nothing is decided by them.
fn timestamp_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
