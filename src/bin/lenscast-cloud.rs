//! `lenscast-cloud`: managed streaming for apps of the `MentraOS` SDK.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use lenscast::cloud::{config::Config, task};
use lenscast::logging;
use tokio::signal::unix::{SignalKind, signal};

/// Threads stuck in GStreamer must not keep the process from ending.
const STUCK_THREADS_LIMIT: Duration = Duration::from_millis(500);

/// Managed streaming: takes apps' requests, commands the glasses, takes their RTMP, and serves HLS, DASH and WebRTC.
///
/// Controlled by lenscastctl cloud.
#[derive(Parser)]
#[command(
    version,
    after_help = "Environment: RUST_LOG chooses what is logged, to stderr or systemd's journal (default info), STATE_DIRECTORY where the \
database is if the configuration does not say.\nExit status: 0 ended on SIGTERM or SIGINT, 1 cannot run, 2 usage."
)]
struct Arguments {
    /// Read this configuration file, and FILE's folder with .d for .toml [default: /etc/lenscast/lenscast-cloud.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Put the control socket here, whatever the configuration says
    #[arg(long, value_name = "PATH", env = "LENSCAST_CLOUD_SOCKET")]
    socket: Option<PathBuf>,
    /// Check the configuration and end
    #[arg(long)]
    check_config: bool,
}

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
