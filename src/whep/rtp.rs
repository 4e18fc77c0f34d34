//! Cuts H.264 into RTP packets (RFC 6184, packetization mode 1).

use std::sync::Arc;

use crate::broadcast::VideoFormat;

/// The most bytes of a payload. IPv6's minimum MTU of 1280 leaves 1232 for UDP; the RTP header with extensions, RTX and
/// SRTP take up to 70.
const LARGEST: usize = 1160;

const AGGREGATION: u8 = 24;
const FRAGMENT: u8 = 28;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;

/// The payloads of one picture, in order; the last one gets the marker. Parameter sets come before a key frame.
pub fn packetize(format: &VideoFormat, key: bool, data: &[u8]) -> Vec<Arc<[u8]>> {
    let mut packets = Vec::with_capacity(data.len() / LARGEST + 2);
    if key {
        packets.push(parameter_sets(format));
    }
    for unit in units(data) {
        match unit[0] & 31 {
            DELIMITER | FILLER => {}
            _ if unit.len() <= LARGEST => packets.push(unit.into()),
            _ => fragment(unit, &mut packets),
        }
    }
    packets
}

fn parameter_sets(format: &VideoFormat) -> Arc<[u8]> {
    // The aggregate is as important as its units, which both have the highest importance.
    let mut packet = vec![3 << 5 | AGGREGATION];
    for set in [&format.sps, &format.pps] {
        packet.extend((set.len() as u16).to_be_bytes());
        packet.extend_from_slice(set);
    }
    packet.into()
}

/// NAL units with four-byte length prefixes, up to the first wrong length.
fn units(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let (length, rest) = data.split_first_chunk::<4>()?;
            let (unit, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            data = rest;
            if !unit.is_empty() {
                return Some(unit);
            }
        }
    })
}

/// FU-A: the unit's header is split into the first two bytes of each fragment.
fn fragment(unit: &[u8], packets: &mut Vec<Arc<[u8]>>) {
    let (header, body) = (unit[0], &unit[1..]);
    let count = body.len().div_ceil(LARGEST - 2);
    // Of equal size, so that no tiny packet follows at the end.
    let size = body.len().div_ceil(count);
    for (n, part) in body.chunks(size).enumerate() {
        let start = u8::from(n == 0) << 7;
        let end = u8::from((n + 1) * size >= body.len()) << 6;
        let mut packet = Vec::with_capacity(part.len() + 2);
        packet.extend([header & 0xe0 | FRAGMENT, start | end | header & 31]);
        packet.extend_from_slice(part);
        packets.push(packet.into());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn format() -> VideoFormat {
        let (sps, pps) = (Bytes::from_static(&[0x67, 1, 2]), Bytes::from_static(&[0x68, 3]));
        VideoFormat { record: Bytes::new(), sps, pps, width: 2, height: 2, reorder: 0 }
    }

    fn access_unit(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&(unit.len() as u32).to_be_bytes()[..], unit].concat()).collect()
    }

    #[test]
    fn parameter_sets_come_before_a_key_frame() {
        let data = access_unit(&[&[9, 0xf0], &[6, 5, 4], &[0x65, 8]]);
        let packets = packetize(&format(), true, &data);
        let expected: [&[u8]; 3] = [&[0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 3], &[6, 5, 4], &[0x65, 8]];
        assert_eq!(packets.iter().map(|packet| &packet[..]).collect::<Vec<_>>(), expected);
        assert_eq!(packetize(&format(), false, &data).len(), 2);
    }

    #[test]
    fn a_large_unit_is_taken_apart_and_can_be_put_together() {
        for size in [LARGEST, LARGEST + 1, 2 * LARGEST, 10_000, 100_000] {
            let unit: Vec<u8> = std::iter::once(0x65).chain((1..size).map(|n| n as u8)).collect();
            let packets = packetize(&format(), false, &access_unit(&[&unit]));
            assert!(packets.iter().all(|packet| packet.len() <= LARGEST));
            if packets.len() == 1 {
                assert_eq!(packets[0][..], unit);
                continue;
            }
            let flags: Vec<u8> = packets.iter().map(|packet| packet[1] >> 6).collect();
            assert_eq!((flags[0], flags[flags.len() - 1]), (2, 1));
            assert!(flags[1..flags.len() - 1].iter().all(|&flags| flags == 0));
            let mut whole = vec![packets[0][0] & 0xe0 | packets[0][1] & 31];
            for packet in &packets {
                whole.extend_from_slice(&packet[2..]);
            }
            assert_eq!(whole, unit);
        }
    }

    #[test]
    fn wrong_lengths_end_a_picture() {
        let mut data = access_unit(&[&[0x41, 1], &[]]);
        data.extend([0, 0, 1, 0, 7]);
        assert_eq!(packetize(&format(), false, &data).len(), 1);
        assert!(packetize(&format(), false, &[1, 2]).is_empty());
    }
}
