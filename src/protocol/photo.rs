//! How a photo travels over the link (docs/photo.md): the request is an ordinary message; the photo is one binary
//! message, a line of JSON followed by the JPEG; a failure is an ordinary message.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Cause;
use super::control::Refusal;

/// Maximum length of a binary message, bytes, as the cloud accepts.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;
/// Maximum length of its head, bytes; an id has at most 256 characters.
const MAX_HEAD: usize = 4 * 1024;

/// The line before the JPEG.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// `photo_response`.
    pub r#type: String,
    /// The id of the request that it answers.
    pub request_id: String,
    /// Always true.
    pub success: bool,
    /// Length of the JPEG, bytes.
    pub bytes: usize,
}

/// The binary message for a photo. `None` if it would be longer than [`MAX_FRAME`].
pub fn frame(request_id: &str, jpeg: &[u8]) -> Option<Vec<u8>> {
    let bytes = jpeg.len();
    let head = Head { r#type: "photo_response".into(), request_id: request_id.into(), success: true, bytes };
    let mut frame = serde_json::to_vec(&head).ok()?;
    frame.push(b'\n');
    frame.extend_from_slice(jpeg);
    (frame.len() <= MAX_FRAME).then_some(frame)
}

/// Reads a binary message: its head, and the offset of the JPEG. `None` if it is not a photo.
pub fn parse_frame(frame: &[u8]) -> Option<(Head, usize)> {
    let end = frame.iter().take(MAX_HEAD).position(|&byte| byte == b'\n')?;
    let head: Head = serde_json::from_slice(&frame[..end]).ok()?;
    let jpeg = end + 1;
    let whole = head.r#type == "photo_response" && head.success && head.bytes == frame.len() - jpeg;
    whole.then_some((head, jpeg))
}

/// The message that says why there is no photo.
pub fn failure(request_id: &str, refusal: &Refusal) -> Value {
    json!({
        "type": "photo_response",
        "requestId": request_id,
        "success": false,
        "errorCode": error_code(refusal.cause),
        "errorMessage": refusal.message,
        "cause": refusal.cause,
    })
}

/// `MentraOS`'s word for why there is no photo (`PhotoErrorCode` of `@mentra/sdk` 2.1.29).
pub fn error_code(cause: Cause) -> &'static str {
    match cause {
        Cause::CameraBusy | Cause::Replaced | Cause::Preempted => "CAMERA_BUSY",
        Cause::NoCamera
        | Cause::CameraForbidden
        | Cause::CameraFailed
        | Cause::EncoderFailed
        | Cause::PrivacyLedFailed => "CAMERA_INIT_FAILED",
        Cause::CameraLost => "CAMERA_CAPTURE_FAILED",
        Cause::CameraStalled | Cause::EncoderStalled => "CAMERA_TIMEOUT",
        Cause::LinkLost => "PHONE_GLASSES_NOT_CONNECTED",
        _ => "UNKNOWN_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_photo_comes_out_as_it_went_in_whatever_is_in_it() {
        let jpeg: Vec<u8> = b"\xff\xd8\n{\"\n".iter().copied().cycle().take(5000).collect();
        let frame = frame("photo \"1\"\n", &jpeg).unwrap();
        let (head, at) = parse_frame(&frame).unwrap();
        assert_eq!((head.request_id.as_str(), &frame[at..]), ("photo \"1\"\n", jpeg.as_slice()));
        assert!(super::frame("x", &vec![0; MAX_FRAME]).is_none());
    }

    #[test]
    fn what_is_cut_or_no_photo_is_none() {
        let frame = frame("p", b"jpeg").unwrap();
        for length in 0..frame.len() {
            assert_eq!(parse_frame(&frame[..length]), None, "{length}");
        }
        for other in
            [&b"audio"[..], b"{}\n", b"\n", b"{\"type\":\"x\",\"requestId\":\"p\",\"success\":true,\"bytes\":0}\n"]
        {
            assert_eq!(parse_frame(other), None);
        }
    }
}
