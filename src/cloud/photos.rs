//! The photos that apps asked for, until the app has each of them or knows why not. They come from the running stream
//! or from the glasses. `docs/photo.md` has the messages of each hop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::gateway::Outgoing;
use super::photo_delivery::{Outcome, PhotoDelivery, Target};
use super::registry::Registry;
use super::thumbnails::Thumbnails;
use crate::broadcast::Broadcast;
use crate::metrics::Tally;
use crate::protocol::app::PhotoRequest;
use crate::protocol::photo::parse_frame;

/// Time for glasses to take and send a photo.
const LIMIT: Duration = Duration::from_secs(15);
/// The most photos of one user in progress at a time, from stream and glasses together; more are refused.
const MOST: usize = 16;
/// The most answers in progress at a time, to one user's requests and to all users'. A request beyond that is not
/// answered, and the app finds out by its own timeout.
const MOST_ANSWERS: usize = 2 * MOST;
const MOST_ERRANDS: usize = 256;

pub(super) struct Photos {
    delivery: PhotoDelivery,
    registry: Registry,
    thumbnails: Thumbnails,
    /// Photos that glasses owe, by the id under which they were requested.
    pending: BTreeMap<String, Pending>,
    asked: u64,
    /// One per user. The number of its clones is the number of photos in progress.
    places: BTreeMap<String, Place>,
    outcomes: Arc<Mutex<Tally>>,
}

/// A place among the user's photos, for as long as it is held.
type Place = Arc<()>;

/// The possible results of a request, for the metrics: answered with a photo, answered with a failure, or not answered.
pub(super) const OUTCOMES: &[&str] = &["taken", "failed", "undelivered"];

/// The app that wants a photo.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) user: &'a str,
    pub(super) app: &'a str,
}

struct Pending {
    /// The user whose glasses owe the photo. Other glasses' answers do not count.
    user: String,
    deadline: Instant,
    target: Option<Target>,
    request_id: String,
    place: Place,
}

/// The answer of glasses that have no photo.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    r#type: String,
    request_id: String,
    error_code: Option<String>,
    error_message: Option<String>,
}

impl Photos {
    pub(super) fn new(delivery: PhotoDelivery, registry: Registry, thumbnails: Thumbnails) -> Self {
        let (pending, places) = (BTreeMap::new(), BTreeMap::new());
        Self { delivery, registry, thumbnails, pending, asked: 0, places, outcomes: Arc::default() }
    }

