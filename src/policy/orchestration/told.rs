//! The statuses that apps are told.

use super::Action;
use crate::protocol::Dialect;
use crate::protocol::app::{ManagedStatus, ManagedWord, UnmanagedStatus};

/// A status on its way to an app.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Status {
    Managed(ManagedStatus),
    Unmanaged(UnmanagedStatus),
}

impl Status {
    pub(super) fn addressed(self, app: String) -> Action {
        match self {
            Self::Managed(status) => Action::Managed { app, status },
            Self::Unmanaged(status) => Action::Unmanaged { app, status },
        }
    }
}

impl ManagedStatus {
    /// A status without URLs and outputs.
    pub(super) fn plain(word: ManagedWord, stream_id: Option<String>, message: Option<String>) -> Self {
        Self { word, stream_id, urls: None, message, outputs: Vec::new() }
    }
}

impl UnmanagedStatus {
    /// A status that is only a word.
    pub(super) fn plain(dialect: Dialect, word: &'static str, stream_id: Option<String>, app: &str) -> Self {
        Self { dialect, word, stream_id, app: app.to_owned(), details: None, cause: None, stats: None }
    }
}
