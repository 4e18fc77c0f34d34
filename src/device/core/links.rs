//! The links to phone and cloud: which is up, what it was sent, and what it missed. An answer goes back over the link that
//! the question came by. The state of a stream that a link started is told over each link that is up, in the dialect it
//! speaks. Its end is kept for the link that started it, if that is down.

use std::collections::{HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Effect, Outbox};
use crate::link::LinkId;
use crate::policy::arbiter::RequestId;
use crate::protocol::command::{self, Dialect, Incoming};
use crate::protocol::control::{Answer, Refusal, Reply};
use crate::protocol::{Cause, StreamReport, photo, report};

/// Message ids that are kept, to recognise repeated messages.
const SEEN_MESSAGES: usize = 64;
/// The most photos that the link may have requested at a time.
const MOST_PHOTOS: usize = 8;
/// The most ends of streams that wait for a link; older failures are of no use.
const UNTOLD_ENDS: usize = 16;

/// What is known of a link.
#[derive(Debug)]
struct LinkState {
    up: bool,
    /// Of its last command.
    dialect: Dialect,
    seen_messages: VecDeque<i64>,
    untold_ends: VecDeque<String>,
}

impl Default for LinkState {
    fn default() -> Self {
        Self { up: false, dialect: Dialect::Stream, seen_messages: VecDeque::new(), untold_ends: VecDeque::new() }
    }
}

/// What is known of each.
#[derive(Debug, Default)]
pub struct Links {
    cloud: LinkState,
    uart: LinkState,
    /// The cloud link's names of the photos that it asked for.
    photos: HashMap<RequestId, String>,
}

impl Links {
    fn of(&self, link: LinkId) -> &LinkState {
        match link {
            LinkId::Cloud => &self.cloud,
            LinkId::Uart => &self.uart,
        }
    }

    fn of_mut(&mut self, link: LinkId) -> &mut LinkState {
        match link {
            LinkId::Cloud => &mut self.cloud,
            LinkId::Uart => &mut self.uart,
        }
    }

    pub fn is_up(&self, link: LinkId) -> bool {
        self.of(link).up
    }

    /// The dialect of its last command.
    pub fn dialect(&self, link: LinkId) -> Dialect {
        self.of(link).dialect
    }

    /// It directs the glasses in this dialect.
    pub fn speaks(&mut self, link: LinkId, dialect: Dialect) {
        self.of_mut(link).dialect = dialect;
    }

    /// The link is up, and gets the state of everything first, then the ends that it missed.
    pub fn up(&mut self, link: LinkId, snapshot: String, out: &mut Outbox) {
        self.of_mut(link).up = true;
        self.tell(link, snapshot, out);
        for message in std::mem::take(&mut self.of_mut(link).untold_ends) {
            self.tell(link, message, out);
        }
    }

    pub fn down(&mut self, link: LinkId, out: &mut Outbox) {
        out.counts.link_losses += u64::from(std::mem::replace(&mut self.of_mut(link).up, false));
    }

    /// Reads and acknowledges a message. `None`: it came before, or cannot be read, which the link is told.
    pub fn read(&mut self, link: LinkId, text: &str, out: &mut Outbox) -> Option<Incoming> {
        match command::parse(text) {
            Ok(incoming) => self.acknowledge(link, incoming.message_id, out).then_some(incoming),
            Err(error) => {
                tracing::warn!(cause = %error.cause, %error, "message from the link refused");
                out.counts.messages_refused.count(error.cause.name());
                if self.acknowledge(link, error.message_id, out) {
                    self.speaks(link, error.dialect);
                    self.tell(link, report::rejected(&error).to_string(), out);
                }
                None
            }
        }
    }

    /// Acknowledges a message that asks for it; false for one that came before.
    fn acknowledge(&mut self, link: LinkId, message_id: Option<i64>, out: &mut Outbox) -> bool {
        let Some(id) = message_id else { return true };
        self.tell(link, report::msg_ack(id, timestamp_ms()).to_string(), out);
        let seen = &mut self.of_mut(link).seen_messages;
        if seen.contains(&id) {
            return false;
        }
        if seen.len() == SEEN_MESSAGES {
            seen.pop_front();
        }
        seen.push_back(id);
        true
    }

    /// Whether a photo that the cloud asks for may be asked of the camera: neither already, nor one too many.
    pub fn may_ask_for_photo(&mut self, name: &str, out: &mut Outbox) -> bool {
        if self.photos.values().any(|known| known == name) {
            return false; // asked twice, answered once
        }
        if self.photos.len() == MOST_PHOTOS {
            let message = "too many photos are being taken".into();
            let refusal = Refusal { cause: Cause::CameraBusy, message, owner: None };
            self.refuse_photo(LinkId::Cloud, name, &refusal, out);
            return false;
        }
        true
    }

    /// The cloud knows this request for a photo by `name`.
    pub fn asked_for_photo(&mut self, request: RequestId, name: String) {
        self.photos.insert(request, name);
    }

    /// The answer to a request for a photo, of the cloud link or of a client of the control socket.
    pub fn answer_photo(&mut self, request: RequestId, reply: Reply, out: &mut Outbox) {
        let Some(name) = self.photos.remove(&request) else { return out.reply(request, reply) };
        let refusal = match reply {
            Ok(Answer::Photo(jpeg)) => match photo::frame(&name, &jpeg) {
                Some(frame) if self.is_up(LinkId::Cloud) => return out.push(Effect::SendPhoto(frame)),
                Some(_) => return,
                None => Refusal { message: "the photo is too large for the link".into(), ..Cause::Internal.into() },
            },
            Ok(_) => Cause::Internal.into(),
            Err(refusal) => refusal,
        };
        self.tell(LinkId::Cloud, photo::failure(&name, &refusal).to_string(), out);
    }

    /// A photo that was not asked of the camera.
    pub fn refuse_photo(&self, link: LinkId, name: &str, refusal: &Refusal, out: &mut Outbox) {
        out.counts.photos_failed.count(refusal.cause.name());
        self.tell(link, photo::failure(name, refusal).to_string(), out);
    }

    #[cfg(test)]
    pub fn photos_asked_for(&self) -> usize {
        self.photos.len()
    }

    /// Tells of a change in the life of a stream that `link` started, in `dialect`.
    pub fn report(&mut self, link: LinkId, dialect: Dialect, stream_id: &str, report: &StreamReport, out: &mut Outbox) {
        for other in LinkId::ALL {
            let dialect = if other == link { dialect } else { self.dialect(other) };
            let message = report::status(report, stream_id, dialect).to_string();
            if other == link && report.state.is_terminal() {
                self.tell_end(link, message, out);
            } else {
                self.tell(other, message, out);
            }
        }
    }

    /// Sends what is of use now or never.
    pub fn tell(&self, link: LinkId, message: String, out: &mut Outbox) {
        if self.is_up(link) {
            out.push(Effect::Send(link, message));
        }
    }

    /// Sends a stream's end, or keeps it until the link is back.
    pub fn tell_end(&mut self, link: LinkId, message: String, out: &mut Outbox) {
        if self.is_up(link) {
            return self.tell(link, message, out);
        }
        let untold = &mut self.of_mut(link).untold_ends;
        if untold.len() == UNTOLD_ENDS {
            untold.pop_front();
        }
        untold.push_back(message);
    }
}

/// Wall-clock milliseconds, as the wire wants them; nothing is decided by them.
pub fn timestamp_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
