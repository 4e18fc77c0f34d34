//! What can go wrong, what to tell the user, and the exit status.

use std::fmt;
use std::io;

use lenscast::link::control_client::ClientError;

use crate::text::clean;

/// The command was refused or failed.
pub const FAILED: u8 = 1;
/// `doctor --full` came to its end, and something is wrong.
pub const FAILED_STEP: u8 = 4;
/// `doctor --full` was interrupted: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The daemon cannot be reached, or refused.
    Client(ClientError),
    /// The cloud cannot be reached, or refused.
    #[cfg(feature = "cloud")]
    Cloud(ClientError),
    Other(String),
    /// The command line is wrong.
    Usage(String),
    /// Nobody reads our output any more.
    OutputClosed,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    /// Writing to standard output failed.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::OutputClosed } else { Self::Other(error.to_string()) }
    }

    /// The exit status for this failure.
    pub fn status(&self) -> u8 {
        let of = |error: &ClientError| match error {
            ClientError::Unreachable { .. } | ClientError::Closed | ClientError::Silent => UNREACHABLE,
            ClientError::Refused(_) | ClientError::Garbled(_) => FAILED,
        };
        match self {
            Self::Client(error) => of(error),
            #[cfg(feature = "cloud")]
            Self::Cloud(error) => of(error),
            Self::Other(_) => FAILED,
            Self::Usage(_) => USAGE,
            Self::OutputClosed => 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => {
                write!(f, "{}", clean(&error.to_string()))?;
                match hint(error) {
                    Some(hint) => write!(f, "\n  {hint}"),
                    None => Ok(()),
                }
            }
            #[cfg(feature = "cloud")]
            Self::Cloud(error) => {
                // Both programs share one client: its "the daemon" means the cloud here.
                let text = clean(&error.to_string()).replace("the daemon", "the cloud");
                match hint(error) {
                    Some(hint) => write!(
                        f,
                        "{text}\n  {}",
                        hint.replace("lenscastd", "lenscast-cloud")
                            .replace("--socket", "--cloud-socket")
                            .replace("LENSCAST_SOCKET", "LENSCAST_CLOUD_SOCKET")
                    ),
                    None => f.write_str(&text),
                }
            }
            Self::Other(text) | Self::Usage(text) => f.write_str(text),
            Self::OutputClosed => f.write_str("output closed"),
        }
    }
}

/// Advice on the error.
fn hint(error: &ClientError) -> Option<String> {
    let hint = match error {
        ClientError::Unreachable { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "Only members of the group lenscast may use it: sudo usermod -aG lenscast $USER, then log in again."
            }
            io::ErrorKind::NotFound => {
                "Is lenscastd running? sudo systemctl start lenscastd. Another socket: --socket PATH or LENSCAST_SOCKET."
            }
            _ => "Is lenscastd running? systemctl status lenscastd",
        },
        ClientError::Closed | ClientError::Silent => "See its log: journalctl -u lenscastd",
        // The refusal's own message says everything.
        ClientError::Refused(_) | ClientError::Garbled(_) => return None,
    };
    Some(hint.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lenscast::protocol::control::Refusal;
    use lenscast::protocol::{self, Cause, Owner, OwnerKind};

    fn unreachable(kind: io::ErrorKind) -> Failure {
        ClientError::Unreachable { path: "/run/x.sock".into(), source: kind.into() }.into()
    }

    #[test]
    fn a_missing_daemon_is_3_and_comes_with_advice() {
        for (kind, advice) in [
            (io::ErrorKind::NotFound, "systemctl start"),
            (io::ErrorKind::PermissionDenied, "group lenscast"),
            (io::ErrorKind::ConnectionRefused, "systemctl status"),
        ] {
            let failure = unreachable(kind);
            assert_eq!(failure.status(), 3);
            let text = failure.to_string();
            assert!(text.contains("/run/x.sock") && text.contains(advice), "{text}");
        }
        assert_eq!(Failure::from(ClientError::Closed).status(), 3);
    }

    #[test]
    fn a_refusal_is_1_with_cause_and_owner() {
        let owner = Owner { kind: OwnerKind::Process, name: "zbar\x1b[2J".into(), pid: Some(7), for_s: Some(3) };
        let refusal = Refusal::from(protocol::Failure::held_by(owner, Cause::CameraBusy));
        let failure = Failure::from(ClientError::from(refusal));
        assert_eq!(failure.status(), 1);
        let text = failure.to_string();
        assert!(text.contains("(camera_busy)") && text.contains("pid 7") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert_eq!(Failure::output(&io::ErrorKind::BrokenPipe.into()).status(), 0);
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).status(), 1);
    }
}
