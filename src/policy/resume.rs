//! Whether a daemon takes up the stream of the process before it, which ended without a word: killed, crashed, updated, or
//! without power.
//!
//! It does while whoever directs the stream can still believe in it, which its keep-alive's time stands for; after that
//! the stream's end is told. A stream with which one process after another ends soon is not taken up for ever: that would be
//! a loop that helps nobody.

use std::time::Duration;

use crate::protocol::Cause;

/// So many processes in a row may end with a stream.
const CRASHES: u32 = 3;
/// A stream that ran for so long did not make its process end soon.
pub const HARMLESS_AFTER: Duration = Duration::from_mins(1);

/// What is known of the process before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// Since it was last known to live; `None` if the clock cannot tell.
    pub gone_for: Option<Duration>,
    /// How long the stream could go without a keep-alive then.
    pub patience: Duration,
    /// How many processes in a row, it included, ended with this stream, none of them on purpose.
    pub crashes: u32,
}

/// Why the stream is not taken up, if it is not.
pub fn over(former: &Former) -> Option<Cause> {
    if former.crashes > CRASHES {
        Some(Cause::DaemonCrashed)
    } else if former.gone_for.is_none_or(|gone| gone > former.patience) {
        // A board without a clock of its own may wake up after days: rather no stream than one that nobody expects.
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
