use crate::metrics::Tally;
use crate::protocol::StreamKind;

/// What happened since the daemon began, for its metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Unmanaged streams that were granted the camera.
    pub unmanaged: u64,
    /// Managed streams that were granted the camera.
    pub managed: u64,
    /// Requests for a stream that were refused.
    pub refused: Tally,
    /// Streams that ended.
    pub ended: Tally,
    /// Attempts or publications that were lost and are retried.
    pub retries: Tally,
    /// Captures that were lost.
    pub captures_lost: Tally,
    /// Photos that were taken.
    pub photos: u64,
    /// Photos that failed.
    pub photos_failed: Tally,
    /// Keep-alives for the live stream.
    pub keep_alives: u64,
    /// Keep-alives for any other stream.
    pub stray_keep_alives: u64,
    /// Times that a link to phone or cloud was lost.
    pub link_losses: u64,
    /// Messages from a link that could not be obeyed.
    pub messages_refused: Tally,
}

impl Counts {
    pub(super) fn started(&mut self, kind: StreamKind) {
        match kind {
            StreamKind::Unmanaged => self.unmanaged += 1,
            StreamKind::Managed => self.managed += 1,
        }
    }
}
