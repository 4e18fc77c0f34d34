//! The command line. `packaging/manual.rs` also makes the manual page from it, so it must not depend on other modules.

use std::path::PathBuf;

use clap::Parser;

/// Captures the camera, encodes in hardware, publishes RTMP, and tells the truth about it.
///
/// Controlled by lenscastctl, or by phone and cloud over the link of the configuration.
#[derive(Parser)]
#[command(
    name = "lenscastd",
    version,
    after_help = "Environment: RUST_LOG chooses what is logged, to stderr or systemd's journal (default info), GST_DEBUG what \
GStreamer adds.\nSignals: SIGTERM and SIGINT end it and its stream. SIGHUP ends it without a word, for systemd to start it anew (another \
version, another configuration); that one goes on with the stream.\nExit status: 0 ended by a signal, 1 cannot run, 2 usage."
)]
pub struct Arguments {
    /// Read this configuration file, and FILE's folder with .d for .toml [default: /etc/lenscast/lenscastd.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Put the control socket here, whatever the configuration says
    #[arg(long, value_name = "PATH", env = "LENSCAST_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Check the configuration and end
    #[arg(long)]
    pub check_config: bool,
    /// Switch the configured privacy LED off and end; for after a crash
    #[arg(long)]
    pub led_off: bool,
    /// Say on standard output who has the device open whose number comes on standard input; for lenscast-holders@.service
    #[arg(long, hide = true)]
    pub name_holders: bool,
}
