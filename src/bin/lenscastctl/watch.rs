//! `watch` in its three forms.

use std::path::Path;
use std::time::{Duration, Instant};

use lenscast::link::control_client::{Client, ClientError, Watching};
use lenscast::protocol::DaemonState;
use lenscast::protocol::control::Event;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use crate::failure::Failure;
use crate::terminal::{self, Screen};
use crate::view::View;
use crate::{line, print_json, render};

/// Delay between attempts to reach the daemon again.
const RETRY: Duration = Duration::from_secs(1);

async fn connect(socket: &Path) -> Result<(DaemonState, Watching), ClientError> {
    Client::connect(socket).await?.watch().await
}

/// Prints every event as JSON, the initial state first, until the daemon ends.
pub async fn events(socket: &Path) -> Result<(), Failure> {
    let (state, mut watching) = connect(socket).await?;
    print_json(&Event::State { state: Box::new(state) })?;
    loop {
        print_json(&watching.next().await?)?;
    }
}

/// Prints a line for every change, until the daemon ends.
pub async fn lines(socket: &Path) -> Result<(), Failure> {
    let (mut last, mut watching) = connect(socket).await?;
    line(&render::stream(&last))?;
    render::changes(None, &last).iter().try_for_each(|text| line(text))?;
    let mut lagged = false;
    loop {
        match watching.next().await? {
            Event::Report(report) => line(&render::report(&report))?,
            Event::Lagged => {
                lagged = true;
                line("some changes were lost; the reader of this pipe is too slow")?;
            }
            Event::State { state } => {
                if std::mem::take(&mut lagged) {
                    line(&render::stream(&state))?;
                }
                render::changes(Some(&last), &state).iter().try_for_each(|text| line(text))?;
                last = *state;
            }
        }
    }
}

/// Shows the live view until a signal. Survives the daemon: it waits for the next one.
pub async fn live(socket: &Path, note: Option<&str>) -> Result<(), Failure> {
    let began = Instant::now();
    let mut view = View::with_note(note.unwrap_or_default());
    let (state, watching) = connect(socket).await?;
    view.connected(state, began.elapsed());
    let mut watching = Some(watching);

    let listen = |kind| signal(kind).map_err(|error| Failure::Other(error.to_string()));
    let mut resized = listen(SignalKind::window_change())?;
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(listen);
    let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut ends else {
        return Err(Failure::Other("signals cannot be handled".into()));
    };

    let failed = |error: std::io::Error| Failure::output(&error);
    let color = terminal::has_color();
    let mut screen = Screen::enter().map_err(failed)?;
    loop {
        let (width, height) = terminal::size();
        screen.draw(&view.lines(width, height, color)).map_err(failed)?;
        tokio::select! {
            event = next(&mut watching, socket) => match event {
                Ok(Next::Event(event)) => view.event(event, began.elapsed()),
                Ok(Next::Connected(state, new)) => {
                    view.connected(*state, began.elapsed());
                    watching = Some(*new);
                }
                Err(error) => {
                    view.lost(&error.to_string(), began.elapsed());
                    watching = None;
                }
            },
            () = caught(&mut resized) => {}
            () = caught(interrupt) => return Ok(()),
            () = caught(terminate) => return Ok(()),
            () = caught(hangup) => return Ok(()),
        }
    }
}

enum Next {
    Event(Event),
    Connected(Box<DaemonState>, Box<Watching>),
}

async fn next(watching: &mut Option<Watching>, socket: &Path) -> Result<Next, ClientError> {
    if let Some(watching) = watching {
        return watching.next().await.map(Next::Event);
    }
    sleep(RETRY).await;
    let (state, watching) = connect(socket).await?;
    Ok(Next::Connected(Box::new(state), Box::new(watching)))
}

async fn caught(signal: &mut Signal) {
    // `None` means that the runtime shuts down, which it does not while this runs.
    let _ = signal.recv().await;
}
