//! Finds the camera that a selector names.
//!
//! `auto` takes the first usable camera in this order: those with a signal before those without; USB, then built-in and
//! other hardware, then drivers that only simulate a camera; then by port. So a plugged-in camera wins over a built-in
//! one, and the answer does not depend on which node got number 0. `auto` never takes codecs, outputs, metadata, loopbacks,
//! nodes behind a media controller, or cameras without a usable format (infrared, raw sensors). The last three may be used
//! by path or identity: somebody may have set the pipeline up.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use thiserror::Error;

use super::device::{self, Device, Kind};
use super::error::{CameraError, open_error};

/// A camera, as the configuration names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// `auto`: the first usable camera.
    #[default]
    Auto,
    /// A node or a link to one, such as `/dev/v4l/by-id/...`; looked up anew each time. Begins with `/`.
    Path(PathBuf),
    /// A [`Device::identity`], or as much of it as is unique: the bus path, the card's name or the serial number.
    Identity(String),
}

/// A selector must not be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("which camera? say \"auto\", a path such as /dev/video0, or an identity as `lenscastctl camera list` shows it")]
pub struct InvalidSelector;

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" => Err(InvalidSelector),
            "auto" => Ok(Self::Auto),
            path if path.starts_with('/') => Ok(Self::Path(path.into())),
            identity => Ok(Self::Identity(identity.to_owned())),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Path(path) => path.display().fmt(f),
            Self::Identity(identity) => f.write_str(identity),
        }
    }
}

/// Finds the camera among the present ones.
pub fn find(selector: &Selector) -> Result<Device, CameraError> {
    find_in(Path::new("/dev"), Path::new("/sys"), selector)
}

/// [`find`], with the places of device nodes and of sysfs.
pub fn find_in(dev: &Path, sys: &Path, selector: &Selector) -> Result<Device, CameraError> {
    let Selector::Path(path) = selector else { return pick(selector, &device::list_in(dev, sys)) };
    match path.canonicalize() {
        Ok(node) => usable_when_named(device::probe(&node, sys)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(not_found(selector, &device::list_in(dev, sys)))
        }
        Err(error) => Err(open_error(path, Errno::try_from(error).unwrap_or(Errno::EIO))),
    }
}

fn pick(selector: &Selector, devices: &[Device]) -> Result<Device, CameraError> {
    match selector {
        Selector::Identity(text) => by_identity(selector, text, devices),
        _ => first_usable(selector, devices),
    }
}

fn first_usable(selector: &Selector, devices: &[Device]) -> Result<Device, CameraError> {
    if let Some(best) = devices.iter().filter(|device| is_plain_camera(device)).min_by_key(|device| order(device)) {
        return Ok(best.clone());
    }
    // A node that may not be opened could be the camera. A node that is busy on opening could not: only codecs limit how
    // often they are opened.
    devices
        .iter()
        .find_map(|device| match device.kind {
            Kind::Closed(errno @ (Errno::EACCES | Errno::EPERM)) => Some(open_error(&device.node, errno)),
            _ => None,
        })
        .map_or_else(|| Err(not_found(selector, devices)), Err)
}

fn is_plain_camera(device: &Device) -> bool {
    device.kind == Kind::Camera && device.modes.iter().any(|range| range.format.is_usable())
}

fn order(device: &Device) -> impl Ord + use<> {
    let class = match device.driver.as_str() {
        "vivid" | "vimc" => 2,
        _ if device.bus.starts_with("usb-") => 0,
        _ => 1,
    };
    (device.no_signal, class, device.bus.clone(), device.index, device.node.clone())
}

