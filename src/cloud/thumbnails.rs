//! `/thumbnails/{id}.jpg`: the stream's newest key frame as a small JPEG. It is renewed every 5 s while somebody asks,
//! and cached between. Requests that come meanwhile wait for it. At most two pictures are decoded at a time, photos for
//! apps included.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::broadcast::{Broadcast, Frame, Media};
use crate::media::still::{KeyFrame, still};
use crate::metrics::Counter;
use crate::protocol::Failure;

/// The age after which a picture is made anew.
const FRESH: Duration = Duration::from_secs(5);

/// Width, in pixels, and JPEG quality of thumbnails.
const WIDTH: u32 = 640;
const QUALITY: u8 = 75;

/// JPEG quality of photos.
const PHOTO_QUALITY: u8 = 90;

/// How long a request waits for a picture, also for one that another request is making.
const LIMIT: Duration = Duration::from_secs(4);

/// The most pictures being decoded at a time, for all streams together.
const DECODERS: usize = 2;

/// The service. A clone is another handle to it.
#[derive(Clone, Debug)]
pub struct Thumbnails(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    streams: Mutex<HashMap<String, Arc<Stream>>>,
    decoders: Semaphore,
    made: Counter,
}

impl Default for Thumbnails {
    fn default() -> Self {
        Self(Arc::new(Shared {
            streams: Mutex::default(),
            decoders: Semaphore::new(DECODERS),
            made: Counter::default(),
        }))
    }
}

#[derive(Debug)]
struct Stream {
    broadcast: Broadcast,
    /// Locked while a picture is being made.
    newest: tokio::sync::Mutex<Option<Picture>>,
}

#[derive(Clone, Debug)]
struct Picture {
    made: Instant,
    jpeg: Bytes,
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPicture {
    /// No key frame is held: the stream has only begun, or its last key frame is too long ago.
    #[error("there is no picture yet")]
    NotYet,
    /// The key frame cannot be decoded.
    #[error(transparent)]
    Undecodable(#[from] Failure),
}

impl Thumbnails {
    /// Serves pictures of the stream at `/thumbnails/{id}.jpg`.
    pub fn open(&self, id: &str, broadcast: &Broadcast) {
        let stream = Stream { broadcast: broadcast.clone(), newest: tokio::sync::Mutex::default() };
        self.lock().insert(id.to_owned(), Arc::new(stream));
    }

    /// Answers 404 from now on.
    pub fn close(&self, id: &str) {
        self.lock().remove(id);
    }

    /// The number of pictures made so far.
    pub fn made(&self) -> u64 {
        self.0.made.get()
    }

    /// The stream's newest key frame as JPEG, no wider than `max_width` pixels, in the quality of a photo.
    ///
    /// # Errors See [`NoPicture`]. Takes at most 3 s once a decoder is free.
    pub async fn photo(&self, broadcast: &Broadcast, max_width: u32) -> Result<Vec<u8>, NoPicture> {
        self.0.decode(broadcast, max_width, PHOTO_QUALITY).await
    }

    /// `GET /thumbnails/{id}.jpg`.
    pub fn router(&self) -> Router {
        Router::new().route("/thumbnails/{file}", get(thumbnail)).with_state(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Stream>>> {
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    async fn decode(&self, broadcast: &Broadcast, max_width: u32, quality: u8) -> Result<Vec<u8>, NoPicture> {
        // The semaphore is never closed, so a permit comes.
        let _permit = self.decoders.acquire().await;
        let frame = newest_key(broadcast).ok_or(NoPicture::NotYet)?;
        let Media::Video { format, .. } = &frame.media else { return Err(NoPicture::NotYet) };
        let key = KeyFrame { record: &format.record, data: &frame.data, width: format.width, height: format.height };
        Ok(still(key, max_width, quality).await?)
    }
}

/// A reader begins at the newest key frame. If that is no longer held, its first frame is another kind, and is not
/// used.
fn newest_key(broadcast: &Broadcast) -> Option<Arc<Frame>> {
    broadcast.reader().try_next().filter(|frame| frame.is_key())
}

async fn thumbnail(State(thumbnails): State<Thumbnails>, Path(file): Path<String>) -> Response {
    let stream = file.strip_suffix(".jpg").and_then(|id| thumbnails.lock().get(id).cloned());
    let Some(stream) = stream else { return (StatusCode::NOT_FOUND, PUBLIC).into_response() };
    match tokio::time::timeout(LIMIT, stream.fresh(&thumbnails.0)).await {
        Ok(Ok(jpeg)) => {
            (PUBLIC, [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "public, max-age=4")], jpeg)
                .into_response()
        }
        Ok(Err(reason)) => unavailable(&reason.to_string()),
        Err(_) => unavailable("the picture took too long"),
    }
}

/// Apps' pages show the picture, and some draw it on a canvas.
const PUBLIC: [(header::HeaderName, &str); 2] =
    [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];

fn unavailable(reason: &str) -> Response {
    let headers = [(header::RETRY_AFTER, "1"), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::SERVICE_UNAVAILABLE, PUBLIC, headers, format!("{reason}\n")).into_response()
}

impl Stream {
    async fn fresh(&self, shared: &Shared) -> Result<Bytes, NoPicture> {
        let mut newest = self.newest.lock().await;
        if let Some(picture) = newest.as_ref().filter(|picture| picture.made.elapsed() < FRESH) {
            return Ok(picture.jpeg.clone());
        }
        match shared.decode(&self.broadcast, WIDTH, QUALITY).await {
            Ok(jpeg) => {
                shared.made.increment();
                let jpeg = Bytes::from(jpeg);
                *newest = Some(Picture { made: Instant::now(), jpeg: jpeg.clone() });
                Ok(jpeg)
            }
            // While the glasses reconnect, the last picture is better than none.
            Err(reason) => newest.as_ref().map(|picture| picture.jpeg.clone()).ok_or(reason),
        }
    }
}
