//! What the store is to hold of each user's streams, written behind the core's back.
//!
//! A user's newer document replaces one that was not written yet, so never more wait than there are users; one that could not
//! be written waits again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::error;

use super::store::Store;

/// After the store refused something.
const RETRY: Duration = Duration::from_secs(1);

/// What waits to be written; cloning gives another handle to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Documents(std::sync::Arc<watch::Sender<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// By user; `None` to forget.
    documents: BTreeMap<String, Option<String>>,
    closed: bool,
}

impl Documents {
    /// The user's streams are these from now on.
    pub(super) fn put(&self, user: &str, document: Option<String>) {
        self.0.send_modify(|waiting| {
            waiting.documents.insert(user.to_owned(), document);
        });
    }

    /// Nothing more will be put.
    pub(super) fn close(&self) {
        self.0.send_modify(|waiting| waiting.closed = true);
    }

    /// Writes until closed, and then what is left, once.
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
                    error!(user, %error, "the streams of a user cannot be kept");
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
