//! Why a stream ended or reconnects, or a request was refused: one vocabulary for the wire, the logs and the policy.
//!
//! One table gives each cause its wire name and its sentence, so that serde and the logs always agree.

use serde::{Deserialize, Serialize};

/// Defines [`Cause`] from lines of `Variant = "wire_name": "sentence"`.
macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal: $sentence:literal,)+) => {
        /// Why a stream ended or is reconnecting, or why a request was refused. On the wire in `snake_case`.
        ///
        /// [`crate::policy`] decides what each asks of the stream (retry, own budget, end).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Cause {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
        }

        impl Cause {
            /// Every cause there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The wire name, as serde writes it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One sentence for a person, without a final period.
            pub fn explain(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)+
                }
            }
        }
    };
}

causes! {
    // The network between here and the RTMP server.
    /// The server's name could not be resolved.
    DnsFailed = "dns_failed": "the server's name could not be resolved",
    /// The server's machine answered that nothing listens on the port.
    ConnectRefused = "connect_refused": "nothing listens on the server's port",
    /// No answer to the TCP connection attempt in time.
    ConnectTimeout = "connect_timeout": "the server did not answer",
    /// No route to the server (network down, Wi-Fi gone).
    NetworkUnreachable = "network_unreachable": "there is no route to the server; is Wi-Fi connected?",
    /// The TLS handshake failed, but not over the certificate.
    TlsFailed = "tls_failed": "the secure connection could not be set up",
    /// The server's TLS certificate is not trusted (unknown authority, wrong name, expired).
    TlsCertificateRejected = "tls_certificate_rejected": "the server's certificate is not trusted",
    /// TCP connected, but the server did not complete the RTMP handshake or commands in time.
    HandshakeTimeout = "handshake_timeout": "the server accepted the connection but does not speak RTMP in time",
    /// The server closed an established connection.
    ConnectionLost = "connection_lost": "the server closed the connection",
    /// Nothing that was sent is acknowledged any more: cable, Wi-Fi or route is cut.
    NetworkStalled = "network_stalled": "the network no longer carries data to the server",
    /// The server's kernel still answers, but its process no longer reads.
    ServerFrozen = "server_frozen": "the server no longer reads what is sent",

    // What the RTMP server says.
    /// The server refused the application or the stream key.
    PublishRejected = "publish_rejected": "the server refused the stream key or application",
    /// The server still holds an earlier publisher of the same key.
    StreamExists = "stream_exists": "the server still holds an earlier stream with this key",

    // Camera, microphone, encoder.
    /// No camera was found.
    NoCamera = "no_camera": "no camera was found",
    /// The camera vanished (unplugged, driver unbound).
    CameraLost = "camera_lost": "the camera was unplugged or vanished",
    /// The camera is there but delivers no frames.
    CameraStalled = "camera_stalled": "the camera delivers no frames",
    /// The camera's input receives no signal: the device plugged in is off, or there is none.
    CameraNoSignal = "camera_no_signal": "no signal at the camera's input",
    /// The camera is in use by somebody else.
    CameraBusy = "camera_busy": "the camera is in use",
    /// The camera may not be opened by this process.
    CameraForbidden = "camera_forbidden": "the camera may not be opened; check the group of /dev/video*",
    /// The camera cannot deliver the requested picture, or fails in another way.
    CameraFailed = "camera_failed": "the camera failed or cannot deliver the requested picture",
    /// No encoder works, or the one in use failed.
    EncoderFailed = "encoder_failed": "no video encoder works",
    /// The encoder takes frames but gives none back.
    EncoderStalled = "encoder_stalled": "the video encoder hangs",
    /// The privacy light is not on, and the camera must not be used without it.
    PrivacyLedFailed = "privacy_led_failed": "the privacy light cannot be switched on",
    /// The microphone failed or vanished.
    AudioFailed = "audio_failed": "the microphone failed",

    // Decisions.
    /// The glasses are too hot for a stream.
    Overheated = "overheated": "the glasses are too hot",
    /// The battery is too low for a stream.
    BatteryLow = "battery_low": "the battery is too low",
    /// Somebody entitled to do so stopped the stream.
    Requested = "requested": "stopped on request",
    /// The same application started another stream in its place.
    Replaced = "replaced": "replaced by a new stream of the same application",
    /// A request of higher precedence took the camera.
    Preempted = "preempted": "the camera was given to a request of higher precedence",
    /// No keep-alive came in time.
    KeepAliveTimeout = "keep_alive_timeout": "no keep-alive arrived in time",
    /// The link to phone or cloud stayed lost.
    LinkLost = "link_lost": "the link to phone or cloud stayed lost",
    /// The stream's duration limit is reached.
    DurationOver = "duration_over": "the agreed duration is over",
    /// The holder of a lease went away.
    HolderGone = "holder_gone": "the holder went away",
    /// The daemon is shutting down.
    Shutdown = "shutdown": "the daemon is shutting down",
    /// The daemon was restarted; the stream it had is over.
    DaemonRestarted = "daemon_restarted": "the daemon was restarted",
    /// The daemon ended repeatedly with this stream and no longer resumes it.
    DaemonCrashed = "daemon_crashed": "the daemon crashed again and again with this stream",

    // What was requested.
    /// The request is malformed or contradicts itself.
    InvalidRequest = "invalid_request": "the request is malformed",
    /// The stream URL is unusable.
    InvalidUrl = "invalid_url": "the stream URL cannot be used",
    /// No such stream exists.
    UnknownStream = "unknown_stream": "no such stream",
    /// The request concerns somebody else's stream or lease.
    NotOwner = "not_owner": "it belongs to somebody else",
    /// A fault in the daemon itself.
    Internal = "internal": "internal error",
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
    fn wire_and_log_use_the_same_distinct_snake_case_name() {
        let mut seen = std::collections::HashSet::new();
        for &cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
            assert_eq!(serde_json::from_value::<Cause>(cause.name().into()).unwrap(), cause);
            assert!(cause.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{cause}");
            assert!(seen.insert(cause.name()), "{cause} twice");
        }
    }

    #[test]
    fn sentences_fit_into_a_longer_one() {
        for cause in Cause::ALL {
            assert!(!cause.explain().is_empty() && !cause.explain().ends_with('.'), "{cause}");
        }
    }
}
