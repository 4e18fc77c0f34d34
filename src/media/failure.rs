//! Faults as [`Failure`]s: understands errno, GStreamer's errors and RTMP's refusals.

use gstreamer::{self as gst, glib, prelude::*};

use crate::protocol::{Cause, Failure};

/// The pipelines' names for elements that an error can come from.
pub mod element_name {
    /// The video source.
    pub const CAMERA: &str = "camera";
    /// The video encoder.
    pub const ENCODER: &str = "encoder";
    /// The sound source.
    pub const MICROPHONE: &str = "microphone";
}

/// How far a publisher got when it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Resolving the server's address.
    #[default]
    Resolving,
    /// Connecting TCP.
    Connecting,
    /// Setting up TLS.
    Tls,
    /// RTMP handshake, `connect` and `publish`.
    Commands,
    /// The server accepted the publication.
    Published,
}

impl Phase {
    /// The cause when this phase exceeds its limit.
    pub fn timed_out(self) -> Cause {
        match self {
            Self::Resolving => Cause::DnsFailed,
            Self::Connecting => Cause::ConnectTimeout,
            Self::Tls => Cause::TlsFailed,
            Self::Commands => Cause::HandshakeTimeout,
            Self::Published => Cause::NetworkStalled,
        }
    }
}

/// An error of the capture pipelines.
pub fn of_capture(message: &gst::message::Error) -> Failure {
    let source = message.src().map(|source| source.name().to_string()).unwrap_or_default();
    let error = message.error();
    let place = message.debug().unwrap_or_default();
    let cause = match source.as_str() {
        element_name::ENCODER => Cause::EncoderFailed,
        element_name::MICROPHONE => Cause::AudioFailed,
        element_name::CAMERA => of_camera(&error, &place),
        _ => Cause::CameraFailed,
    };
    tracing::debug!(source, %error, %place, "GStreamer ended a capture");
    Failure::new(cause, format!("{source}: {}", words(&error, &place)))
}

/// What a person can search for: the error's sentence and the system's answer. `GStreamer` puts that answer after a
/// first line about its own code (`gst_element_message_full`: "file(line): function (): path:"), which belongs in the
/// log.
pub fn words(error: &glib::Error, debug: &str) -> String {
    match debug.split_once('\n').map(|(_, answer)| answer.trim()) {
        Some(answer) if !answer.is_empty() => format!("{error} ({})", answer.replace('\n', " ")),
        _ => error.to_string(),
    }
}

fn of_camera(error: &glib::Error, debug: &str) -> Cause {
    let says = |errno: nix::errno::Errno| debug.contains(errno.desc());
    match error.kind::<gst::ResourceError>() {
        Some(gst::ResourceError::Busy) => Cause::CameraBusy,
        _ if says(nix::errno::Errno::EBUSY) => Cause::CameraBusy,
        _ if says(nix::errno::Errno::EACCES) || says(nix::errno::Errno::EPERM) => Cause::CameraForbidden,
        Some(gst::ResourceError::NotFound | gst::ResourceError::Read) => Cause::CameraLost,
        _ if says(nix::errno::Errno::ENODEV) || says(nix::errno::Errno::ENOENT) => Cause::CameraLost,
        _ => Cause::CameraFailed,
    }
}

/// The cause of an error of rtmp2sink. The texts are those of GStreamer 1.22 (`rtmpclient.c`, `gstrtmp2sink.c`) and of
/// `GLib`'s errors, which rtmp2sink passes on in its own text.
pub fn of_publisher(phase: Phase, error: &glib::Error, debug: &str) -> Cause {
    let text = format!("{error} {debug}");
    let says = |part: &str| text.contains(part);
    if phase == Phase::Published {
        return if says("timed out") { Cause::NetworkStalled } else { Cause::ConnectionLost };
    }
    if says("NetStream.Publish.BadName") || says("stream already exists") || says("already publishing") {
        return Cause::StreamExists;
    }
    if error.matches(gst::ResourceError::NotAuthorized) {
        return Cause::PublishRejected;
    }
    if says("certificate") {
        return Cause::TlsCertificateRejected;
    }
    if says("Connection refused") {
        return Cause::ConnectRefused;
    }
    if says("unreachable") || says("No route to host") {
        return Cause::NetworkUnreachable;
    }
    if says("timed out") {
        return phase.timed_out();
    }
    match phase {
        Phase::Resolving => Cause::DnsFailed,
        Phase::Connecting => Cause::ConnectTimeout,
        Phase::Tls => Cause::TlsFailed,
        // The server speaks RTMP and says no, or hangs up: both are a refusal.
        Phase::Commands if says("cmd failed") || says("denied") => Cause::PublishRejected,
        Phase::Commands | Phase::Published => Cause::ConnectionLost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_the_sentence_and_the_systems_answer_but_no_line_of_code() {
        let error = glib::Error::new(gst::ResourceError::Busy, "Device '/dev/video0' is busy");
        let debug =
            "../sys/v4l2/gstv4l2object.c(4138): set_format (): /Pipeline/Src:camera:\nCall to S_FMT failed: EBUSY";
        assert_eq!(words(&error, debug), "Device '/dev/video0' is busy (Call to S_FMT failed: EBUSY)");
        for without in ["", "gstrtmp2sink.c(1): stop ()", "gstrtmp2sink.c(1): stop ():\n"] {
            assert_eq!(words(&error, without), "Device '/dev/video0' is busy");
        }
    }
}
