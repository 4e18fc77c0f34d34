//! The command line. `packaging/manual.rs` also makes the manual page from it, so it must not depend on other modules.

use std::path::PathBuf;

use clap::Parser;

/// Captures the camera, encodes in hardware, publishes RTMP, and reports what really happens.
///
/// Controlled by lenscastctl, or by phone and cloud over the configured link.
#[derive(Parser)]
#[command(
    name = "lenscastd",
    version,
    after_help = "Environment: RUST_LOG selects what is logged, to stderr or systemd's journal (default info), GST_DEBUG what \
GStreamer adds.\nSignals: SIGTERM and SIGINT end the daemon and its stream. SIGHUP ends the daemon alone: \
systemd restarts it (with another version or configuration), and the new process resumes the stream.\n\
Exit status: 0 ended by a signal, 1 cannot run, 2 wrong usage."
)]
pub struct Arguments {
    /// Read this configuration file and its drop-ins, in FILE with .d for .toml [default: /etc/lenscast/lenscastd.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Path of the control socket; overrides the configuration
    #[arg(long, value_name = "PATH", env = "LENSCAST_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    pub check_config: bool,
    /// Switch the configured privacy LED off and exit; for use after a crash
    #[arg(long)]
    pub led_off: bool,
    /// Read a device number from standard input and print who has that device open; for lenscast-holders@.service
    #[arg(long, hide = true)]
    pub name_holders: bool,
}
