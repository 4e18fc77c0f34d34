//! A person unplugs the camera and puts it back during a stream.

use std::io::{BufRead, IsTerminal, stderr, stdin};
use std::path::Path;
use std::time::Duration;

use lenscast::protocol::control::VideoWish;
use lenscast::protocol::{Cause, StreamState};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::live::{self, BEGIN, Live, News};
use super::report::Step;
use crate::aside;
use crate::failure::Failure;

const NAME: &str = "unplug";
/// The time for a person to find the plug.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why nobody is asked, if so.
pub fn why_not(no_unplug: bool, device: &str) -> Option<&'static str> {
    if no_unplug {
        Some("--no-unplug was given")
    } else if device == "test" {
        Some("the test picture cannot be unplugged")
    } else if !stdin().is_terminal() || !stderr().is_terminal() {
        Some("there is no terminal to ask a person on")
    } else {
        None
    }
}

/// Asks a person to do it, and observes the daemon.
pub async fn run(socket: &Path, video: VideoWish) -> Result<Step, Failure> {
    let mut live = match Live::begin(socket, video).await {
        Ok(live) => live,
        Err(Failure::Client(error)) => return Ok(Step::failed(NAME, error.to_string())),
        Err(other) => return Err(other),
    };
    let step = match live.wait(StreamState::Streaming, BEGIN).await? {
        Ok(_) => pulled_and_back(&mut live).await?,
        Err(why) => Step::failed(NAME, why),
    };
    live::stop(socket).await;
    Ok(step)
}

async fn pulled_and_back(live: &mut Live) -> Result<Step, Failure> {
    aside("pull the camera's plug out now; or press Enter to leave this out, as for a camera that has no plug");
    let mut enter = enter_pressed();
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::select! {
            () = &mut enter => return Ok(Step::skipped(NAME, "left out at the terminal")),
            news = live.next(deadline) => match news? {
                News::Report(report) if report.state == StreamState::Reconnecting => {
                    let cause = report.failure.as_ref().map(|failure| failure.cause);
                    if !matches!(cause, Some(Cause::CameraLost | Cause::NoCamera)) {
                        return Ok(Step::failed(NAME, live::said(&report)));
                    }
                    break;
                }
                News::Report(report) if report.state.is_terminal() => return Ok(Step::failed(NAME, live::said(&report))),
                News::Report(_) => {}
                News::Nothing => {
                    let why = format!("the daemon missed no camera within {} s", PATIENCE.as_secs());
                    return Ok(Step::failed(NAME, why));
                }
            }
        }
    }
    let missed = Instant::now();
    let publications = live.sink.arrived().publications;
    aside("the daemon misses the camera; put the plug back in");
    Ok(match live.wait(StreamState::Streaming, PATIENCE).await? {
        Ok(_) => Step::passed(NAME).with("away", missed.elapsed().as_secs_f64(), "s").with(
            "new_connections",
            f64::from(live.sink.arrived().publications - publications),
            "",
        ),
        Err(why) => Step::failed(NAME, why),
    })
}

/// The thread ends with the program if nobody presses it.
fn enter_pressed() -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
    let (pressed, waiting) = oneshot::channel();
    std::thread::spawn(move || {
        let read = stdin().lock().read_line(&mut String::new());
        if read.is_ok_and(|count| count > 0) {
            let _ = pressed.send(());
        }
    });
    Box::pin(async {
        if waiting.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_where_that_makes_no_sense() {
        assert_eq!(why_not(true, "/dev/video0"), Some("--no-unplug was given"));
        assert_eq!(why_not(false, "test"), Some("the test picture cannot be unplugged"));
    }
}
