//! Writes each user's streams to the store in the background, so that the core never waits.
//!
//! A user's newer document replaces an older one that is not written yet, so at most one waits per user. A document
//! that could not be written waits again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::error;

use super::store::Store;

/// Pause after the store refused something.
const RETRY: Duration = Duration::from_secs(1);

/// The documents that wait to be written. A clone is another handle to the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Documents(std::sync::Arc<watch::Sender<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// By user; `None` deletes the user's document.
    documents: BTreeMap<String, Option<String>>,
    closed: bool,
}

impl Documents {
    /// Replaces the user's document; `None` deletes it.
    pub(super) fn put(&self, user: &str, document: Option<String>) {
        self.0.send_modify(|waiting| {
            waiting.documents.insert(user.to_owned(), document);
        });
    }

    /// Says that nothing more will be put.
    pub(super) fn close(&self) {
        self.0.send_modify(|waiting| waiting.closed = true);
    }

    /// Writes until closed. What is left then is tried once more.
    pub(super) async fn write(self, store: Store) {
        let mut changes = self.0.subscribe();
        loop {
            let something = changes.wait_for(|waiting| waiting.closed || !waiting.documents.is_empty()).await;
            drop(something); // it cannot fail, as this holds the sender too
            let (mut batch, mut closed) = (BTreeMap::new(), false);
            self.0.send_if_modified(|waiting| {
                (batch, closed) = (std::mem::take(&mut waiting.documents), waiting.closed);
                false
            });
            let mut refused = false;
            for (user, document) in batch {
                if let Err(error) = store.save_session(&user, document.as_deref()).await {
                    error!(user, %error, "the streams of a user cannot be stored");
                    refused = true;
                    self.0.send_if_modified(|waiting| {
                        waiting.documents.entry(user).or_insert(document);
                        false
                    });
                }
            }
            if closed {
                return;
            }
            if refused {
                sleep(RETRY).await;
            }
        }
    }
}
