//! The sending side of one connection: a bounded queue, and the order to close. Sending never waits. A peer that does
//! not keep up with its queue loses the connection (1013), and gets the whole state when it comes back.

use tokio::sync::{mpsc, watch};

/// The most messages that wait for one connection.
pub const QUEUE: usize = 256;

/// Close codes (RFC 6455, 7.4.1). After 1000, 1001 and 1008 the SDK does not come back
/// (docs/protocol.md#close-codes).
pub mod code {
    /// The end, as intended.
    pub const NORMAL: u16 = 1000;
    /// The peer leaves for good.
    pub const AWAY: u16 = 1001;
    /// Not allowed; trying again is of no use.
    pub const POLICY: u16 = 1008;
    /// A message was too long.
    pub const TOO_BIG: u16 = 1009;
    /// The cloud restarts.
    pub const RESTART: u16 = 1012;
    /// Try again later.
    pub const TRY_AGAIN: u16 = 1013;
}

/// Why a connection is closed, in the form that its peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// A code from [`code`].
    pub code: u16,
    /// For people; at most 123 bytes.
    pub reason: &'static str,
    /// Whether queued messages are discarded.
    pub at_once: bool,
}

impl Farewell {
    /// A farewell after the queued messages.
    pub fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason, at_once: false }
    }
}

/// The sending end. Cheap to clone; the connection does not end with its clones.
#[derive(Clone, Debug)]
pub struct Outgoing {
    texts: mpsc::Sender<String>,
    end: watch::Sender<Option<Farewell>>,
}

impl Outgoing {
    /// Both ends of a new queue of [`QUEUE`] messages.
    pub fn pair() -> (Self, Queue) {
        let (texts, queued) = mpsc::channel(QUEUE);
        let end = watch::Sender::new(None);
        let ended = end.subscribe();
        (Self { texts, end }, Queue { texts: queued, end: ended })
    }

    /// Queues a message. False if the connection is closed or closing. A full queue closes it (1013).
    pub fn send(&self, text: impl Into<String>) -> bool {
        if self.end.borrow().is_some() {
            return false;
        }
        match self.texts.try_send(text.into()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                let reason = "messages are not read fast enough";
                self.finish(Farewell { code: code::TRY_AGAIN, reason, at_once: true });
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Closes the connection once the queued messages are sent. Only the first order counts.
    pub fn close(&self, code: u16, reason: &'static str) {
        self.finish(Farewell::new(code, reason));
    }

    /// Whether messages can still be queued.
    pub fn is_open(&self) -> bool {
        self.end.borrow().is_none() && !self.texts.is_closed()
    }

    pub(super) fn finish(&self, farewell: Farewell) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(farewell);
            first
        });
    }
}

/// The connection's end of the queue.
#[derive(Debug)]
pub struct Queue {
    texts: mpsc::Receiver<String>,
    end: watch::Receiver<Option<Farewell>>,
}

/// What the queue gives next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Text(String),
    /// The order to close.
    Close(Farewell),
}

impl Queue {
    /// The next queued message, without waiting; an order to close is ignored.
    pub(crate) fn last(&mut self) -> Option<String> {
        self.texts.try_recv().ok()
    }

    /// Waits for a message or the order to close. Cancel-safe. After [`Next::Close`] nothing more comes.
    pub async fn next(&mut self) -> Next {
        loop {
            let order = self.end.borrow_and_update().clone();
            if let Some(farewell) = order {
                return match self.texts.try_recv() {
                    Ok(text) if !farewell.at_once => Next::Text(text),
                    _ => Next::Close(farewell),
                };
            }
            tokio::select! {
                Some(text) = self.texts.recv() => return Next::Text(text),
                Ok(()) = self.end.changed() => {}
                else => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_queued_goes_before_the_close() {
        let (outgoing, mut queue) = Outgoing::pair();
        assert!(outgoing.send("last words"));
        outgoing.close(code::NORMAL, "bye");
        outgoing.close(code::POLICY, "too late");
        assert!(!outgoing.send("too late") && !outgoing.is_open());
        assert_eq!(queue.next().await, Next::Text("last words".into()));
        assert_eq!(queue.next().await, Next::Close(Farewell::new(code::NORMAL, "bye")));
    }

    #[tokio::test]
    async fn a_full_queue_closes_the_connection_instead_of_growing() {
        let (outgoing, mut queue) = Outgoing::pair();
        for _ in 0..QUEUE {
            assert!(outgoing.send("x"));
        }
        assert!(!outgoing.send("one too many"));
        assert!(matches!(queue.next().await, Next::Close(Farewell { code: code::TRY_AGAIN, .. })));
    }
}
