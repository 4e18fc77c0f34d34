//! One stream on its way from ingest to its readers: encoded frames as they came, held once, read by everybody.
//!
//! [`Broadcast`] is written by one publisher at a time and read at any number of places (packager, WHEP, thumbnails,
//! restream), each at its own pace. It holds what arrived since a key frame, bounded by time and bytes; a reader that falls
//! behind that skips to the newest key frame, so a slow one never holds anybody back and costs no memory.
//!
//! Every frame carries its format and the number of its publication. A reader sees a new resolution or a publisher that
//! came back by comparing with the frame before; there is no second kind of message that could be lost or reordered.

mod format;
mod frame;
mod ring;

pub use format::{AudioFormat, FormatError, VideoFormat};
pub use frame::{Frame, Media};
pub use ring::{Bounds, Broadcast, Ended, Reader, Statistics};
