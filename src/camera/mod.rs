//! V4L2 devices: which exist, what they offer, who holds them, when they come and go.
//!
//! Each call enumerates anew, because node numbers change with every replug. A camera is recognised by its port and its
//! name ([`Device::identity`]). The calls block on the kernel, some for seconds when a USB device is wedged: run them on a
//! thread for blocking work, with a deadline. Only [`v4l2`] issues ioctls, also on an encoder's descriptor. Frames are the
//! business of `media`.

mod device;
mod error;
mod format;
mod holders;
mod hotplug;
mod mode;
mod select;
mod signal;
pub mod v4l2;

pub use device::{Device, Kind, list, list_in};
pub use error::{CameraError, open_error};
pub use format::PixelFormat;
pub use holders::{Holder, answer as answer_holders, holders, is_open_here};
pub use hotplug::Hotplug;
pub use mode::{Choice, Crop, FrameRate, Mode, ModeRange, Rates, Sizes, Wanted, choose};
pub use select::{InvalidSelector, Selector, find, find_in};
pub use signal::Signal;
