use std::os::unix::fs::symlink;

use super::super::mode::FrameRate;
use super::*;

const CAMERA: u32 = V4L2_CAP_VIDEO_CAPTURE;

fn described(fourcc: FourCC, flags: FormatFlags) -> FormatDescription {
    FormatDescription { index: 0, typ: 0, flags, description: String::new(), fourcc }
}

fn raw(code: [u8; 4]) -> FormatDescription {
    described(FourCC::new(&code), FormatFlags::empty())
}

fn coded(code: [u8; 4]) -> FormatDescription {
    described(FourCC::new(&code), FormatFlags::COMPRESSED)
}

fn kind(
    driver: &str,
    device_caps: u32,
    capture: &[FormatDescription],
    output: &[FormatDescription],
    input: Input,
) -> Kind {
    let capability = Capability { driver: driver.to_owned(), device_caps, ..Capability::default() };
    classify(&capability, capture, output, input)
}

#[test]
fn cameras_are_told_from_what_only_looks_like_one() {
    let yuyv = [raw(*b"YUYV"), coded(*b"MJPG")];
    assert_eq!(kind("uvcvideo", CAMERA, &yuyv, &[], Input::Sensor), Kind::Camera);
    assert_eq!(kind("unicam", CAMERA, &yuyv, &[], Input::Sensor), Kind::Camera);
    assert_eq!(kind("hdmi", V4L2_CAP_VIDEO_CAPTURE_MPLANE, &yuyv, &[], Input::NoSignal), Kind::Camera);
    assert_eq!(kind("uvcvideo", V4L2_CAP_META_CAPTURE, &[], &[], Input::Missing), Kind::Metadata);
    assert_eq!(kind("rkisp1", V4L2_CAP_META_OUTPUT | V4L2_CAP_IO_MC, &[], &[], Input::Missing), Kind::Metadata);
    assert_eq!(kind("vivid", V4L2_CAP_VIDEO_OUTPUT, &[], &yuyv, Input::Missing), Kind::Output);
    assert_eq!(kind("v4l2 loopback", CAMERA, &[], &[], Input::Sensor), Kind::Loopback);
    assert_eq!(kind("v4l2 loopback", CAMERA | V4L2_CAP_VIDEO_OUTPUT, &yuyv, &yuyv, Input::Sensor), Kind::Loopback);
    assert!(matches!(kind("broken", CAMERA, &[], &[], Input::Sensor), Kind::Other(_)));
    assert!(matches!(kind("radio", 0, &[], &[], Input::Missing), Kind::Other(_)));
}

#[test]
fn what_sits_behind_a_media_controller_is_recognised() {
    let nv12 = [raw(*b"NV12")];
    let flagged = V4L2_CAP_VIDEO_CAPTURE_MPLANE | V4L2_CAP_IO_MC;
    assert_eq!(kind("rkisp1", flagged, &nv12, &[], Input::Sensor), Kind::MediaController);
    assert_eq!(kind("unicam", CAMERA | V4L2_CAP_IO_MC, &nv12, &[], Input::Sensor), Kind::MediaController);
    assert_eq!(kind("xilinx-vipp", CAMERA, &nv12, &[], Input::Missing), Kind::MediaController);
    assert_eq!(kind("sun6i-csi", CAMERA, &nv12, &[], Input::Sensor), Kind::MediaController);
}

#[test]
fn codecs_are_told_apart_by_which_side_is_compressed() {
    let (nv12, h264) = ([raw(*b"NV12")], [coded(*b"H264"), coded(*b"HEVC")]);
    let codecs = vec![PixelFormat::H264, PixelFormat::from_fourcc(FourCC::new(b"HEVC"))];
    let m2m = V4L2_CAP_VIDEO_M2M_MPLANE;
    assert_eq!(kind("enc", m2m, &h264, &nv12, Input::Missing), Kind::Encoder { codecs: codecs.clone() });
    assert_eq!(kind("dec", m2m, &nv12, &h264, Input::Missing), Kind::Decoder { codecs: codecs.clone() });
    assert_eq!(kind("scale", V4L2_CAP_VIDEO_M2M, &nv12, &nv12, Input::Missing), Kind::Converter);
    let before_the_flag = V4L2_CAP_VIDEO_CAPTURE_MPLANE | V4L2_CAP_VIDEO_OUTPUT_MPLANE;
    assert_eq!(kind("old", before_the_flag, &h264, &nv12, Input::Missing), Kind::Encoder { codecs });
}

#[test]
fn a_grid_is_split_where_small_pictures_are_faster() {
    let fps = |rate| FrameRate::new(rate, 1).unwrap();
    let rates = |width: u32, _| Rates::List(vec![if width > 1280 { fps(15) } else { fps(60) }]);
    let (min, step) = ((2, 2), (2, 2));
    let grid = Sizes::Grid { min, max: (3840, 2160), step };
    let split = with_rates(grid, rates);
    let ends: Vec<_> = split.iter().map(|(sizes, rates)| (sizes.largest(), rates.fastest().unwrap())).collect();
    assert_eq!(ends, [((640, 480), fps(60)), ((1280, 720), fps(60)), ((3840, 2160), fps(15))]);
    assert_eq!(with_rates(grid, |_, _| Rates::Unknown), [(grid, Rates::Unknown)]);
    // The new upper end lies on the grid.
    let coarse = Sizes::Grid { min: (32, 32), max: (3840, 2160), step: (64, 64) };
    assert_eq!(with_rates(coarse, rates)[1].0.largest(), (1248, 672));
}

