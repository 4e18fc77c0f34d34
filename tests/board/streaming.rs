//! The test source from the board's own kernel and processor to nginx on the host, frames counted and decoded.

use serde_json::json;

use crate::scene::{LIVE, SERVICE, Servers, UP, configure, control, disk};
use crate::support::{Board, probe};

const STREAM: &str = "stream-1";

#[test]
fn the_test_source_arrives_with_every_frame() {
    let (_folder, disk) = disk();
    let board = Board::boot(&disk);
    board.wait_service(SERVICE, "active", UP);
    let mut servers = Servers::start(&board);
    let test = "[camera]\ndevice = \"test\"\n[audio]\ndevice = \"test\"\n";
    configure(&board, &format!("{}{test}", servers.phone.config()));
    servers.phone.wait_connected(UP);
    servers.ask(STREAM, "live", "key");
    servers.wait_status(STREAM, "streaming", LIVE);
    servers.wait_publication(0, LIVE);
    let share = servers.share_of_frames();
    println!("{:.0} % of the frames arrived", share * 100.0);
    assert!(share >= 0.8, "{share}");
    control(&board).granted(&json!({"cmd": "stop"}));
    servers.recordings.wait_closed(0, LIVE);

    let all = servers.recordings.finish();
    assert_eq!(all.len(), 1, "one publication");
    let frames = all[0].frames();
    assert!(frames[0].key && frames.is_sorted_by(|a, b| a.dts_ms < b.dts_ms));
    let probe = probe::probe(&all[0].path);
    assert_eq!((&probe.codecs[..], probe.size), (&["h264".to_owned(), "aac".to_owned()][..], (320, 240)));
    assert_eq!(probe.frames, frames.len() as u64, "every frame can be decoded");
}
