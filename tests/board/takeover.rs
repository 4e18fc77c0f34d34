//! A board that loses power while live at lenscast-cloud, which lets it take over its old stream.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::scene::{BACK, LIVE, UP, WEBCAM, back_on, configure, control, disk};
use crate::support::cloud_server::{CloudServer, TOKEN, USER};
use crate::support::{Board, poll_until};

const BETWEEN_QUESTIONS: Duration = Duration::from_millis(200);

#[test]
fn a_board_that_was_cut_off_while_live_comes_back_at_the_cloud() {
    let (_folder, disk) = disk();
    let mut board = Board::boot(&disk);
    let cloud = CloudServer::start_at(board.host(), "");
    let url = format!("ws://{}:{}/glasses-ws", board.host(), cloud.http());
    board.hardware("encoder");
    board.webcam("0001", WEBCAM);
    board.shell("udevadm settle");
    configure(&board, &format!("[cloud]\nurl = \"{url}\"\ntoken = \"{TOKEN}\"\n"));
    poll_until("the glasses' link", UP, || cloud.log().contains("glasses connected").then_some(()));
    cloud.ctl(&["start", "--user", USER]);
    let is_active = || {
        // Each query is a process on the machine that emulates the board.
        sleep(BETWEEN_QUESTIONS);
        cloud.streams()[0]["status"] == "active"
    };
    poll_until("the stream to be active", LIVE, || is_active().then_some(()));

    back_on(&mut board);
    let up = Instant::now();
    poll_until("the stream to be active again", BACK, || {
        (is_active() && control(&board).status()["stream"]["state"] == "streaming").then_some(())
    });
    println!("live at the cloud {:.1} s after the service was seen up", up.elapsed().as_secs_f64());
}
