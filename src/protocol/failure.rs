//! A failure with all its details: cause, text and owner travel together from errno to the phone.

use serde::{Deserialize, Serialize};

use super::{Cause, Owner};

/// A failed stage, and the reason. On the wire its fields are merged into the message that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{cause}: {detail}")]
pub struct Failure {
    /// The cause, for programs.
    pub cause: Cause,
    /// Text that a person can search for; empty if the cause says it all. It may name a device, never a stream key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Who has the camera, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl Failure {
    /// A failure with this cause and this detail.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into(), owner: None }
    }

    /// The failure when somebody else has the camera.
    pub fn held_by(owner: Owner, cause: Cause) -> Self {
        Self { owner: Some(owner), ..cause.into() }
    }

    /// One sentence for a person, without a final period: the cause's, and the owner or the detail.
    pub fn explain(&self) -> String {
        let cause = self.cause.explain();
        match (&self.owner, self.detail.as_str()) {
            // The system's text for a busy device adds nothing.
            (Some(owner), _) => format!("{cause}: {owner}"),
            (None, "") => cause.to_owned(),
            (None, detail) => format!("{cause}: {detail}"),
        }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::new(cause, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnerKind;

    #[test]
    fn the_sentence_says_who_or_what_is_behind_it() {
        let owner = Owner { kind: OwnerKind::Foreign, name: "zoom".into(), pid: Some(812), for_s: None };
        let busy = Failure { owner: Some(owner), ..Failure::new(Cause::CameraBusy, "EBUSY") };
        assert_eq!(busy.explain(), "the camera is in use: program zoom (pid 812)");
        assert_eq!(Failure::new(Cause::EncoderFailed, "x264: gone").explain(), "no video encoder works: x264: gone");
        assert_eq!(Failure::from(Cause::Requested).explain(), "stopped on request");
    }

    #[test]
    fn on_the_wire_is_what_is_known() {
        let owner = Owner { kind: OwnerKind::Foreign, name: "zoom".into(), pid: Some(812), for_s: None };
        let whole = Failure { owner: Some(owner), ..Failure::new(Cause::CameraBusy, "EBUSY") };
        for (failure, json) in [
            (Cause::Requested.into(), serde_json::json!({"cause": "requested"})),
            (
                whole,
                serde_json::json!({"cause": "camera_busy", "detail": "EBUSY",
                                   "owner": {"kind": "foreign", "name": "zoom", "pid": 812}}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&failure).unwrap(), json);
            assert_eq!(serde_json::from_value::<Failure>(json).unwrap(), failure);
        }
    }
}