fn by_identity(selector: &Selector, text: &str, devices: &[Device]) -> Result<Device, CameraError> {
    let fits = |device: &Device| [&device.bus, &device.card].into_iter().chain(&device.serial).any(|part| part == text);
    let exact = devices.iter().find(|device| device.identity == text);
    if let Some(exact) = exact {
        return usable_when_named(exact.clone());
    }
    // A camera has other nodes of the same name, such as one for metadata.
    let (cameras, others): (Vec<_>, Vec<_>) =
        devices.iter().filter(|device| fits(device)).partition(|device| is_plain_camera(device));
    match (cameras.as_slice(), others.as_slice()) {
        ([one], _) | ([], [one, ..]) => usable_when_named((*one).clone()),
        ([], []) => Err(not_found(selector, devices)),
        _ => Err(CameraError::Ambiguous {
            selector: selector.to_string(),
            identities: cameras.iter().map(|device| device.identity.clone()).collect(),
        }),
    }
}

fn usable_when_named(device: Device) -> Result<Device, CameraError> {
    match device.kind {
        Kind::Camera | Kind::Loopback | Kind::MediaController if !device.modes.is_empty() => Ok(device),
        Kind::Closed(errno) => Err(open_error(&device.node, errno)),
        _ => Err(CameraError::NotACamera { description: device.describe(&[]) }),
    }
}

