//! Failures of a camera, with words that tell a person what to do and a cause for programs.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use thiserror::Error;

use super::holders::{Holder, holders};
use crate::protocol::Cause;

/// Why a camera cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CameraError {
    /// Nothing on this machine fits the selector.
    #[error("no camera fits \"{selector}\"{}", there(.seen))]
    NotFound {
        /// What was looked for.
        selector: String,
        /// One sentence about each video device of this machine.
        seen: Vec<String>,
    },
    /// More than one camera fits the selector.
    #[error("more than one camera fits \"{selector}\": {}; name one of these", .identities.join(", "))]
    Ambiguous {
        /// What was looked for.
        selector: String,
        /// The identities that fit.
        identities: Vec<String>,
    },
    /// The device exists but is not a camera.
    #[error("{description}")]
    NotACamera {
        /// What the device is instead.
        description: String,
    },
    /// Another process uses the camera.
    #[error("{} is in use by {}", .node.display(), named(.holders))]
    Busy {
        /// The device node.
        node: PathBuf,
        /// Who has it open; empty when nobody could be identified.
        holders: Vec<Holder>,
    },
    /// The camera was there and vanished.
    #[error("{} is gone; was the camera unplugged?", .node.display())]
    Gone {
        /// The device node.
        node: PathBuf,
    },
    /// This process may not open the camera.
    #[error("{} may not be opened: {errno}; is this user in the group of the node (video), and does the service allow it (DeviceAllow)?", .node.display())]
    Forbidden {
        /// The device node.
        node: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The pipeline behind the node is not set up, or its formats do not match.
    #[error("{} does not start: the media pipeline behind it is not set up (media-ctl)", .node.display())]
    NotSetUp {
        /// The device node.
        node: PathBuf,
    },
    /// The kernel refused in another way.
    #[error("{} failed: {errno}", .node.display())]
    Failed {
        /// The device node.
        node: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

impl CameraError {
    /// The cause for phone and cloud.
    pub fn cause(&self) -> Cause {
        match self {
            Self::NotFound { .. } => Cause::NoCamera,
            Self::Busy { .. } => Cause::CameraBusy,
            Self::Gone { .. } => Cause::CameraLost,
            Self::Forbidden { .. } => Cause::CameraForbidden,
            Self::Ambiguous { .. } | Self::NotACamera { .. } | Self::NotSetUp { .. } | Self::Failed { .. } => {
                Cause::CameraFailed
            }
        }
    }
}

/// What a failed call on a camera means. For a busy camera this looks up the holder, which reads all of /proc.
pub fn open_error(node: &Path, errno: Errno) -> CameraError {
    let path = node.to_owned();
    match errno {
        Errno::EBUSY => CameraError::Busy { node: path, holders: holders(node) },
        Errno::ENODEV | Errno::ENXIO | Errno::ENOENT => CameraError::Gone { node: path },
        Errno::EACCES | Errno::EPERM => CameraError::Forbidden { node: path, errno },
        // What VIDIOC_STREAMON answers when the formats along a media pipeline do not match or a link is missing.
        Errno::EPIPE | Errno::ENOLINK => CameraError::NotSetUp { node: path },
        errno => CameraError::Failed { node: path, errno },
    }
}

pub(super) fn named(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "another process, which only root can identify".to_owned();
    }
    holders.iter().map(Holder::to_string).collect::<Vec<_>>().join(", ")
}

fn there(devices: &[String]) -> String {
    if devices.is_empty() {
        "; there are no video devices".to_owned()
    } else {
        format!("; there is {}", devices.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answer_becomes_what_a_phone_can_act_on() {
        let cause = |errno| open_error(Path::new("/dev/video9"), errno).cause();
        assert_eq!(cause(Errno::EBUSY), Cause::CameraBusy);
        assert_eq!(cause(Errno::ENODEV), Cause::CameraLost);
        assert_eq!(cause(Errno::ENOENT), Cause::CameraLost);
        assert_eq!(cause(Errno::EACCES), Cause::CameraForbidden);
        assert_eq!(cause(Errno::EPERM), Cause::CameraForbidden);
        assert_eq!(cause(Errno::EPIPE), Cause::CameraFailed);
        assert_eq!(cause(Errno::EIO), Cause::CameraFailed);
    }

    #[test]
    fn a_busy_camera_names_its_holder() {
        let busy = |holders| CameraError::Busy { node: "/dev/video0".into(), holders }.to_string();
        let holder = Holder { pid: 123, program: "ffmpeg".to_owned() };
        assert_eq!(busy(vec![holder]), "/dev/video0 is in use by ffmpeg (pid 123)");
        assert_eq!(busy(vec![]), "/dev/video0 is in use by another process, which only root can identify");
    }
}
