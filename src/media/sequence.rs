//! The test source's frames carry their number and time, so that a receiver can count and time each one: an SEI
//! message `user_data_unregistered` (ITU-T H.264 D.1.7) with our own UUID and 32 hexadecimal digits, 16 for the
//! frame's number since the capture began, 16 for `CLOCK_MONOTONIC` in microseconds.

const UUID: &[u8; 16] = b"lenscast-seq-no!";
const SEI: u8 = 6;
const USER_DATA_UNREGISTERED: u8 = 5;
const ACCESS_UNIT_DELIMITER: u8 = 9;

/// `access_unit` (AVC form, four-byte lengths) with the message inserted before its first slice.
pub fn stamped(access_unit: &[u8], number: u64, clock_us: u64) -> Vec<u8> {
    // Hexadecimal digits contain no zero bytes, so nothing can be mistaken for a start code.
    let payload = format!("{number:016x}{clock_us:016x}");
    let size = (UUID.len() + payload.len()) as u8;
    let mut nal = vec![SEI, USER_DATA_UNREGISTERED, size];
    nal.extend(UUID);
    nal.extend(payload.as_bytes());
    nal.push(0x80);

    let at = delimiter_length(access_unit);
    let mut stamped = Vec::with_capacity(access_unit.len() + 4 + nal.len());
    stamped.extend(&access_unit[..at]);
    stamped.extend((nal.len() as u32).to_be_bytes());
    stamped.extend(&nal);
    stamped.extend(&access_unit[at..]);
    stamped
}

/// Length of the access unit delimiter, which must stay first (H.264 7.4.1.2.3).
fn delimiter_length(access_unit: &[u8]) -> usize {
    match access_unit {
        [a, b, c, d, header, ..] if header & 0x1f == ACCESS_UNIT_DELIMITER => {
            (u32::from_be_bytes([*a, *b, *c, *d]) as usize + 4).min(access_unit.len())
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_before_the_slice_and_after_a_delimiter() {
        let slice = [0, 0, 0, 2, 0x65, 0xaa];
        let with_delimiter = [&[0, 0, 0, 2, 9, 0xf0][..], &slice].concat();
        let plain = stamped(&slice, 7, 9);
        assert_eq!(plain[..7], [0, 0, 0, 52, 6, 5, 48]);
        assert!(plain.ends_with(&slice));
        assert!(plain.windows(32).any(|digits| digits == b"00000000000000070000000000000009"));
        let delimited = stamped(&with_delimiter, 7, 9);
        assert_eq!(delimited[..6], with_delimiter[..6]);
        assert_eq!(delimited[6..], plain);
    }
}