fn not_found(selector: &Selector, devices: &[Device]) -> CameraError {
    CameraError::NotFound {
        selector: selector.to_string(),
        seen: devices.iter().map(|device| device.describe(&[])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use v4l::FourCC;

    use super::*;
    use crate::camera::{FrameRate, ModeRange, PixelFormat, Rates, Sizes};
    use crate::protocol::Cause;

    fn device(number: u32, driver: &str, bus: &str, kind: Kind) -> Device {
        let rates = Rates::List(FrameRate::new(30, 1).into_iter().collect());
        let modes = vec![ModeRange { format: PixelFormat::Yuyv, sizes: Sizes::One(640, 480), rates }];
        Device {
            node: format!("/dev/video{number}").into(),
            identity: format!("{bus}/0 Cam"),
            card: "Cam".to_owned(),
            driver: driver.to_owned(),
            bus: bus.to_owned(),
            serial: None,
            index: 0,
            kind,
            modes,
            no_signal: false,
        }
    }

    fn auto(devices: &[Device]) -> Result<String, CameraError> {
        pick(&Selector::Auto, devices).map(|device| device.node.display().to_string())
    }

    fn named(text: &str, devices: &[Device]) -> Result<String, CameraError> {
        pick(&text.parse().unwrap(), devices).map(|device| device.node.display().to_string())
    }

    #[test]
    fn the_configurations_words_are_understood() {
        assert_eq!("auto".parse(), Ok(Selector::Auto));
        assert_eq!(" /dev/video2 ".parse(), Ok(Selector::Path("/dev/video2".into())));
        assert_eq!("usb-1/0 Cam".parse(), Ok(Selector::Identity("usb-1/0 Cam".to_owned())));
        assert_eq!(" ".parse::<Selector>(), Err(InvalidSelector));
        for text in ["auto", "/dev/video2", "usb-1/0 Cam"] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn auto_takes_usb_then_built_in_then_simulated_whatever_the_numbers() {
        let mut devices = vec![
            device(0, "vivid", "platform:vivid-000", Kind::Camera),
            device(1, "unicam", "platform:fe801000.csi", Kind::Camera),
            device(2, "uvcvideo", "usb-vhci_hcd.0-2", Kind::Camera),
            device(3, "uvcvideo", "usb-vhci_hcd.0-1", Kind::Camera),
        ];
        for expected in ["/dev/video3", "/dev/video2", "/dev/video1", "/dev/video0"] {
            assert_eq!(auto(&devices), Ok(expected.to_owned()));
            devices.retain(|device| device.node != Path::new(expected));
        }
        assert_eq!(auto(&devices).unwrap_err().cause(), Cause::NoCamera);
    }

    #[test]
    fn auto_prefers_a_camera_with_a_signal() {
        let mut dead = device(0, "uvcvideo", "usb-1", Kind::Camera);
        dead.no_signal = true;
        assert_eq!(
            auto(&[dead.clone(), device(1, "vivid", "platform:vivid-000", Kind::Camera)]).unwrap(),
            "/dev/video1"
        );
        assert_eq!(auto(&[dead]).unwrap(), "/dev/video0");
    }

    #[test]
    fn auto_never_takes_what_is_no_plain_camera() {
        let encoder = Kind::Encoder { codecs: vec![PixelFormat::H264] };
        for kind in [encoder, Kind::MediaController, Kind::Metadata, Kind::Output, Kind::Loopback, Kind::Converter] {
            let error = auto(&[device(0, "some", "usb-1", kind)]).unwrap_err();
            assert_eq!(error.cause(), Cause::NoCamera);
            assert!(error.to_string().contains("/dev/video0"), "{error}");
        }
        let mut infrared = device(0, "uvcvideo", "usb-1", Kind::Camera);
        infrared.modes[0].format = PixelFormat::from_fourcc(FourCC::new(b"GREY"));
        assert_eq!(auto(&[infrared]).unwrap_err().cause(), Cause::NoCamera);
    }

    #[test]
    fn a_camera_that_may_not_be_opened_is_not_reported_as_missing() {
        let closed = device(0, "", "", Kind::Closed(Errno::EACCES));
        assert_eq!(auto(std::slice::from_ref(&closed)).unwrap_err().cause(), Cause::CameraForbidden);
        let full = device(0, "", "", Kind::Closed(Errno::EBUSY));
        assert_eq!(auto(&[full]).unwrap_err().cause(), Cause::NoCamera);
        assert_eq!(auto(&[closed, device(1, "uvcvideo", "usb-1", Kind::Camera)]).unwrap(), "/dev/video1");
    }

    #[test]
    fn a_name_finds_the_camera_among_its_other_nodes_and_only_one() {
        let devices = [
            device(4, "uvcvideo", "usb-1", Kind::Metadata),
            device(5, "uvcvideo", "usb-1", Kind::Camera),
            device(6, "uvcvideo", "usb-2", Kind::Camera),
        ];
        assert_eq!(named("usb-1", &devices).unwrap(), "/dev/video5");
        assert_eq!(named("usb-2/0 Cam", &devices).unwrap(), "/dev/video6");
        let error = named("Cam", &devices).unwrap_err();
        assert!(error.to_string().contains("usb-1/0 Cam, usb-2/0 Cam"), "{error}");
        assert_eq!(named("usb-3", &devices).unwrap_err().cause(), Cause::NoCamera);
        assert_eq!(named("usb-1", &devices[..1]).unwrap_err().cause(), Cause::CameraFailed);
        let mut numbered = devices[2].clone();
        numbered.serial = Some("0001".to_owned());
        assert_eq!(named("0001", &[numbered]).unwrap(), "/dev/video6");
    }

    #[test]
    fn whoever_names_a_node_behind_a_media_controller_may_have_it() {
        let devices = [device(0, "rkisp1", "platform:rkisp1", Kind::MediaController)];
        assert_eq!(named("platform:rkisp1", &devices).unwrap(), "/dev/video0");
    }

    #[test]
    fn a_path_that_is_missing_or_no_camera_says_so() {
        let dev = tempfile::tempdir().unwrap();
        let find = |name: &str| {
            let path = dev.path().join(name);
            find_in(dev.path(), Path::new("/sys"), &Selector::Path(path)).unwrap_err()
        };
        assert_eq!(find("video0").cause(), Cause::NoCamera);
        std::fs::write(dev.path().join("video1"), "").unwrap();
        std::os::unix::fs::symlink("video1", dev.path().join("link")).unwrap();
        let error = find("link");
        assert_eq!(error.cause(), Cause::CameraFailed);
        assert!(error.to_string().contains("video1") && error.to_string().contains("not a V4L2 device"), "{error}");
    }
}
