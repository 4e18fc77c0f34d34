//! Fuzz target (see [`crate::fuzz`]): a line of the cloud's control socket.

use super::words::Request;
use crate::fuzz_input::{SECRET, assert_hidden};

/// A request that is written and read again is the same, and nothing printed contains a key.
pub fn request(data: &[u8]) {
    match super::parse(data) {
        Ok(request) => {
            let line = serde_json::to_vec(&request).expect("requests are JSON");
            assert!(!line.contains(&b'\n'));
            assert_eq!(super::parse(&line).as_ref(), Ok(&request));
            if let Request::Start(mut start) = request {
                start.user.clear();
                start.restream.iter_mut().for_each(|destination| destination.name = None);
                assert!(!format!("{start:?}").contains(SECRET));
            }
        }
        Err(refusal) => assert_hidden(&refusal.to_string()),
    }
}
