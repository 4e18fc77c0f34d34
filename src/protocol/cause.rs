//! Why a stream ended or retries, why a request was refused: one vocabulary for the wire, the logs and the policy.

use serde::{Deserialize, Serialize};

/// Why a stream ended, is reconnecting, or why a request was refused. On the wire in `snake_case`.
///
/// What each asks of the stream (retry, own budget, end) is decided in [`crate::policy::retry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    // The network between here and the RTMP server.
    /// The server's name could not be resolved.
    DnsFailed,
    /// The server's machine answered that nothing listens on the port.
    ConnectRefused,
    /// No answer to the TCP connection attempt in time.
    ConnectTimeout,
    /// No route to the server (network down, Wi-Fi gone).
    NetworkUnreachable,
    /// The TLS handshake failed, but not over the certificate.
    TlsFailed,
    /// The server's TLS certificate is not trusted (unknown authority, wrong name, expired).
    TlsCertificateRejected,
    /// TCP connected, but the server did not complete the RTMP handshake or commands in time.
    HandshakeTimeout,
    /// The server closed an established connection.
    ConnectionLost,
    /// Nothing that was sent is acknowledged any more: cable, Wi-Fi or route is cut.
    NetworkStalled,
    /// The server's kernel still answers, but its process no longer reads.
    ServerFrozen,

    // The RTMP server's word.
    /// The server refused the application or the stream key.
    PublishRejected,
    /// The server still holds an earlier publisher of the same key.
    StreamExists,

    // Camera, microphone, encoder.
    /// No camera was found.
    NoCamera,
    /// The camera vanished (unplugged, driver unbound).
    CameraLost,
    /// The camera is there but delivers no frames.
    CameraStalled,
    /// The camera is in use by somebody else.
    CameraBusy,
    /// The camera may not be opened by this process.
    CameraForbidden,
    /// The camera cannot give the picture that was asked for, or fails in another way.
    CameraFailed,
    /// No encoder works, or the one in use failed.
    EncoderFailed,
    /// The encoder takes frames but gives none back.
    EncoderStalled,
    /// The microphone failed or vanished.
    AudioFailed,

    // Decisions.
    /// Somebody entitled to it stopped the stream.
    Requested,
    /// The same application started another stream in its place.
    Replaced,
    /// A request of higher precedence took the camera.
    Preempted,
    /// No keep-alive came in time.
    KeepAliveTimeout,
    /// The link to phone or cloud stayed lost.
    LinkLost,
    /// The agreed duration is over.
    DurationOver,
    /// The holder of a lease went away.
    HolderGone,
    /// The daemon is shutting down.
    Shutdown,
    /// The daemon was restarted; the stream it had is over.
    DaemonRestarted,

    // What was asked.
    /// The request is malformed or contradicts itself.
    InvalidRequest,
    /// The stream URL cannot be used.
    InvalidUrl,
    /// No such stream.
    UnknownStream,
    /// The request would touch a stream or lease of somebody else.
    NotOwner,
    /// A fault of the daemon's own.
    Internal,
}

impl Cause {
    /// The wire name, as serde writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DnsFailed => "dns_failed",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::NetworkUnreachable => "network_unreachable",
            Self::TlsFailed => "tls_failed",
            Self::TlsCertificateRejected => "tls_certificate_rejected",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::ConnectionLost => "connection_lost",
            Self::NetworkStalled => "network_stalled",
            Self::ServerFrozen => "server_frozen",
            Self::PublishRejected => "publish_rejected",
            Self::StreamExists => "stream_exists",
            Self::NoCamera => "no_camera",
            Self::CameraLost => "camera_lost",
            Self::CameraStalled => "camera_stalled",
            Self::CameraBusy => "camera_busy",
            Self::CameraForbidden => "camera_forbidden",
            Self::CameraFailed => "camera_failed",
            Self::EncoderFailed => "encoder_failed",
            Self::EncoderStalled => "encoder_stalled",
            Self::AudioFailed => "audio_failed",
            Self::Requested => "requested",
            Self::Replaced => "replaced",
            Self::Preempted => "preempted",
            Self::KeepAliveTimeout => "keep_alive_timeout",
            Self::LinkLost => "link_lost",
            Self::DurationOver => "duration_over",
            Self::HolderGone => "holder_gone",
            Self::Shutdown => "shutdown",
            Self::DaemonRestarted => "daemon_restarted",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidUrl => "invalid_url",
            Self::UnknownStream => "unknown_stream",
            Self::NotOwner => "not_owner",
            Self::Internal => "internal",
        }
    }

    /// One sentence for a person, without a final period.
    pub fn explain(self) -> &'static str {
        match self {
            Self::DnsFailed => "the server's name could not be resolved",
            Self::ConnectRefused => "nothing listens on the server's port",
            Self::ConnectTimeout => "the server did not answer",
            Self::NetworkUnreachable => "there is no route to the server; is Wi-Fi connected?",
            Self::TlsFailed => "the secure connection could not be set up",
            Self::TlsCertificateRejected => "the server's certificate is not trusted",
            Self::HandshakeTimeout => "the server accepted the connection but does not speak RTMP in time",
            Self::ConnectionLost => "the server closed the connection",
            Self::NetworkStalled => "the network no longer carries data to the server",
            Self::ServerFrozen => "the server no longer reads what is sent",
            Self::PublishRejected => "the server refused the stream key or application",
            Self::StreamExists => "the server still holds an earlier stream with this key",
            Self::NoCamera => "no camera was found",
            Self::CameraLost => "the camera was unplugged or vanished",
            Self::CameraStalled => "the camera delivers no frames",
            Self::CameraBusy => "the camera is in use",
            Self::CameraForbidden => "the camera may not be opened; check the group of /dev/video*",
            Self::CameraFailed => "the camera failed or cannot give the picture asked for",
            Self::EncoderFailed => "no video encoder works",
            Self::EncoderStalled => "the video encoder hangs",
            Self::AudioFailed => "the microphone failed",
            Self::Requested => "stopped on request",
            Self::Replaced => "replaced by a new stream of the same application",
            Self::Preempted => "the camera was given to a request of higher precedence",
            Self::KeepAliveTimeout => "no keep-alive arrived in time",
            Self::LinkLost => "the link to phone or cloud stayed lost",
            Self::DurationOver => "the agreed duration is over",
            Self::HolderGone => "the holder went away",
            Self::Shutdown => "the daemon is shutting down",
            Self::DaemonRestarted => "the daemon was restarted",
            Self::InvalidRequest => "the request is malformed",
            Self::InvalidUrl => "the stream URL cannot be used",
            Self::UnknownStream => "no such stream",
            Self::NotOwner => "it belongs to somebody else",
            Self::Internal => "internal error",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_what_serde_writes() {
        for cause in [Cause::DnsFailed, Cause::TlsCertificateRejected, Cause::KeepAliveTimeout, Cause::NotOwner] {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
        }
    }
}
