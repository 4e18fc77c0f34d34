//! One stream on its way from ingest to its readers: encoded frames as they came, held once, read by everybody.
//!
//! A [`Broadcast`] is written by one publisher at a time and read by any number of readers (packager, WHEP, thumbnails,
//! restream), each at its own pace. It holds what arrived since a key frame, limited in time and bytes. A reader that
//! falls further behind skips to the newest key frame, so a slow reader never holds anybody back and costs no memory.
//!
//! Every frame carries its format and the number of its publication. By comparing with the frame before, a reader
//! notices a new resolution or a publisher that came back. There is no second kind of message that could be lost or
//! reordered.

mod format;
mod frame;
mod ring;

pub use format::{AudioFormat, FormatError, VideoFormat};
pub use frame::{Frame, Media};
pub use ring::{Bounds, Broadcast, Ended, Reader, Statistics};
