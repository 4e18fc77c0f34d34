//! Cameras that are unplugged, replaced, stalled, taken by others, or faulty.

use std::time::Duration;

use serde_json::{Value, json};

use crate::live::{BACK, LIVE, Live, NOTICED, SIZE};
use crate::support::{CloudStandIn, Guest, PhoneStandIn, poll_until, process};

const WEBCAM: &str = "--mode yuyv:320x240@30 --mode yuyv:640x480@30";

#[test]
fn an_unplugged_webcam_is_missed_at_once_and_comes_back_on_the_same_connection() {
    let guest = Guest::boot();
    let webcam = guest.webcam("0001", WEBCAM);
    let mut live = Live::begin_patient(&guest, SIZE, 500_000);
    let generation = live.camera()["generation"].as_u64();
    // Another program still has the old node open, so the camera comes back under another number.
    guest.shell(&format!("sleep 300 < {} > /dev/null 2>&1 &", webcam.node()));
    webcam.unplug();
    live.wait_outage("camera_lost", Duration::from_secs(3));
    std::thread::sleep(Duration::from_secs(2)); // the outage itself
    webcam.plug();
    live.watch.wait_state("streaming", BACK);
    live.wait_more_frames(30);
    let camera = live.camera();
    assert_ne!(camera["device"], webcam.node(), "the node is another: {camera}");
    assert!(camera["generation"].as_u64() > generation);
    assert_eq!(live.recordings.count(), 1, "the server saw one publication");
    live.finish();
}

#[test]
fn the_connection_is_given_up_after_a_while_without_a_camera_but_not_the_stream() {
    let guest = Guest::boot();
    let webcam = guest.webcam("0001", WEBCAM);
    let mut live = Live::begin(&guest, "[stream]\ncamera_hold_s = 2\n", SIZE, 500_000);
    webcam.unplug();
    live.wait_outage("camera_lost", Duration::from_secs(3));
    live.recordings.wait_closed(0, Duration::from_secs(8));
    webcam.plug();
    live.watch.wait_state("streaming", BACK);
    live.recordings.wait_frames(1, 30, LIVE);
    live.finish();
}

#[test]
fn a_webcam_that_is_plugged_in_later_starts_by_itself() {
    let guest = Guest::boot();
    let webcam = guest.webcam("0001", &format!("{WEBCAM} --unplugged"));
    let mut live = Live::prepare(&guest, "");
    live.daemon.control().granted(&live.request(SIZE, 500_000));
    live.wait_outage("no_camera", NOTICED);
    webcam.plug();
    live.watch.wait_state("streaming", LIVE);
    live.recordings.wait_frames(0, 30, LIVE);
    live.finish();
}

#[test]
fn a_webcam_that_stalls_is_noticed_and_watched_for_its_return() {
    let guest = Guest::boot();
    let webcam = guest.webcam("0001", WEBCAM);
    let mut live = Live::begin(&guest, "", SIZE, 500_000);
    webcam.stall();
    live.wait_outage("camera_stalled", NOTICED);
    let meanwhile = live.watch.listen(Duration::from_secs(6));
    assert!(meanwhile.iter().all(|event| event.report() != Some("streaming")), "streaming over a frozen picture");
    webcam.resume();
    live.watch.wait_state("streaming", 2 * BACK);
    live.wait_more_frames(30);
    live.finish();
}

#[test]
fn a_camera_that_another_program_holds_is_refused_with_its_name_until_it_is_free() {
    let guest = Guest::boot();
    let webcam = guest.webcam("0001", WEBCAM);
    let mut live = Live::prepare(&guest, "");
    let other = guest.start(&["v4l2-ctl", "-d", webcam.node(), "--stream-mmap=3", "--stream-count=100000"], &[]);
    poll_until("the other program to stream", LIVE, || other.output().contains('<').then_some(()));
    let refused = live.daemon.control().refused(&live.request(SIZE, 500_000));
    assert_eq!(refused["cause"], "camera_busy", "{refused}");
    assert_eq!(refused["owner"]["name"], "v4l2-ctl", "{refused}");
    assert_eq!(refused["owner"]["pid"], other.pid(), "{refused}");
    other.signal(nix::sys::signal::Signal::SIGKILL);
    other.wait(LIVE);
    live.daemon.control().granted(&live.request(SIZE, 500_000));
    live.watch.wait_state("streaming", LIVE);
    live.finish();
}

