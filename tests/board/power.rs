//! A board that loses power, which leaves a dead publisher at its server; and one that boots without network or peers.

use std::time::Duration;

use serde_json::json;

use crate::scene::{BACK, LIVE, SERVICE, Servers, UP, WEBCAM, back_on, configure, control, disk};
use crate::support::Board;

/// nginx's `drop_idle_publisher` of `patient`, plus what the tests allow for the retry every 2 s.
const IDLE: Duration = Duration::from_secs(10);

#[test]
fn a_board_that_was_cut_off_while_live_waits_for_nginx_to_see_it() {
    let (_folder, disk) = disk();
    let mut board = Board::boot(&disk);
    let mut servers = Servers::start(&board);
    board.hardware("encoder");
    board.webcam("0001", WEBCAM);
    board.shell("udevadm settle");
    configure(&board, &servers.phone.config());
    servers.phone.wait_connected(UP);
    for application in ["patient", "faithful"] {
        let (stream, again) = (format!("{application}-1"), format!("{application}-2"));
        let before = servers.recordings.count();
        servers.ask(&stream, application, "key");
        servers.wait_status(&stream, "streaming", LIVE);
        servers.wait_publication(before, LIVE);
        back_on(&mut board);
        servers.phone.wait_connected(UP);
        // The daemon may have resumed its stream; this one replaces it, with the same key.
        servers.ask(&again, application, "key");
        if application == "patient" {
            servers.wait_status(&again, "streaming", IDLE + BACK);
            servers.wait_publication(before + 1, BACK);
            control(&board).granted(&json!({"cmd": "stop"}));
        } else {
            servers.wait_outage(&again, "stream_exists", BACK);
        }
    }
}

#[test]
fn a_boot_without_camera_and_network_is_no_failure() {
    let (_folder, disk) = disk();
    let mut board = Board::boot(&disk);
    board.wait_service(SERVICE, "active", UP);
    // Without a network nobody can ask it: it reports its state by itself, and powers off.
    board.write(
        "/etc/systemd/system/tell.service",
        "[Unit]\nAfter=multi-user.target\n[Service]\nType=simple\nExecStart=/bin/sh -c 'systemctl is-system-running \
         --wait > /host/told; systemctl is-active lenscastd >> /host/told; systemctl show -p NRestarts --value lenscastd \
         >> /host/told; lenscastctl status >> /host/told 2>&1 && echo answers >> /host/told; sync; systemctl poweroff'\n\
         [Install]\nWantedBy=multi-user.target\n",
    );
    board.shell("systemctl enable --quiet tell && sync");
    board.power_off();
    board.boot_without_network();
    board.wait_off(UP);
    let told = std::fs::read_to_string(board.shared().join("told")).expect("it told");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..3], ["running", "active", "0"], "{told}");
    assert!(told.ends_with("answers\n"), "{told}");
}
