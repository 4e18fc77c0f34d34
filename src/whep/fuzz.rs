//! Fuzz targets (see [`crate::fuzz`]): a viewer's offer, and datagrams to the UDP port.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use str0m::change::SdpAnswer;

use super::answer::{Agreed, Refused, Template};
use super::outbox::Outbox;
use super::session::Session;
use super::stun;
use crate::fuzz_input::Input;

fn template() -> &'static Template {
    static TEMPLATE: LazyLock<Template> =
        LazyLock::new(|| Template::new(vec!["192.0.2.1:8189".parse().expect("an address")]).expect("a certificate"));
    &TEMPLATE
}

fn answer(offer: &str) -> Result<(Agreed, String), Refused> {
    template().answer(offer, 100, Instant::now())
}

/// An offer. Any answer to it is valid, comes from this server, and does not offer to receive.
pub fn offer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok((agreed, answer)) = answer(text) else { return };
    assert!(answer.contains("a=ice-lite") && answer.contains("192.0.2.1 8189 typ host"), "{answer}");
    assert!(!answer.contains("a=sendrecv") && !answer.contains("a=recvonly"), "{answer}");
    SdpAnswer::from_sdp_string(&answer).expect("an answer is read as it is written");
    let mut session = Session::new(agreed, 1, Instant::now());
    session.advance(Instant::now(), &mut Outbox::default());
}

/// Datagrams, each after a byte with its length, to a session that was just agreed on.
pub fn datagram(data: &[u8]) {
    let offer = include_str!("../../fuzz/corpus/whep_offer/firefox.sdp");
    let (agreed, _) = answer(offer).expect("a browser's offer");
    let mut now = Instant::now();
    let mut session = Session::new(agreed, 1, now);
    let (server, viewer) = ("192.0.2.1:8189".parse(), "192.0.2.2:5000".parse());
    let (server, viewer) = (server.expect("an address"), viewer.expect("an address"));
    let mut input = Input::new(data);
    while !input.is_empty() {
        let length = usize::from(input.byte());
        let datagram = input.take(length);
        if let Some(name) = stun::local_ufrag(datagram) {
            assert!(datagram.windows(name.len()).any(|window| window == name.as_bytes()));
        }
        session.receive(viewer, server, datagram, now);
        now += Duration::from_millis(20);
        let progress = session.advance(now, &mut Outbox::default());
        assert!(!progress.connected, "nobody shook hands");
    }
}