#[test]
fn cloud_and_phone_are_told_which_program_holds_the_camera() {
    let guest = Guest::boot();
    let webcam = guest.webcam("0001", WEBCAM);
    let mut cloud = CloudStandIn::start_at(guest.host());
    let mut phone = PhoneStandIn::start_in(&guest);
    let live = Live::prepare(&guest, &format!("{}{}", cloud.config(), phone.config()));
    let other = guest.start(&["v4l2-ctl", "-d", webcam.node(), "--stream-mmap=3", "--stream-count=100000"], &[]);
    poll_until("the other program to stream", LIVE, || other.output().contains('<').then_some(()));
    let start = |id: &str| {
        json!({"type": "start_stream", "streamUrl": live.nginx.url("live", id), "streamId": id, "appId": "org.example",
               "video": {"width": SIZE.0, "height": SIZE.1, "bitrate": 500_000, "frameRate": 30}})
    };
    let over = |id: &str, message: &Value| message["streamId"] == id && message["status"] == "error";

    cloud.wait_connected(LIVE);
    cloud.send(&start("by-cloud"));
    let told_cloud = cloud.wait_message("the end", LIVE, |message| over("by-cloud", message));
    phone.send(&start("by-phone"));
    let told_phone = phone.wait("the end", LIVE, |message| over("by-phone", message));
    for told in [told_cloud, told_phone] {
        assert_eq!(told["cause"], "camera_busy", "{told}");
        assert_eq!(told["owner"], json!({"kind": "foreign", "name": "v4l2-ctl", "pid": other.pid()}), "{told}");
        let sentence = format!("the camera is in use: program v4l2-ctl (pid {})", other.pid());
        assert_eq!(told["errorDetails"], sentence, "{told}");
    }
    live.daemon.finish();
}

#[test]
fn a_photo_of_a_real_camera_is_taken_while_live() {
    let guest = Guest::boot();
    guest.webcam("0001", WEBCAM);
    let live = Live::begin(&guest, "", SIZE, 500_000);
    let photo = live.daemon.control().photo("org.example").expect("the owner may");
    assert!(photo.starts_with(&[0xff, 0xd8, 0xff]) && photo.ends_with(&[0xff, 0xd9]), "a whole JPEG");
    live.finish();
}

#[test]
fn pictures_in_jpeg_are_decoded_where_there_are_no_others_so_large() {
    let guest = Guest::boot();
    guest.webcam("0001", "--mode yuyv:320x240@30 --mode mjpeg:640x480@30");
    let live = Live::begin(&guest, "", (640, 480), 800_000);
    let camera = live.camera();
    assert!(camera["mode"].as_str().is_some_and(|mode| mode.contains("640x480")), "{camera}");
    let ended = live.finish();
    let all = &ended.recordings;
    assert_eq!(crate::support::probe::probe(&all[0].path).size, (640, 480));
}

#[test]
fn a_camera_that_delivers_h264_is_passed_through_and_can_be_photographed() {
    let guest = Guest::boot();
    guest.webcam("0001", "--mode yuyv:640x480@30 --mode h264:640x480@30");
    let live = Live::begin(&guest, "", (640, 480), 800_000);
    assert_eq!(live.camera()["encoder"], "camera");
    let photo = live.daemon.control().photo("org.example").expect("the owner may");
    assert!(photo.starts_with(&[0xff, 0xd8, 0xff]));
    let ended = live.finish();
    let all = &ended.recordings;
    assert_eq!(crate::support::probe::probe(&all[0].path).complaints, "");
}

#[test]
fn a_sensor_on_its_side_gives_an_upright_picture_of_the_asked_shape() {
    let guest = Guest::boot();
    guest.webcam("0001", WEBCAM);
    let more = "[camera]\ndevice = \"auto\"\nrotation = 90\n";
    let live = Live::begin(&guest, more, (240, 320), 500_000);
    // The smallest width that may be requested is 320: the picture comes as near to the requested shape as that
    // allows.
    let ended = live.finish();
    let all = &ended.recordings;
    let probe = crate::support::probe::probe(&all[0].path);
    assert!(probe.size.0 <= 480 && probe.size.1 <= 640, "turned: {:?}", probe.size);
    assert_eq!(probe.complaints, "");
}

#[test]
fn faults_of_the_driver_end_in_pictures_or_in_a_cause() {
    let guest = Guest::boot();
    let nodes = guest.hardware("vivid n_devs=1 node_types=0x1 input_types=0x0");
    let node = &nodes[0];
    let mut live = Live::begin(&guest, "", SIZE, 500_000);
    for fault in ["inject_vidioc_qbuf_error", "inject_vidioc_streamon_error", "inject_v4l2_buf_flag_error"] {
        guest.shell(&format!("v4l2-ctl -d {node} --set-ctrl={fault}=1"));
        let meanwhile = live.watch.listen(Duration::from_secs(4));
        for outage in meanwhile.iter().filter(|event| event.report() == Some("reconnecting")) {
            assert_ne!(outage.cause(), "none", "{fault}");
        }
        wait_fresh_frames(&live, fault);
    }
    live.finish();
}

