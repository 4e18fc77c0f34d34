//! Reports when video devices come, go or change their permissions. No polling.
//!
//! inotify on `/dev`, because it also works without udev (devtmpfs alone) and sees udev's later change of group and mode,
//! which is when a new camera can first be opened. `/dev/v4l/by-id` and `by-path` are watched too, since udev makes those
//! links after the permissions. The listener enumerates anew. Several changes at once are reported once; the kernel bounds
//! its queue and reports an overflow.

#![expect(unsafe_code, reason = "tokio wants to be promised that a descriptor stays open")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

const LINKS: [&str; 3] = ["v4l", "v4l/by-id", "v4l/by-path"];

/// Watches the video devices of this machine.
#[derive(Debug)]
pub struct Hotplug {
    watch: AsyncFd<Watch>,
    dev: PathBuf,
}

/// nix's `Inotify` lacks `AsRawFd`, which tokio needs.
#[derive(Debug)]
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Hotplug {
    /// Starts to watch: [`Self::changed`] reports every later change. To miss nothing, enumerate after this call.
    /// Must be called within a tokio runtime. Fails when the user's inotify instances are used up.
    pub fn new() -> io::Result<Self> {
        Self::watch(Path::new("/dev"))
    }

    fn watch(dev: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(dev, flags())?;
        // SAFETY: the descriptor is open, belongs to the `Inotify` that moves in here, and is neither replaced nor closed
        // while the `AsyncFd` owns it: nothing here takes it out or hands out mutable access.
        let watch = unsafe { AsyncFd::register_with_interest(Watch(inotify), Interest::READABLE) }?;
        let hotplug = Self { watch, dev: dev.to_owned() };
        hotplug.watch_links();
        Ok(hotplug)
    }

    /// Waits until video devices changed since the last call. Cancel safe: a change is not lost when the future is
    /// dropped while it waits.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.watch.readable().await?;
            let mut changed = false;
            loop {
                match ready.get_inner().0.read_events() {
                    Ok(events) => changed |= events.iter().any(concerns_video),
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready_matching(Ready::READABLE);
            if changed {
                // The links' folders come with the first camera and go with the last. Watching before we tell means that
                // whatever was made in them before the watch is found by the enumeration that follows.
                self.watch_links();
                return Ok(());
            }
        }
    }

    fn watch_links(&self) {
        for folder in LINKS {
            // Not there yet, or no udev. Watching the same folder twice is one watch to the kernel.
            let _ = self.watch.get_ref().0.add_watch(&self.dev.join(folder), flags());
        }
    }
}

fn flags() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_ONLYDIR
}

/// `/dev/videoN`, the folder `/dev/v4l`, its folders, and the links in them, which all end in `-video-indexN`.
fn concerns_video(event: &InotifyEvent) -> bool {
    let overflow = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
    overflow || event.name.as_ref().is_some_and(|name| is_video_name(&name.to_string_lossy()))
}

fn is_video_name(name: &str) -> bool {
    name.starts_with("video") || name.contains("-video-index") || ["v4l", "by-id", "by-path"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    /// Fails the test instead of hanging it.
    async fn told(hotplug: &mut Hotplug) {
        tokio::time::timeout(Duration::from_secs(10), hotplug.changed()).await.expect("a change is told").unwrap();
    }

    #[tokio::test]
    async fn a_camera_that_comes_changes_its_mode_and_goes_is_told_each_time() {
        let dev = tempfile::tempdir().unwrap();
        let mut hotplug = Hotplug::watch(dev.path()).unwrap();
        let node = dev.path().join("video0");
        fs::write(&node, "").unwrap();
        told(&mut hotplug).await;
        fs::set_permissions(&node, Permissions::from_mode(0o660)).unwrap();
        told(&mut hotplug).await;
        fs::remove_file(&node).unwrap();
        told(&mut hotplug).await;
    }

    #[tokio::test]
    async fn a_link_in_a_folder_that_came_later_is_told() {
        let dev = tempfile::tempdir().unwrap();
        let mut hotplug = Hotplug::watch(dev.path()).unwrap();
        fs::create_dir(dev.path().join("v4l")).unwrap();
        told(&mut hotplug).await;
        fs::create_dir(dev.path().join("v4l/by-id")).unwrap();
        told(&mut hotplug).await;
        fs::write(dev.path().join("v4l/by-id/usb-Cam-video-index0"), "").unwrap();
        told(&mut hotplug).await;
    }

    #[tokio::test]
    async fn a_change_before_the_wait_is_not_lost_and_many_are_told_once() {
        let dev = tempfile::tempdir().unwrap();
        let mut hotplug = Hotplug::watch(dev.path()).unwrap();
        for number in 0..50 {
            fs::write(dev.path().join(format!("video{number}")), "").unwrap();
        }
        told(&mut hotplug).await;
        // Only what comes after is told again.
        fs::remove_file(dev.path().join("video7")).unwrap();
        told(&mut hotplug).await;
        assert_eq!(hotplug.watch.get_ref().0.read_events().unwrap_err(), Errno::EAGAIN);
    }

    #[test]
    fn other_devices_do_not_wake_anybody() {
        for name in ["video0", "video12", "v4l", "by-id", "usb-RigCam_Inc_Rig_UVC_camera_0001-video-index0"] {
            assert!(is_video_name(name), "{name}");
        }
        for name in ["null", "tty1", "media0", "v4l-subdev0", "usb-Mic_0001-audio-index0"] {
            assert!(!is_video_name(name), "{name}");
        }
    }

    #[tokio::test]
    async fn a_missing_folder_is_an_error() {
        assert!(Hotplug::watch(Path::new("/there is no such folder")).is_err());
    }
}
