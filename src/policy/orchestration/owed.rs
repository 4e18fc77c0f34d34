//! Final statuses that survive the cloud's process: each request has one, whichever process sends it.

use serde::{Deserialize, Serialize};

use super::{Action, Orchestration};
use crate::protocol::Dialect;
use crate::protocol::app::{AppRequest, ManagedStatus, ManagedWord, UnmanagedStatus};

/// A final status for one app.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Owed {
    app: String,
    /// The generation of names for an unmanaged stream; none if the stream is managed.
    unmanaged: Option<Dialect>,
    word: Word,
    stream_id: Option<String>,
    details: Option<String>,
    cause: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Stopped,
    Error,
    Timeout,
}

impl Orchestration {
    /// The final statuses that would be lost if the cloud's process ended now: neither ending streams nor waiting
    /// requests are taken over.
    pub(super) fn owed(&self) -> Vec<Owed> {
        let missed = self.apps.values().flat_map(|app| &app.missed).filter_map(Owed::of);
        let ending = self.streams.iter().filter_map(|stream| Some((stream, &stream.ending.as_ref()?.end)));
        let ending = ending.flat_map(|(stream, end)| {
            stream.participants.iter().filter_map(move |to| Owed::of(&stream.last_words(&to.app, end)))
        });
        let waiting = self.waiting.iter().map(|(app, request, _)| Owed::refused(app, request));
        missed.chain(ending).chain(waiting).collect()
    }
}

impl Owed {
    fn of(status: &Action) -> Option<Self> {
        match status {
            Action::Managed { app, status } => Some(Self {
                app: app.clone(),
                unmanaged: None,
                word: if status.word == ManagedWord::Stopped { Word::Stopped } else { Word::Error },
                stream_id: status.stream_id.clone(),
                details: status.message.clone(),
                cause: None,
            }),
            Action::Unmanaged { app, status } => Some(Self {
                app: app.clone(),
                unmanaged: Some(status.dialect),
                word: match status.word {
                    "stopped" => Word::Stopped,
                    "timeout" => Word::Timeout,
                    _ => Word::Error,
                },
                stream_id: status.stream_id.clone(),
                details: status.details.clone(),
                cause: status.cause.clone(),
            }),
            _ => None,
        }
    }

    fn refused(app: &str, request: &AppRequest) -> Self {
        let unmanaged = match request {
            AppRequest::StartUnmanaged(unmanaged) => Some(unmanaged.dialect),
            _ => None,
        };
        let details = Some("the cloud restarted; ask again".to_owned());
        Self { app: app.to_owned(), unmanaged, word: Word::Error, stream_id: None, details, cause: None }
    }

    /// The app, and the action that tells it.
    pub(super) fn addressed(self) -> (String, Action) {
        let Self { app, unmanaged, word, stream_id, details, cause } = self;
        let to = app.clone();
        let status = if let Some(dialect) = unmanaged {
            let word = match word {
                Word::Stopped => "stopped",
                Word::Error => "error",
                Word::Timeout => "timeout",
            };
            let plain = UnmanagedStatus::plain(dialect, word, stream_id, &app);
            Action::Unmanaged { app, status: UnmanagedStatus { details, cause, ..plain } }
        } else {
            let word = match word {
                Word::Stopped => ManagedWord::Stopped,
                Word::Error | Word::Timeout => ManagedWord::Error,
            };
            Action::Managed { app, status: ManagedStatus::plain(word, stream_id, details) }
        };
        (to, status)
    }
}
