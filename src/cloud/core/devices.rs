//! A user's linked glasses and phones. One of them is the present one: it gets requests, and only its messages count.
//!
//! A stream stays with its device, also while the link of that is down: it may still be publishing, and another device
//! that is told to start would publish the same stream beside it. Otherwise the latest to link is the present one.

use crate::cloud::gateway::{ConnectionId, Outgoing};

#[derive(Default)]
pub(super) struct Devices {
    /// In the order in which they linked; each device once.
    linked: Vec<Device>,
    /// The name of the present device, or of the one that will be present when its link is back.
    chosen: Option<String>,
}

struct Device {
    name: String,
    connection: ConnectionId,
    outgoing: Outgoing,
}

impl Devices {
    /// No device yet; `chosen` has a stream.
    pub(super) fn with(chosen: Option<&str>) -> Self {
        Self { linked: Vec::new(), chosen: chosen.map(str::to_owned) }
    }

    /// A device has linked; an earlier connection of its own is replaced. `busy`: the user has a stream. Returns
    /// whether the device is the present one.
    pub(super) fn up(&mut self, name: String, connection: ConnectionId, outgoing: Outgoing, busy: bool) -> bool {
        self.linked.retain(|device| device.name != name);
        if !busy || self.chosen.is_none() {
            self.chosen = Some(name.clone());
        }
        self.linked.push(Device { name, connection, outgoing });
        self.is_present(connection)
    }

    /// A connection is gone. False if it was not known: it had been replaced.
    pub(super) fn down(&mut self, connection: ConnectionId) -> bool {
        let before = self.linked.len();
        self.linked.retain(|device| device.connection != connection);
        self.linked.len() < before
    }

    /// Makes the newest linked device the present one, unless the user is `busy` with the chosen one. Returns its name
    /// if it is another than before.
    pub(super) fn fall_back(&mut self, busy: bool) -> Option<String> {
        let newest = self.linked.last().map(|device| &device.name)?;
        if busy || Some(newest) == self.chosen.as_ref() {
            return None;
        }
        self.chosen = Some(newest.clone());
        self.chosen.clone()
    }

    /// Whether this is the connection of the present device.
    pub(super) fn is_present(&self, connection: ConnectionId) -> bool {
        self.chosen().is_some_and(|device| device.connection == connection)
    }

    /// Whether this is the connection of a linked device.
    pub(super) fn is_linked(&self, connection: ConnectionId) -> bool {
        self.linked.iter().any(|device| device.connection == connection)
    }

    /// The sending end of the present device's connection.
    pub(super) fn present(&self) -> Option<&Outgoing> {
        self.chosen().map(|device| &device.outgoing)
    }

    /// Whether no device is linked.
    pub(super) fn is_empty(&self) -> bool {
        self.linked.is_empty()
    }

    fn chosen(&self) -> Option<&Device> {
        self.linked.iter().find(|device| Some(&device.name) == self.chosen.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ConnectionId = ConnectionId(1);
    const SECOND: ConnectionId = ConnectionId(2);
    const THIRD: ConnectionId = ConnectionId(3);

    fn up(devices: &mut Devices, name: &str, connection: ConnectionId, busy: bool) -> bool {
        devices.up(name.to_owned(), connection, Outgoing::pair().0, busy)
    }

    #[test]
    fn the_one_that_came_last_is_asked_and_leaves_the_place_to_the_one_before() {
        let mut devices = Devices::default();
        assert!(up(&mut devices, "glasses", FIRST, false) && up(&mut devices, "phone", SECOND, false));
        assert!(devices.is_present(SECOND) && !devices.is_present(FIRST) && devices.is_linked(FIRST));
        assert!(devices.down(SECOND) && devices.present().is_none());
        assert_eq!(devices.fall_back(false).as_deref(), Some("glasses"));
        assert!(devices.is_present(FIRST), "they were there all the time");
        assert_eq!(devices.fall_back(false), None, "they are asked already");
        assert!(devices.down(FIRST) && devices.fall_back(false).is_none() && devices.is_empty());
        assert!(up(&mut devices, "phone", THIRD, false));
    }

    #[test]
    fn a_stream_stays_with_its_glasses_and_the_next_goes_to_those_that_came_last() {
        let mut devices = Devices::default();
        up(&mut devices, "glasses", FIRST, false);
        assert!(!up(&mut devices, "phone", SECOND, true) && devices.is_present(FIRST));
        assert!(devices.down(FIRST) && devices.present().is_none(), "they may still publish");
        assert_eq!(devices.fall_back(true), None);
        assert!(up(&mut devices, "glasses", THIRD, true) && devices.is_present(THIRD));
        assert!(!up(&mut devices, "phone", SECOND, true));
        assert_eq!(devices.fall_back(false).as_deref(), Some("phone"), "the stream is over");
        assert!(devices.is_present(SECOND));
    }

    #[test]
    fn a_reconnect_takes_the_place_of_its_own_connection_only() {
        let mut devices = Devices::default();
        up(&mut devices, "glasses", FIRST, false);
        assert!(up(&mut devices, "glasses", SECOND, true), "at once, while they stream");
        assert!(!devices.down(FIRST) && devices.is_present(SECOND), "the end of the one before comes late");
        assert!(!up(&mut devices, "phone", THIRD, true) && devices.down(THIRD) && devices.is_present(SECOND));
        assert!(devices.down(SECOND) && devices.is_empty());
    }

    #[test]
    fn a_stream_of_an_earlier_process_stays_with_its_glasses() {
        let mut devices = Devices::with(Some("glasses"));
        assert!(!up(&mut devices, "phone", FIRST, true) && devices.present().is_none());
        assert!(up(&mut devices, "glasses", SECOND, true) && devices.is_present(SECOND));
        let mut devices = Devices::with(None);
        assert!(up(&mut devices, "phone", FIRST, true), "it is not known which these are");
    }
}
