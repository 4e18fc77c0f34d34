//! `lenscastctl`: controls the daemon, for people and scripts.
//!
//! | module | what |
//! |---|---|
//! | `acceptance` | `doctor --full`: everything on a board, with a report |
//! | `args` | the command line |
//! | `start` | `start`, and how `--wait` follows the stream |
//! | `watch`, `view` | `watch`: the loop, and the pure picture of the live view |
//! | `lease` | `camera acquire`: a program under a lease |
//! | `cloud`, `cloud_render` | `cloud`: the other program's side (feature `cloud`) |
//! | `render`, `text` | answers in words, words on a terminal; pure |
//! | `terminal` | the terminal itself |
//! | `failure` | exit statuses and advice |

mod acceptance;
mod args;
#[cfg(feature = "cloud")]
mod cloud;
#[cfg(feature = "cloud")]
mod cloud_render;
mod failure;
mod lease;
mod render;
mod start;
mod terminal;
mod text;
mod view;
mod watch;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lenscast::link::control_client::Client;
use lenscast::protocol::control::{Cameras, Checkup, Done, Holder, Level, Request, Status};
use serde::Serialize;

use args::doctor::DoctorArguments;
use args::{Arguments, CameraCommand, Command};
use failure::{FAILED, Failure};
use text::Row;

/// What threads have to come to an end.
const STUCK_THREADS_LIMIT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(run(arguments));
            // A thread that is stuck in a driver, or in what was interrupted, must not keep the program.
            runtime.shutdown_timeout(STUCK_THREADS_LIMIT);
            done
        }
        Err(error) => Err(Failure::Other(error.to_string())),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                // Nowhere left to report that standard error is closed.
                let _ = writeln!(std::io::stderr(), "lenscastctl: {failure}");
            }
            ExitCode::from(failure.status())
        }
    }
}

/// Returns the exit status.
async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let socket = arguments.socket.as_path();
    match arguments.command {
        Command::Status { json } => {
            let Status { state } = ask(socket, &Request::Status).await?;
            if json { print_json(&state) } else { print(&render::state(&state)) }?;
        }
        Command::Watch { json: true, .. } => watch::events(socket).await?,
        Command::Watch { json: false, note } if terminal::is_live() => watch::live(socket, note.as_deref()).await?,
        Command::Watch { json: false, .. } => watch::lines(socket).await?,
        Command::Start(wanted) => start::run(socket, &wanted).await?,
        Command::Stop { stream_id } => {
            let Done {} = ask(socket, &Request::Stop { stream_id }).await?;
        }
        Command::Bitrate { bitrate } => {
            let Done {} = ask(socket, &Request::Bitrate { bitrate }).await?;
        }
        Command::Photo { file, app } => photo(socket, &file, app).await?,
        Command::Camera(CameraCommand::List { json }) => {
            let answer: Cameras = ask(socket, &Request::CameraList).await?;
            if json { print_json(&answer.cameras) } else { print(&render::cameras(&answer.cameras)) }?;
        }
        Command::Camera(CameraCommand::Who { json }) => {
            let Holder { owner } = ask(socket, &Request::CameraWho).await?;
            if json {
                print_json(&owner)?;
            } else {
                line(&owner.map_or_else(|| "nobody".into(), |owner| text::clean(&owner.to_string())))?;
            }
        }
        Command::Camera(CameraCommand::Acquire { program, command }) => {
            return lease::run(socket, program, &command).await;
        }
        Command::Doctor(ref wanted @ DoctorArguments { full: Some(ref file), .. }) => {
            return acceptance::run(socket, file, wanted).await;
        }
        Command::Doctor(DoctorArguments { json, .. }) => {
            let answer: Checkup = ask(socket, &Request::Doctor).await?;
            if json { print_json(&answer.lines) } else { print(&render::doctor(&answer.lines)) }?;
            if answer.lines.iter().any(|line| line.level == Level::Fail) {
                return Ok(FAILED);
            }
        }
        #[cfg(feature = "cloud")]
        Command::Cloud(arguments) => cloud::run(arguments).await?,
        #[cfg(feature = "cloud")]
        Command::CheckConfig { file, cloud: true } => {
            lenscast::cloud::config::check(&file).map_err(|error| Failure::Other(error.to_string()))?;
            line(&format!("{}: ok", file.display()))?;
        }
        Command::CheckConfig { file, .. } => {
            lenscast::device::config::check(&file).map_err(|error| Failure::Other(error.to_string()))?;
            line(&format!("{}: ok", file.display()))?;
        }
    }
    Ok(0)
}

async fn ask<T: serde::de::DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, Failure> {
    Ok(Client::connect(socket).await?.call(request).await?)
}

async fn photo(socket: &Path, file: &Path, app: Option<String>) -> Result<(), Failure> {
    let to_output = file == Path::new("-");
    if to_output && std::io::stdout().is_terminal() {
        return Err(Failure::Usage("a JPEG does not belong on a terminal; redirect standard output".into()));
    }
    let jpeg = Client::connect(socket).await?.photo(app).await?;
    if to_output {
        let mut output = std::io::stdout().lock();
        output.write_all(&jpeg).and_then(|()| output.flush()).map_err(|error| Failure::output(&error))
    } else {
        std::fs::write(file, &jpeg).map_err(|error| Failure::Other(format!("{}: {error}", file.display())))
    }
}

fn print(rows: &[Row]) -> Result<(), Failure> {
    // In a pipe nothing is cut, since a program or a pager reads it.
    let width = if std::io::stdout().is_terminal() { terminal::size().0 } else { usize::from(u16::MAX) };
    let color = terminal::has_color();
    rows.iter().flat_map(|row| row.lines(width, color)).try_for_each(|text| line(&text))
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(value).map_err(|error| Failure::Other(error.to_string()))?)
}

/// Prints a line on standard output, unbuffered.
fn line(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{text}").and_then(|()| output.flush()).map_err(|error| Failure::output(&error))
}

/// Prints a line on standard error, where it does not mix with results.
fn aside(text: &str) {
    // Nowhere left to report that standard error is closed.
    let _ = writeln!(std::io::stderr(), "lenscastctl: {}", text::clean(text));
}
