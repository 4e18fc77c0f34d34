//! Passes encoded media from the capture to whoever publishes it. Knows nothing of GStreamer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// One encoded access unit, lent for the duration of a call. Times are the capture clock's.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// The opening of the camera that it comes from, see [`Feed::open`]; 0 for sound.
    pub opening: u64,
    /// Presentation time.
    pub pts: Duration,
    /// Decoding time.
    pub dts: Duration,
    /// Decoding can begin here; true for all sound.
    pub key: bool,
    /// H.264 in AVC form (four-byte lengths), or raw AAC.
    pub data: &'a [u8],
    /// The decoder configuration for this unit: `avcC` record or `AudioSpecificConfig`.
    pub config: &'a Arc<[u8]>,
    /// Width and height in pixels, for video.
    pub size: (u32, u32),
}

/// Receives what the capture delivers; called on its streaming threads, so it must not block.
pub trait Consumer: Send + Sync {
    /// A picture.
    fn video(&self, unit: Unit<'_>);
    /// A frame of sound.
    fn audio(&self, unit: Unit<'_>);
}

type KeyFrameRequest = Arc<dyn Fn() + Send + Sync>;

/// Connects the capture to its consumers; both may come and go.
#[derive(Default)]
pub struct Feed {
    consumers: Mutex<Vec<Weak<dyn Consumer>>>,
    openings: AtomicU64,
    key_frame_request: Mutex<Option<KeyFrameRequest>>,
}

impl Feed {
    /// Delivers to `consumer` as long as it lives.
    pub fn attach(&self, consumer: &Arc<impl Consumer + 'static>) {
        let consumer: Arc<dyn Consumer> = consumer.clone();
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&consumer));
    }

    /// Returns the number of a new opening of the camera, from 1.
    pub fn open(&self) -> u64 {
        self.openings.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Passes a picture to all consumers.
    pub fn video(&self, unit: Unit<'_>) {
        for consumer in self.living() {
            consumer.video(unit);
        }
    }

    /// Passes a frame of sound to all consumers.
    pub fn audio(&self, unit: Unit<'_>) {
        for consumer in self.living() {
            consumer.audio(unit);
        }
    }

    /// Asks the encoder for a key frame, if there is one.
    pub fn ask_for_key_frame(&self) {
        let request = self.key_frame_request.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(request) = request {
            request();
        }
    }

    /// Sets how the current encoder is asked for a key frame.
    pub fn on_key_frame_request(&self, request: Option<KeyFrameRequest>) {
        *self.key_frame_request.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    fn living(&self) -> Vec<Arc<dyn Consumer>> {
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|consumer| consumer.strong_count() > 0);
        consumers.iter().filter_map(Weak::upgrade).collect()
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}
