//! The time of day as `MentraOS`'s messages have it.

use std::time::SystemTime;

/// Now: ISO 8601 in UTC, with milliseconds.
pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