/// A made-up sysfs with one USB camera of two nodes, at `usb1/1-2/1-2:1.0`.
fn sysfs(serial: Option<&str>) -> tempfile::TempDir {
    let sys = tempfile::tempdir().unwrap();
    let device = sys.path().join("devices/usb1/1-2");
    let interface = device.join("1-2:1.0");
    fs::create_dir_all(&interface).unwrap();
    fs::write(sys.path().join("devices/usb1/serial"), "the host controller's\n").unwrap();
    fs::write(interface.join("bInterfaceNumber"), "00\n").unwrap();
    if let Some(serial) = serial {
        fs::write(device.join("serial"), format!("{serial}\n")).unwrap();
    }
    for (number, index) in [(0, 0), (1, 1)] {
        let class = sys.path().join(format!("class/video4linux/video{number}"));
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("name"), "Rig UVC camera\n").unwrap();
        fs::write(class.join("index"), format!("{index}\n")).unwrap();
        symlink(&interface, class.join("device")).unwrap();
    }
    sys
}

#[test]
fn the_serial_number_is_the_cameras_own() {
    let place = |serial, node: &str| {
        let sys = sysfs(serial);
        let place = Place::of(Path::new(node), sys.path());
        identity("usb-1-2", place.index, &place.name, place.serial.as_deref())
    };
    assert_eq!(place(Some("0001"), "/dev/video0"), "usb-1-2/0 Rig UVC camera [0001]");
    assert_eq!(place(Some("0001"), "/dev/video1"), "usb-1-2/1 Rig UVC camera [0001]");
    assert_eq!(place(None, "/dev/video0"), "usb-1-2/0 Rig UVC camera");
}

#[test]
fn a_name_given_twice_is_shown_once() {
    assert_eq!(tidy("Integrated Camera: Integrated C".to_owned()), "Integrated Camera");
    assert_eq!(tidy("Logitech: C920".to_owned()), "Logitech: C920");
    assert_eq!(tidy("UVC Camera (046d:0825)".to_owned()), "UVC Camera (046d:0825)");
}

#[test]
fn nodes_are_listed_by_number_and_nothing_else_is() {
    let dev = tempfile::tempdir().unwrap();
    for name in ["video10", "video9", "videoX", "v4l-subdev0", "video"] {
        fs::write(dev.path().join(name), "").unwrap();
    }
    symlink("nowhere", dev.path().join("video3")).unwrap();
    let sys = sysfs(None);
    let devices = list_in(dev.path(), sys.path());
    let names: Vec<_> = devices.iter().map(|device| device.node.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["video9", "video10"]);
    assert!(devices[0].describe(&[]).ends_with("/video9: not a V4L2 device"), "{}", devices[0].describe(&[]));
    assert_eq!(list_in(Path::new("/there is no such folder"), sys.path()), []);
}

fn device(kind: Kind, modes: Vec<ModeRange>) -> Device {
    Device {
        node: "/dev/video0".into(),
        identity: String::new(),
        card: "UVC Camera".to_owned(),
        driver: "uvcvideo".to_owned(),
        bus: String::new(),
        serial: None,
        index: 0,
        kind,
        modes,
        no_signal: false,
    }
}

#[test]
fn a_person_is_told_what_a_device_is_and_who_holds_it() {
    let range = |format, width, height, rate| ModeRange {
        format,
        sizes: Sizes::One(width, height),
        rates: Rates::List(vec![FrameRate::new(rate, 1).unwrap()]),
    };
    let modes = vec![
        range(PixelFormat::Yuyv, 320, 240, 60),
        range(PixelFormat::Yuyv, 640, 480, 15),
        range(PixelFormat::Yuyv, 640, 480, 30),
        range(PixelFormat::Mjpeg, 1280, 720, 30),
        range(PixelFormat::Other(FourCC::new(b"Y16 ")), 1280, 720, 30),
    ];
    let holder = Holder { pid: 123, program: "ffmpeg".to_owned() };
    let mut camera = device(Kind::Camera, modes);
    assert_eq!(
        camera.describe(&[holder]),
        "/dev/video0 (UVC Camera, uvcvideo): camera, up to 640x480 at 30 fps YUYV, 1280x720 at 30 fps MJPG; held by \
         ffmpeg (pid 123)"
    );
    camera.no_signal = true;
    assert!(camera.describe(&[]).ends_with("MJPG; no signal at its input"));
    assert_eq!(
        device(Kind::Encoder { codecs: vec![PixelFormat::H264] }, vec![]).describe(&[]),
        "/dev/video0 (UVC Camera, uvcvideo): encoder for H264"
    );
    assert_eq!(
        device(Kind::MediaController, vec![]).describe(&[]),
        "/dev/video0 (UVC Camera, uvcvideo): not a plain V4L2 camera: it sits behind a media controller and needs its \
         pipeline set up first"
    );
    let infrared = vec![range(PixelFormat::Other(FourCC::new(b"GREY")), 640, 360, 30)];
    assert_eq!(
        device(Kind::Camera, infrared).describe(&[]),
        "/dev/video0 (UVC Camera, uvcvideo): camera without a usable format, up to 640x360 at 30 fps GREY"
    );
    assert!(device(Kind::Closed(Errno::EACCES), vec![]).describe(&[]).contains("cannot be opened: Permission denied"));
}
