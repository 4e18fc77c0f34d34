//! Links to phone and cloud, and the sockets for `lenscastctl` and Prometheus. Nothing here decides anything: what
//! arrives becomes an event for the device's task, and what that task wants to say is sent.

pub mod cloud;
pub mod control;
pub mod control_client;
pub mod metrics;
mod standby;
pub mod uart;

/// A channel to whoever controls the glasses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkId {
    /// The WebSocket, to a cloud or to a phone that takes its place.
    #[default]
    Cloud,
    /// The serial line, to the phone.
    Uart,
}

impl LinkId {
    /// All links.
    pub const ALL: [Self; 2] = [Self::Cloud, Self::Uart];
}

/// Events from a link for the device's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected. Messages sent from now on arrive; send the full state first.
    Up,
    /// Disconnected. Messages sent before the next `Up` are dropped.
    Down,
    /// A message arrived.
    Message(String),
}

/// What the device sends over a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A message.
    Text(String),
    /// A photo. The serial line carries none.
    Binary(Vec<u8>),
}
