//! The command line. The manual page is generated from it too (`packaging/manual.rs`), so it uses no other module.
//! other.

use std::path::PathBuf;

use clap::Parser;

/// Managed streaming: takes apps' requests, commands the glasses, takes their RTMP, and serves HLS, DASH and WebRTC.
///
/// Controlled by lenscastctl cloud.
#[derive(Parser)]
#[command(
    name = "lenscast-cloud",
    version,
    after_help = "Environment: RUST_LOG chooses what is logged, to stderr or systemd's journal (default info), STATE_DIRECTORY where the \
database is if the configuration does not say.\nExit status: 0 ended on SIGTERM or SIGINT, 1 cannot run, 2 usage."
)]
pub struct Arguments {
    /// Read this configuration file, and FILE's folder with .d for .toml [default: /etc/lenscast/lenscast-cloud.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Put the control socket here, whatever the configuration says
    #[arg(long, value_name = "PATH", env = "LENSCAST_CLOUD_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Check the configuration and end
    #[arg(long)]
    pub check_config: bool,
}
