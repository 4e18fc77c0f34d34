//! `lenscast-cloud`: managed streaming for apps of the `MentraOS` SDK.

mod args;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use args::Arguments;
use clap::Parser;
use lenscast::cloud::{config::Config, task};
use lenscast::logging;
use tokio::signal::unix::{SignalKind, signal};

/// Time limit for threads at exit: one that is stuck in GStreamer must not keep the process alive.
const STUCK_THREADS_LIMIT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::begin("lenscast-cloud");
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lenscast-cloud: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut config = Config::load(arguments.config.as_deref()).context("configuration")?;
    if arguments.check_config {
        return Ok(());
    }
    if let Some(socket) = arguments.socket {
        config.control.socket = socket;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        task::run(config, stop).await.map_err(anyhow::Error::from)
    });
    runtime.shutdown_timeout(STUCK_THREADS_LIMIT);
    outcome
}
