//! Photos that apps asked for, from the running picture or by the glasses, until the app has them or knows why not. What
//! is said on each hop: `docs/photo.md`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::gateway::Outgoing;
use super::photo_delivery::{Outcome, PhotoDelivery, Target};
use super::registry::Registry;
use super::thumbnails;
use crate::broadcast::Broadcast;
use crate::metrics::Tally;
use crate::protocol::app::PhotoRequest;
use crate::protocol::photo::parse_frame;

/// For glasses to take and send one.
const LIMIT: Duration = Duration::from_secs(15);
/// Photos that glasses owe at a time; more are refused.
const MOST: usize = 16;
/// Deliveries under way at a time; what is asked beyond is not answered, and the app's own deadline tells it.
const MOST_ERRANDS: usize = 256;

pub(super) struct Photos {
    delivery: PhotoDelivery,
    registry: Registry,
    /// Those that glasses owe, by the id that they were asked under.
    pending: BTreeMap<String, Pending>,
    asked: u64,
    outcomes: Arc<Mutex<Tally>>,
}

/// What can come of a request, for the metrics: answered with a photo or with why there is none, or not answered.
pub(super) const OUTCOMES: &[&str] = &["taken", "failed", "undelivered"];

struct Pending {
    deadline: Instant,
    target: Option<Target>,
    request_id: String,
}

/// What glasses answer when there is no photo.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    r#type: String,
    request_id: String,
    error_code: Option<String>,
    error_message: Option<String>,
}

impl Photos {
    pub(super) fn new(delivery: PhotoDelivery, registry: Registry) -> Self {
        Self { delivery, registry, pending: BTreeMap::new(), asked: 0, outcomes: Arc::default() }
    }

    /// How often there was each of [`OUTCOMES`].
    pub(super) fn outcomes(&self) -> Tally {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// From the running picture of a stream if there is one, else by the glasses.
    pub(super) fn take(
        &mut self,
        app: &str,
        request: PhotoRequest,
        running: Option<Broadcast>,
        glasses: Option<&Outgoing>,
        errands: &mut JoinSet<()>,
    ) {
        if is_busy(errands) {
            return;
        }
        let target = self.target(app, &request);
        if let Some(broadcast) = running {
            let delivery = self.desk();
            errands.spawn(async move {
                let outcome = match thumbnails::photo(&broadcast, max_width(&request.size)).await {
                    Ok(jpeg) => Outcome::Taken(jpeg.into()),
                    Err(error) => Outcome::Failed { code: "CAMERA_CAPTURE_FAILED".into(), message: error.to_string() },
                };
                delivery.deliver(target, &request.request_id, outcome).await;
            });
            return;
        }
        let Some(glasses) = glasses.filter(|_| self.pending.len() < MOST) else {
            return self.refuse(app, &request, "CAMERA_BUSY", "the glasses cannot take a photo now".into(), errands);
        };
        self.asked += 1;
        let id = format!("p{}", self.asked);
        let ask = json!({"type": "photo_request", "requestId": id, "appId": app, "size": request.size});
        glasses.send(ask.to_string());
        let deadline = Instant::now() + LIMIT;
        self.pending.insert(id, Pending { deadline, target, request_id: request.request_id });
    }

    pub(super) fn refuse(
        &self,
        app: &str,
        request: &PhotoRequest,
        code: &str,
        message: String,
        errands: &mut JoinSet<()>,
    ) {
        if is_busy(errands) {
            return;
        }
        let (delivery, target, id) = (self.desk(), self.target(app, request), request.request_id.clone());
        let outcome = Outcome::Failed { code: code.to_owned(), message };
        errands.spawn(async move { delivery.deliver(target, &id, outcome).await });
    }

    /// A text of glasses. True if it was about a photo.
    pub(super) fn answered(&mut self, text: &str, errands: &mut JoinSet<()>) -> bool {
        let Some(answer) = serde_json::from_str::<Answer>(text).ok().filter(|answer| answer.r#type == "photo_response")
        else {
            return false;
        };
        let code = answer.error_code.unwrap_or_else(|| "CAMERA_CAPTURE_FAILED".into());
        let message = answer.error_message.unwrap_or_else(|| "the glasses took no photo".into());
        self.settle(&answer.request_id, Outcome::Failed { code, message }, errands);
        true
    }

    /// A binary message of glasses.
    pub(super) fn taken(&mut self, bytes: &Bytes, errands: &mut JoinSet<()>) {
        if let Some((head, jpeg)) = parse_frame(bytes) {
            self.settle(&head.request_id, Outcome::Taken(bytes.slice(jpeg..)), errands);
        }
    }

    /// Gives up on what glasses owe for too long.
    pub(super) fn expire(&mut self, now: Instant, errands: &mut JoinSet<()>) {
        let late: Vec<String> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(id, _)| id.clone()).collect();
        for id in late {
            let message = "the glasses did not answer in time".into();
            self.settle(&id, Outcome::Failed { code: "PHOTO_TIMEOUT".into(), message }, errands);
        }
    }

    fn settle(&mut self, id: &str, outcome: Outcome, errands: &mut JoinSet<()>) {
        if let Some(pending) = self.pending.remove(id) {
            let delivery = self.desk();
            errands.spawn(async move { delivery.deliver(pending.target, &pending.request_id, outcome).await });
        }
    }

    fn desk(&self) -> Desk {
        Desk { delivery: self.delivery.clone(), outcomes: self.outcomes.clone() }
    }

    fn target(&self, app: &str, request: &PhotoRequest) -> Option<Target> {
        if let Some(url) = &request.webhook_url {
            return Some(Target::Custom { url: url.clone(), token: request.auth_token.clone() });
        }
        let accounts = self.registry.accounts();
        let webhook_url = accounts.apps.get(app)?.webhook_url.clone()?;
        Some(Target::App { webhook_url })
    }
}

fn is_busy(errands: &JoinSet<()>) -> bool {
    let busy = errands.len() >= MOST_ERRANDS;
    if busy {
        warn!("too many photos are being delivered; a request is passed over");
    }
    busy
}

/// The package's words for sizes, in pixels; it says no more of them than their order.
fn max_width(size: &str) -> u32 {
    match size {
        "small" => 640,
        "medium" => 1280,
        "large" => 1920,
        _ => u32::MAX,
    }
}

/// Answers one request.
struct Desk {
    delivery: PhotoDelivery,
    outcomes: Arc<Mutex<Tally>>,
}

impl Desk {
    async fn deliver(self, target: Option<Target>, request_id: &str, outcome: Outcome) {
        let Some(target) = target else {
            warn!(request_id, "the app has no webhook, so no place for a photo");
            return self.count("undelivered");
        };
        let taken = matches!(outcome, Outcome::Taken(_));
        match self.delivery.deliver(&target, request_id, &outcome).await {
            Ok(()) => {
                info!(request_id, taken, "photo answered");
                self.count(if taken { "taken" } else { "failed" });
            }
            Err(error) => {
                warn!(request_id, %error, "a photo's answer could not be delivered");
                self.count("undelivered");
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).count(outcome);
    }
}
