//! The command line of `cloud`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lenscast::cloud::accounts::Permission;

/// The cloud's side.
#[derive(Args, Debug)]
pub struct CloudArguments {
    /// The control socket of lenscast-cloud
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "LENSCAST_CLOUD_SOCKET",
        default_value = "/run/lenscast/cloud.sock"
    )]
    pub cloud_socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: CloudCommand,
}

/// What to do with the cloud.
#[derive(Debug, Subcommand)]
pub enum CloudCommand {
    /// The apps that may connect
    #[command(subcommand)]
    App(AppCommand),
    /// The glasses that may connect
    #[command(subcommand)]
    Device(DeviceCommand),
    /// List the running streams and where to watch them
    Streams {
        /// Print them as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Start a managed stream and print its id
    Start {
        /// The user whose glasses stream
        #[arg(long)]
        user: String,
        /// Height of the picture: 720 or 1080 lines
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4320))]
        lines: Option<u32>,
        /// Send it on to the rtmp:// and rtmps:// URLs in this file, one per line; - for standard input
        #[arg(long, value_name = "FILE")]
        restream: Option<PathBuf>,
        /// Print the stream as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop a stream for everybody who watches it
    Stop {
        /// The id that `start` or `streams` printed
        stream_id: String,
    },
    /// Show every change, one per line, until the cloud ends
    Watch {
        /// Print every event as one line of JSON; the first is the whole state
        #[arg(long)]
        json: bool,
    },
}

/// What to do with apps.
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Add an app and print its API key, which cannot be read again
    Add {
        /// The app's package name, for example org.example.livestream
        package: String,
        /// A permission of the app; may be repeated
        #[arg(long = "permission", value_name = "NAME", value_parser = permission, default_value = "CAMERA")]
        permissions: Vec<Permission>,
        /// The URL that starts and stops the app, for example `http://app.example.org:7010/webhook`
        #[arg(long, value_name = "URL")]
        webhook_url: Option<String>,
    },
    /// List the apps and the users they run for
    List {
        /// Print them as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke an app's key and close its connections
    Revoke {
        /// The app's package name
        package: String,
    },
    /// Start an app for a user, by its webhook; returns when it is connected
    Start {
        /// The app's package name
        package: String,
        /// The user
        #[arg(long)]
        user: String,
    },
    /// Stop an app for a user
    Stop {
        /// The app's package name
        package: String,
        /// The user
        #[arg(long)]
        user: String,
    },
}

/// What to do with glasses.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Add glasses and print their token, which cannot be read again
    Add {
        /// A name for them
        name: String,
        /// The user who owns them; often an e-mail address
        #[arg(long)]
        user: String,
    },
    /// List the glasses
    List {
        /// Print them as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke the glasses' token and close their link
    Revoke {
        /// Their name
        name: String,
    },
}

fn permission(name: &str) -> Result<Permission, String> {
    Permission::by_name(name).ok_or_else(|| "unknown; streaming and photos need CAMERA".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn parse(line: &str) -> CloudCommand {
        let words = ["lenscastctl", "cloud"].into_iter().chain(line.split_whitespace());
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Cloud(arguments) => arguments.command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_app_may_stream_unless_something_else_was_said() {
        let CloudCommand::App(AppCommand::Add { permissions, .. }) = parse("app add org.x") else { panic!() };
        assert_eq!(permissions, [Permission::Camera]);
        let line = "app add org.x --permission MICROPHONE --permission LOCATION --webhook-url http://h/webhook";
        let CloudCommand::App(AppCommand::Add { permissions, webhook_url, .. }) = parse(line) else { panic!() };
        assert_eq!(permissions, [Permission::Microphone, Permission::Location]);
        assert!(webhook_url.is_some());
        assert!(
            Arguments::try_parse_from(["lenscastctl", "cloud", "app", "add", "x", "--permission", "ROOT"]).is_err()
        );
    }
}