/// Waits until the camera delivers pictures again, and the stream carries them.
fn wait_fresh_frames(live: &Live, after: &str) {
    poll_until(&format!("frames after {after}"), LIVE, || {
        let before = live.camera()["frames"].as_u64()?;
        std::thread::sleep(Duration::from_millis(500));
        let state = live.daemon.control().status();
        let (now, streaming) = (state["camera"]["frames"].as_u64()?, state["stream"]["state"] == "streaming");
        (now > before && streaming).then_some(())
    });
    live.wait_more_frames(15);
}

#[test]
fn a_driver_that_drops_buffers_costs_frames_and_not_the_stream() {
    let guest = Guest::boot();
    let nodes = guest.hardware("vivid n_devs=1 node_types=0x1 input_types=0x0");
    let mut live = Live::begin(&guest, "", SIZE, 500_000);
    let rate = |live: &mut Live| {
        let over = Duration::from_secs(5);
        let before = live.camera()["frames"].as_u64().expect("a running camera counts its frames");
        let told = live.watch.listen(over);
        assert!(told.iter().all(|event| event.report().is_none()), "the stream was not touched: {told:?}");
        let after = live.camera()["frames"].as_u64().expect("a running camera counts its frames");
        (after - before) as f64 / over.as_secs_f64()
    };
    let whole = rate(&mut live);
    guest.shell(&format!("v4l2-ctl -d {} --set-ctrl=percentage_of_dropped_buffers=30", nodes[0]));
    let thinned = rate(&mut live);
    // Seven tenths remain; a busy machine drops more.
    assert!(thinned < 0.9 * whole && thinned > 0.4 * whole, "{thinned:.1} of {whole:.1} frames a second");
    assert_eq!(live.daemon.control().status()["stream"]["state"], "streaming");
    assert_eq!(live.recordings.count(), 1, "the server saw one publication");
    live.finish();
}

/// Sets up an HDMI input at 720p; returns its node.
fn hdmi(guest: &Guest) -> String {
    let node = guest.hardware("vivid n_devs=1 node_types=0x1 input_types=0x3").remove(0);
    guest.shell(&format!(
        "v4l2-ctl -d {node} --set-dv-bt-timings width=1280,height=720,interlaced=0,pixelclock=74250000,hfp=110,hs=40,\
         hbp=220,vfp=5,vs=5,vbp=20,polarities=3"
    ));
    node
}

/// Sets the signal of an HDMI input: `dv_timings_signal_mode` of vivid.
fn set_signal(guest: &Guest, node: &str, mode: u32) {
    guest.shell(&format!("v4l2-ctl -d {node} --set-ctrl=dv_timings_signal_mode={mode}"));
}

#[test]
fn hdmi_that_loses_its_signal_is_not_streaming_until_it_is_back() {
    let guest = Guest::boot();
    let node = hdmi(&guest);
    let mut live = Live::begin(&guest, "", (640, 360), 800_000);
    // The camera delivers noise meanwhile: no deadline for pictures would notice the fault.
    for (fault, mode) in [("no signal", 1), ("no lock", 2)] {
        set_signal(&guest, &node, mode);
        live.wait_outage("camera_no_signal", NOTICED);
        // The server may hang up meanwhile, after three silent seconds.
        let meanwhile = live.watch.listen(Duration::from_millis(1500));
        assert!(meanwhile.iter().all(|event| event.report() != Some("streaming")), "streaming noise: {fault}");
        set_signal(&guest, &node, 0);
        live.watch.wait_state("streaming", BACK);
        live.wait_more_frames(30);
    }
    live.finish();
}

#[test]
fn hdmi_whose_signal_comes_later_is_streamed_then() {
    let guest = Guest::boot();
    let node = hdmi(&guest);
    set_signal(&guest, &node, 1);
    let mut live = Live::prepare(&guest, "");
    live.daemon.control().granted(&live.request((640, 360), 800_000));
    live.wait_outage("camera_no_signal", NOTICED);
    set_signal(&guest, &node, 0);
    live.watch.wait_state("streaming", BACK);
    live.recordings.wait_frames(0, 30, LIVE);
    live.finish();
}

/// The first picture of a recording, 640x360, as the mean grey of each column.
fn columns(recording: &std::path::Path) -> Vec<u32> {
    const WIDTH: usize = 640;
    let path = recording.to_str().expect("a path in UTF-8");
    let arguments = ["-v", "error", "-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"];
    let picture = process::run("ffmpeg", &arguments).stdout;
    assert_eq!(picture.len(), WIDTH * 360, "one picture of the asked size");
    let column = |x| picture.iter().skip(x).step_by(WIDTH).map(|grey| u32::from(*grey)).sum::<u32>() / 360;
    (0..WIDTH).map(column).collect()
}

