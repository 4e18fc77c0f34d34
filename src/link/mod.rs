//! Links to phone and cloud, and the sockets for `lenscastctl` and Prometheus. Nothing here decides anything: what arrives
//! becomes an event for the device's task, what that task has to say is sent.

pub mod cloud;
pub mod control;
pub mod control_client;
pub mod metrics;
mod standby;
pub mod uart;

/// A channel to who directs the glasses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkId {
    /// The WebSocket, to a cloud or a phone in its place.
    #[default]
    Cloud,
    /// The serial line, to the phone.
    Uart,
}

impl LinkId {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Cloud, Self::Uart];
}

/// What a link tells the device's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected. What is sent from now on arrives; the full state belongs first.
    Up,
    /// Not connected any more. What is sent until the next `Up` is thrown away.
    Down,
    /// A message.
    Message(String),
}

/// What is sent over a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A message.
    Text(String),
    /// A photo. The serial line carries none.
    Binary(Vec<u8>),
}
