//! Fuzz target (see [`crate::fuzz`]): a serial line.

use std::time::Duration;

use serde_json::Value;

use super::{LengthOrder, MAX_SERIAL_MESSAGE, Received, Receiver, Toward, frame, pack};
use crate::fuzz_input::Input;

/// The input is the bytes on a line, with a second between them where the first byte says so. Every message found is
/// one of the protocol and can be sent on; after all the input, a good frame and a chunked message are still received.
pub fn line(data: &[u8]) {
    let mut input = Input::new(data);
    let slow = input.byte() & 1 == 1;
    let mut receiver = Receiver::default();
    let mut now = Duration::ZERO;
    for &byte in input.rest() {
        now += Duration::from_secs(slow.into());
        if let Some(Received::Message { text, .. }) = receiver.push(byte, now) {
            let json: Value = serde_json::from_str(&text).expect("messages are JSON");
            assert!(json["type"].is_string() && text.len() <= 8 * MAX_SERIAL_MESSAGE, "{text}");
            check_sent_again(&text);
        }
    }
    let last = r#"{"type":"ping","text":"$$##"}"#;
    let sealed = pack(last, "1", Toward::Glasses, LengthOrder::Little).expect("it is short").concat();
    let bare = frame::encode(last, LengthOrder::Big).expect("it is short");
    for frame in [sealed, bare] {
        let heard: Vec<Received> = frame.iter().filter_map(|&byte| receiver.push(byte, now)).collect();
        assert!(
            matches!(&heard[..], [.., Received::Message { text, .. }] if text == last),
            "a good frame is heard whatever came before: {heard:?}"
        );
    }
}

fn check_sent_again(text: &str) {
    for (toward, order) in [(Toward::Phone, LengthOrder::Big), (Toward::Glasses, LengthOrder::Little)] {
        let Some(frames) = pack(text, "-1_1700000000000_1", toward, order) else { continue };
        let mut receiver = Receiver::default();
        let heard = frames.concat().into_iter().filter_map(|byte| receiver.push(byte, Duration::ZERO)).last();
        assert_eq!(heard, Some(Received::Message { text: text.into(), wake: toward == Toward::Glasses }));
    }
}
