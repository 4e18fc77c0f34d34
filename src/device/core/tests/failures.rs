//! A failure reaches whoever is concerned with all that is known of it.

use super::*;

fn stranger() -> Owner {
    Owner { kind: OwnerKind::Foreign, name: "zoom".into(), pid: Some(812), for_s: None }
}

fn busy() -> Failure {
    Failure { owner: Some(stranger()), ..Failure::new(Cause::CameraBusy, "EBUSY") }
}

fn broken_encoders() -> Failure {
    Failure::new(Cause::EncoderFailed, "v4l2: hangs; x264: no element x264enc here")
}

#[test]
fn phone_and_cloud_are_told_which_program_holds_the_camera() {
    for link in LinkId::ALL {
        let mut daemon = Daemon::new();
        daemon.give(Input::LinkUp(link));
        daemon.world = World::Silent;
        daemon.give(Input::LinkMessage(link, start_message("s1", "a").to_string()));
        daemon.world = World::Works;
        daemon.lose_capture(busy());
        let end = daemon.sent.last().unwrap();
        assert_eq!((&end["status"], &end["cause"]), (&json!("error"), &json!("camera_busy")));
        assert_eq!(end["errorDetails"], "the camera is in use: program zoom (pid 812)");
        assert_eq!(end["owner"], json!({"kind": "foreign", "name": "zoom", "pid": 812}));
        assert_eq!(daemon.core.state(daemon.now).last_end.unwrap().failure, busy());
    }
}

#[test]
fn who_takes_a_running_streams_camera_is_told_while_it_is_waited_for() {
    let mut daemon = Daemon::new();
    daemon.give(Input::LinkUp(LinkId::Uart));
    daemon.give(Input::LinkMessage(LinkId::Uart, start_message("s1", "a").to_string()));
    daemon.world = World::Silent;
    daemon.lose_capture(busy());
    let lost = daemon.sent.last().unwrap();
    assert_eq!((&lost["status"], &lost["owner"]["pid"]), (&json!("reconnecting"), &json!(812)));
    let state = daemon.core.state(daemon.now);
    assert_eq!((state.camera.state, state.camera.failure), (CameraState::Lost, Some(busy())));
    assert_eq!(state.stream.unwrap().failure, Some(busy()));
}

#[test]
fn who_asks_hears_what_every_encoder_said() {
    for photo in [false, true] {
        let mut daemon = Daemon::new();
        daemon.world = World::Silent;
        let request = if photo { daemon.photo("a") } else { daemon.start("a", "s1", StreamKind::Unmanaged) };
        daemon.world = World::Works;
        daemon.lose_capture(broken_encoders());
        let refusal = daemon.reply(request).as_ref().expect_err("granted");
        assert_eq!(refusal.message, "no video encoder works: v4l2: hangs; x264: no element x264enc here");
    }
}

#[test]
fn a_photo_that_waited_in_vain_says_for_what() {
    let mut daemon = Daemon::new();
    daemon.world = World::Silent;
    let request = daemon.photo("a");
    daemon.lose_capture(Failure::new(Cause::NoCamera, "no camera fits \"usb-1\""));
    daemon.pass(PHOTO_LIMIT);
    let refusal = daemon.reply(request).as_ref().expect_err("granted");
    assert_eq!(refusal.to_string(), "no camera was found: no camera fits \"usb-1\" (no_camera)");
}

#[test]
fn the_pid_of_a_lease_is_told_if_it_is_known() {
    for pid in [Some(4), None] {
        let mut daemon = Daemon::new();
        let request = daemon.core.next_request();
        let peer = Peer { pid, uid: 0, program: "zbarcam".into() };
        let what = Request::CameraAcquire { program: None };
        daemon.give(Input::Control { request, connection: 1, peer, what });
        assert_eq!(daemon.core.state(daemon.now).owner.unwrap().pid, pid);
    }
}
