//! The time of day in the form of `MentraOS`'s messages.

use std::time::SystemTime;

/// The current time: ISO 8601 in UTC, with milliseconds.
pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
