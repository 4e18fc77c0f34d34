//! `lenscastd`: owns the camera of smart glasses and makes it go live.

mod args;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use args::Arguments;
use clap::Parser;
use lenscast::camera;
use lenscast::device::config::Config;
use lenscast::device::task::{self, Stop};
use lenscast::logging;
use tokio::signal::unix::{SignalKind, signal};

/// Limit for threads stuck in a driver, so that the process can end.
const STUCK_THREADS_LIMIT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::begin("lenscastd");
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lenscastd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.name_holders {
        return camera::answer_holders(std::io::stdin(), std::io::stdout()).context("holders");
    }
    let mut config = Config::load(arguments.config.as_deref()).context("configuration")?;
    if arguments.check_config {
        return Ok(());
    }
    if arguments.led_off {
        return config.led().map_or(Ok(()), |led| led.switch(false)).context("privacy LED");
    }
    if let Some(socket) = arguments.socket {
        config.control.socket = socket;
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // The board is read every second or two: with tokio's 10 s, every thread that ever did so would stay alive.
    runtime.enable_all().thread_keep_alive(Duration::from_millis(200));
    let runtime = runtime.build().context("runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let mut hang_up = signal(SignalKind::hangup()).context("SIGHUP")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => Stop::Ended,
                _ = interrupt.recv() => Stop::Ended,
                _ = hang_up.recv() => Stop::HandedOver,
            }
        };
        task::run(config, stop).await.map_err(anyhow::Error::from)
    });
    runtime.shutdown_timeout(STUCK_THREADS_LIMIT);
    outcome
}
