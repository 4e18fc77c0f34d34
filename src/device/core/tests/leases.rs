//! Leases of the camera by other processes.

use super::*;

#[test]
fn a_process_gets_the_camera_closed_and_its_end_frees_it() {
    let mut daemon = Daemon::new();
    daemon.photo("a"); // the camera lingers open
    let lease = daemon.ask(9, Request::CameraAcquire { program: None });
    assert!(matches!(daemon.reply(lease), Ok(Answer::Lease(lease)) if lease.device == "/dev/video7"));
    let request = daemon.start("a", "s1", StreamKind::Unmanaged);
    let owner = daemon.refused(request).1.unwrap();
    assert_eq!((owner.kind, owner.name.as_str(), owner.pid), (OwnerKind::Process, "zbarcam", Some(4)));
    daemon.give(Input::ConnectionClosed(9));
    let request = daemon.start("a", "s2", StreamKind::Unmanaged);
    assert!(daemon.reply(request).is_ok());
}

#[test]
fn a_lease_that_could_not_be_told_is_taken_back() {
    let mut daemon = Daemon::new();
    let lease = daemon.ask(9, Request::CameraAcquire { program: None });
    daemon.give(Input::Undeliverable(lease));
    assert_eq!(daemon.core.state(daemon.now).owner, None);
}