/// Streams a 4:3 webcam as 16:9; returns the first picture's columns.
fn wide(fit: &str) -> Vec<u32> {
    let guest = Guest::boot();
    guest.webcam("0001", "--mode yuyv:640x480@30");
    let live = Live::begin(&guest, &format!("[camera]\ndevice = \"auto\"\n{fit}"), (640, 360), 800_000);
    let ended = live.finish();
    columns(&ended.recordings[0].path)
}

#[test]
fn a_letterboxed_picture_of_another_shape_has_black_bars_beside_it() {
    let columns = wide("fit = \"letterbox\"\n");
    // 640x480 in 640x360 becomes 480x360, with 80 columns left and right; except at the edges of the encoder's blocks.
    let black = |columns: &[u32]| columns.iter().all(|grey| *grey < 24);
    assert!(black(&columns[..76]) && black(&columns[564..]), "bars: {columns:?}");
    assert!(columns[84..556].iter().all(|grey| *grey > 48), "the picture between them: {columns:?}");
}

#[test]
fn a_cropped_picture_of_another_shape_fills_the_width() {
    let columns = wide("");
    assert!(columns.iter().all(|grey| *grey > 48), "{columns:?}");
}

#[test]
fn hdmi_at_720p_streams_through_software() {
    let guest = Guest::boot_alone();
    hdmi(&guest);
    let live = Live::begin(&guest, "", (1280, 720), 1_500_000);
    assert_eq!(live.camera()["encoder"], "x264");
    live.recordings.wait("10 s of media", 2 * LIVE, |all| {
        all[0].frames().last().is_some_and(|frame| frame.dts_ms > 10_000).then_some(())
    });
    let ended = live.finish();
    let all = &ended.recordings;
    let frames = all[0].frames();
    let seconds = f64::from(frames[frames.len() - 1].dts_ms) / 1000.0;
    let rate = frames.len() as f64 / seconds;
    println!("{rate:.1} frames a second");
    // The source has 60 frames a second; no more than requested are sent.
    assert!((0.8 * 30.0..1.05 * 30.0).contains(&rate), "{rate:.1} frames a second");
    let probe = crate::support::probe::probe(&all[0].path);
    assert_eq!((probe.size, probe.frames, probe.complaints.as_str()), ((1280, 720), frames.len() as u64, ""));
}

#[test]
fn the_doctor_names_camera_modes_encoder_and_what_is_missing() {
    let guest = Guest::boot();
    guest.hardware("encoder");
    guest.webcam("0001", WEBCAM);
    let live = Live::prepare(&guest, "");
    let checkup = live.daemon.control().granted(&json!({"cmd": "doctor"})).to_string();
    for part in ["uvcvideo", "640x480", "v4l2h264enc", "pictures/s", "switched off by audio.device"] {
        assert!(checkup.contains(part), "{part} is not in {checkup}");
    }
}

/// Streams and takes a photo with a camera and an encoder (with these parameters) that take the same format; returns
/// whether pictures passed between them without a copy.
fn without_copies(parameters: &str) -> bool {
    let guest = Guest::boot();
    guest.hardware(&format!("encoder {parameters}"));
    guest.hardware("vivid n_devs=1 node_types=0x1 input_types=0x0");
    let live = Live::begin(&guest, "", (640, 360), 500_000);
    let camera = live.camera();
    assert_eq!(camera["encoder"], "v4l2");
    let photo = live.daemon.control().photo("org.example").expect("the owner may");
    assert!(photo.starts_with(&[0xff, 0xd8, 0xff]) && photo.ends_with(&[0xff, 0xd9]), "a whole JPEG");
    live.wait_more_frames(60);
    let now = live.camera();
    for same in ["zero_copy", "generation", "encoder"] {
        assert_eq!(now[same], camera[same], "{now}");
    }
    assert!(live.daemon.log().contains("tried to share buffers"));
    let ended = live.finish();
    let probe = crate::support::probe::probe(&ended.recordings[0].path);
    assert_eq!((probe.size, probe.complaints.as_str()), ((640, 360), ""));
    camera["zero_copy"].as_bool().expect("the state tells")
}

#[test]
fn pictures_that_the_encoder_takes_as_they_are_are_not_copied() {
    assert!(without_copies(""));
}

#[test]
fn pictures_are_copied_for_an_encoder_that_takes_none_of_a_cameras_buffers() {
    assert!(!without_copies("no_import=1"));
}

#[test]
fn pictures_are_copied_for_an_encoder_that_only_claims_to_take_a_cameras_buffers() {
    assert!(!without_copies("no_import=2"));
}