    /// How often each of [`OUTCOMES`] happened.
    pub(super) fn outcomes(&self) -> Tally {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// Takes a photo from the user's stream if one is running, otherwise from the glasses.
    pub(super) fn take(
        &mut self,
        asker: Asker<'_>,
        request: PhotoRequest,
        running: Option<Broadcast>,
        glasses: Option<&Outgoing>,
        errands: &mut JoinSet<()>,
    ) {
        let Some(place) = self.place(asker.user, MOST) else {
            return self.refuse(asker, &request, "CAMERA_BUSY", "too many photos are being taken".into(), errands);
        };
        let target = self.target(asker.app, &request);
        if let Some(broadcast) = running {
            if is_busy(errands) {
                return;
            }
            let (desk, thumbnails) = (self.desk(place), self.thumbnails.clone());
            errands.spawn(async move {
                let picture = thumbnails.photo(&broadcast, max_width(&request.size));
                let outcome = match timeout(LIMIT, picture).await {
                    Ok(Ok(jpeg)) => Outcome::Taken(jpeg.into()),
                    Ok(Err(error)) => {
                        Outcome::Failed { code: "CAMERA_CAPTURE_FAILED".into(), message: error.to_string() }
                    }
                    Err(_) => too_late("the picture took too long"),
                };
                desk.deliver(target, &request.request_id, outcome).await;
            });
            return;
        }
        let Some(glasses) = glasses else {
            return self.refuse(asker, &request, "CAMERA_BUSY", "the glasses cannot take a photo now".into(), errands);
        };
        self.asked += 1;
        let id = format!("p{}", self.asked);
        let ask = json!({"type": "photo_request", "requestId": id, "appId": asker.app, "size": request.size});
        glasses.send(ask.to_string());
        let (deadline, user) = (Instant::now() + LIMIT, asker.user.to_owned());
        self.pending.insert(id, Pending { user, deadline, target, request_id: request.request_id, place });
    }

    pub(super) fn refuse(
        &mut self,
        asker: Asker<'_>,
        request: &PhotoRequest,
        code: &str,
        message: String,
        errands: &mut JoinSet<()>,
    ) {
        let Some(place) = self.place(asker.user, MOST_ANSWERS).filter(|_| !is_busy(errands)) else { return };
        let (desk, target, id) = (self.desk(place), self.target(asker.app, request), request.request_id.clone());
        let outcome = Outcome::Failed { code: code.to_owned(), message };
        errands.spawn(async move { desk.deliver(target, &id, outcome).await });
    }

    /// Handles a text message of the user's glasses. True if it was about a photo.
    pub(super) fn answered(&mut self, user: &str, text: &str, errands: &mut JoinSet<()>) -> bool {
        let Some(answer) = serde_json::from_str::<Answer>(text).ok().filter(|answer| answer.r#type == "photo_response")
        else {
            return false;
        };
        let code = answer.error_code.unwrap_or_else(|| "CAMERA_CAPTURE_FAILED".into());
        let message = answer.error_message.unwrap_or_else(|| "the glasses took no photo".into());
        self.settle(user, &answer.request_id, Outcome::Failed { code, message }, errands);
        true
    }

    /// Handles a binary message of the user's glasses.
    pub(super) fn taken(&mut self, user: &str, bytes: &Bytes, errands: &mut JoinSet<()>) {
        if let Some((head, jpeg)) = parse_frame(bytes) {
            self.settle(user, &head.request_id, Outcome::Taken(bytes.slice(jpeg..)), errands);
        }
    }

    /// Gives up on photos that glasses have owed for too long.
    pub(super) fn expire(&mut self, now: Instant, errands: &mut JoinSet<()>) {
        let late: Vec<(String, String)> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(id, pending)| (pending.user.clone(), id.clone()))
            .collect();
        for (user, id) in late {
            self.settle(&user, &id, too_late("the glasses did not answer in time"), errands);
        }
        self.places.retain(|_, place| Arc::strong_count(place) > 1);
    }

    fn settle(&mut self, user: &str, id: &str, outcome: Outcome, errands: &mut JoinSet<()>) {
        if self.pending.get(id).is_none_or(|pending| pending.user != user) {
            return;
        }
        if let Some(Pending { target, request_id, place, .. }) = self.pending.remove(id) {
            let desk = self.desk(place);
            errands.spawn(async move { desk.deliver(target, &request_id, outcome).await });
        }
    }

    /// Takes one more place for the user, unless `most` are taken.
    fn place(&mut self, user: &str, most: usize) -> Option<Place> {
        let places = self.places.entry(user.to_owned()).or_default();
        (Arc::strong_count(places) <= most).then(|| places.clone())
    }

    fn desk(&self, place: Place) -> Desk {
        Desk { delivery: self.delivery.clone(), outcomes: self.outcomes.clone(), _place: place }
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

fn too_late(message: &str) -> Outcome {
    Outcome::Failed { code: "PHOTO_TIMEOUT".into(), message: message.into() }
}

fn is_busy(errands: &JoinSet<()>) -> bool {
    let busy = errands.len() >= MOST_ERRANDS;
    if busy {
        warn!("too many photos are being delivered; a request is ignored");
    }
    busy
}

/// Pixels for the SDK's names of sizes, which define only an order.
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
    /// Free for another request once this one is answered.
    _place: Place,
}

impl Desk {
    async fn deliver(self, target: Option<Target>, request_id: &str, outcome: Outcome) {
        let Some(target) = target else {
            warn!(request_id, "the app has no webhook to deliver its photo to");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::config::Config;
    use crate::cloud::http_client;
    use crate::cloud::store::Store;
    use crate::protocol::photo::frame;

    struct Scene {
        photos: Photos,
        errands: JoinSet<()>,
        _folder: tempfile::TempDir,
    }

    impl Scene {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("cloud.sqlite")).unwrap();
            let registry = Registry::open(&Config::default(), store).await.unwrap();
            let delivery = PhotoDelivery::new(http_client::client(None).await.unwrap(), false);
            let photos = Photos::new(delivery, registry, Thumbnails::default());
            Self { photos, errands: JoinSet::new(), _folder: folder }
        }

        /// Asks the user's glasses for a photo. Returns the id of the request, if they are asked.
        fn ask(&mut self, user: &str) -> Option<String> {
            let (glasses, mut queue) = Outgoing::pair();
            let request =
                PhotoRequest { request_id: "r1".into(), webhook_url: None, auth_token: None, size: "small".into() };
            self.photos.take(Asker { user, app: "org.one" }, request, None, Some(&glasses), &mut self.errands);
            let asked: serde_json::Value = serde_json::from_str(&queue.last()?).unwrap();
            asked["requestId"].as_str().map(str::to_owned)
        }
    }

    #[tokio::test]
    async fn only_the_glasses_that_were_asked_answer() {
        let mut scene = Scene::new().await;
        let id = scene.ask("anna").unwrap();
        let forged = Bytes::from(frame(&id, b"\xff\xd8").unwrap());
        scene.photos.taken("ben", &forged, &mut scene.errands);
        let refusal = json!({"type": "photo_response", "requestId": id, "success": false}).to_string();
        assert!(scene.photos.answered("ben", &refusal, &mut scene.errands));
        assert!(scene.errands.is_empty(), "nothing is delivered");
        scene.photos.taken("anna", &forged, &mut scene.errands);
        assert_eq!(scene.errands.len(), 1);
    }

    #[tokio::test]
    async fn one_users_photos_leave_room_for_anothers_and_places_come_back() {
        let mut scene = Scene::new().await;
        for _ in 0..MOST {
            assert!(scene.ask("anna").is_some());
        }
        assert_eq!(scene.ask("anna"), None);
        assert_eq!(scene.errands.len(), 1, "it is told that it is one too many");
        assert!(scene.ask("ben").is_some());
        scene.photos.expire(Instant::now() + LIMIT, &mut scene.errands);
        while scene.errands.join_next().await.is_some() {}
        assert!(scene.ask("anna").is_some());
    }
}
