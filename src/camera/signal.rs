//! Whether a camera's input still receives a signal.
//!
//! A bridge without a signal still delivers pictures, its last one or noise, so frame deadlines do not notice. Drivers answer
//! when asked; some lack the event (`V4L2_EVENT_SOURCE_CHANGE`). A sensor or webcam has no signal to lose.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::v4l2::{self, Input};

/// An input that can lose its signal, such as an HDMI socket.
#[derive(Debug)]
pub struct Signal(OwnedFd);

impl Signal {
    /// The input of a camera; `None` where there is no signal to lose, or the driver cannot tell.
    pub fn of(node: &Path) -> Option<Self> {
        let file = v4l2::open(node).ok()?;
        matches!(v4l2::input(file.as_fd()), Input::Ready | Input::NoSignal).then_some(Self(file))
    }

    /// It is there and the receiver is locked to it. Blocks for a moment, such as a few transfers over I2C.
    pub fn is_there(&self) -> bool {
        v4l2::input(self.0.as_fd()) != Input::NoSignal
    }
}
