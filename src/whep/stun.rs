//! Finds the session that a STUN request is for. All sessions share one socket, and a viewer's address is not known
//! before its first request.

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 6;

/// Our part of the `USERNAME` (RFC 8445, 7.2.2), which identifies the session. `None` if it is no STUN message with
/// one.
pub fn local_ufrag(datagram: &[u8]) -> Option<&str> {
    let (header, mut attributes) = datagram.split_at_checked(HEADER)?;
    if header[0] & 0xc0 != 0 || header[4..8] != COOKIE {
        return None;
    }
    loop {
        let (&[kind_high, kind_low, high, low], rest) = attributes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(..length)?;
        if u16::from_be_bytes([kind_high, kind_low]) == USERNAME {
            return std::str::from_utf8(value).ok()?.split_once(':').map(|(local, _)| local);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_name_and_nothing_in_garbage() {
        let mut message = vec![0, 1, 0, 24];
        message.extend(COOKIE);
        message.extend([7; 12]);
        message.extend([0x80, 0x22, 0, 3, 1, 2, 3, 0]);
        message.extend([0, 6, 0, 9]);
        message.extend(b"ours:them\0\0\0");
        assert_eq!(local_ufrag(&message), Some("ours"));
        for end in 0..message.len() - 3 {
            assert_eq!(local_ufrag(&message[..end]), None, "{end}");
        }
        message[4] = 0;
        assert_eq!(local_ufrag(&message), None);
    }
}
