//! Whether a daemon resumes the stream of the previous process, which ended without a word: killed, crashed, updated,
//! or without power.
//!
//! It does so while whoever controls the stream can still believe in it, that is, within the keep-alive timeout; after
//! that it reports the stream's end. It does not resume for ever a stream with which one process after another soon
//! ends: that loop would help nobody.

use std::time::Duration;

use crate::protocol::Cause;

/// Maximum number of processes in a row that may end with a stream.
const CRASHES: u32 = 3;
/// A stream that has run this long is not to blame for its process's end.
pub const HARMLESS_AFTER: Duration = Duration::from_mins(1);

/// What is known of the previous process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// Time since it was last known to live; `None` if the clock cannot tell.
    pub gone_for: Option<Duration>,
    /// How long the stream could go without a keep-alive then.
    pub patience: Duration,
    /// How many processes in a row, this one included, ended unintentionally with this stream.
    pub crashes: u32,
}

/// Why the stream is not resumed, or `None` if it is.
pub fn over(former: &Former) -> Option<Cause> {
    if former.crashes > CRASHES {
        Some(Cause::DaemonCrashed)
    } else if former.gone_for.is_none_or(|gone| gone > former.patience) {
        // A board without a battery-backed clock may wake up after days: no stream is better than an unexpected one.
        Some(Cause::DaemonRestarted)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn former(gone_for: Option<u64>, crashes: u32) -> Former {
        Former { gone_for: gone_for.map(Duration::from_secs), patience: Duration::from_secs(45), crashes }
    }

    #[test]
    fn a_stream_is_taken_up_within_its_keep_alive_and_not_for_ever() {
        assert_eq!(over(&former(Some(0), 1)), None);
        assert_eq!(over(&former(Some(45), 3)), None);
        assert_eq!(over(&former(Some(46), 0)), Some(Cause::DaemonRestarted));
        assert_eq!(over(&former(None, 0)), Some(Cause::DaemonRestarted), "nobody knows for how long");
        assert_eq!(over(&former(Some(1), 4)), Some(Cause::DaemonCrashed));
        assert_eq!(over(&former(None, 4)), Some(Cause::DaemonCrashed));
    }
}
