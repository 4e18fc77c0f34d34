use std::collections::HashSet;

use serde_json::{Value, json};

use super::*;

/// D3: a phone's ping and the glasses' pong.
const PING: &str = "23 23 30 21 00 7b 22 43 22 3a 22 7b 5c 22 74 79 70 65 5c 22 3a 5c 22 70 69 6e 67 5c 22 7d 22 2c 22 57 22 3a 31 \
                    7d 24 24";
const PONG: &str = "23 23 30 00 28 7b 22 43 22 3a 22 7b 5c 22 74 79 70 65 5c 22 3a 5c 22 70 6f 6e 67 5c 22 7d 22 2c 22 56 22 3a 31 \
                    2c 22 42 22 3a 7b 7d 7d 24 24";
/// D5: the handshake of binary messages.
const HANDSHAKE: &str = "23 23 40 09 00 0b 01 00 00 01 02 00 76 32 24 24";

fn bytes(hex: &str) -> Vec<u8> {
    hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn receive_at(receiver: &mut Receiver, bytes: &[u8], now: Duration) -> Vec<Received> {
    bytes.iter().filter_map(|&byte| receiver.push(byte, now)).collect()
}

fn receive(bytes: &[u8]) -> Vec<Received> {
    receive_at(&mut Receiver::default(), bytes, Duration::ZERO)
}

fn message(text: &str, wake: bool) -> Received {
    Received::Message { text: text.into(), wake }
}

fn sent(text: &str) -> Vec<Vec<u8>> {
    pack(text, "-1_1700000000000_1", Toward::Glasses, LengthOrder::Little).unwrap()
}

#[test]
fn the_samples_byte_for_byte() {
    assert_eq!(receive(&bytes(PING)), [message(r#"{"type":"ping"}"#, true)]);
    assert_eq!(receive(&bytes(PONG)), [message(r#"{"type":"pong"}"#, false)]);
    assert_eq!(sent(r#"{"type":"ping"}"#), [bytes(PING)]);
    let pong = pack(r#"{"type":"pong"}"#, "1", Toward::Phone, LengthOrder::Big).unwrap();
    assert_eq!(pong, [bytes(PONG)]);
}

#[test]
fn binary_messages_and_files_are_skipped_and_what_follows_is_heard() {
    let line = [bytes(HANDSHAKE), bytes(PING)].concat();
    assert_eq!(receive(&line), [Received::Other(0x40), message(r#"{"type":"ping"}"#, true)]);
}

#[test]
fn an_envelope_is_not_needed_and_the_chips_words_are_not_ours() {
    let frame = |payload: &str| frame::encode(payload, LengthOrder::Little).unwrap();
    assert_eq!(receive(&frame(r#"{"type":"ping"}"#)), [message(r#"{"type":"ping"}"#, false)]);
    for word in [r#"{"C":"cs_batv","V":1,"B":""}"#, r#"{"C":"7","B":{}}"#, r#"{"C":"{\"no\":\"type\"}"}"#] {
        assert_eq!(receive(&frame(word)), [Received::Word], "{word}");
    }
    for junk in ["null", "[1]", "{\"C\":7}", "{\"type\":7}", "ping!", "{\"C\":\"{}\"", "[\"x\",1]"] {
        assert_eq!(receive(&frame(junk)), [Received::Malformed], "{junk}");
    }
}

#[test]
fn marks_within_a_message_are_its_text() {
    for order in [LengthOrder::Big, LengthOrder::Little] {
        for text in ["$$", "##", "##0", "$$##0!", "{$$}##"] {
            let text = json!({"type": "x", "text": text}).to_string();
            let frames = pack(&text, "1", Toward::Glasses, order).unwrap();
            assert_eq!(receive(&frames.concat()), [message(&text, true)]);
        }
    }
}

#[test]
fn every_length_in_either_order() {
    for length in 0..=MAX_SERIAL_MESSAGE {
        if length > 600 && !length.is_multiple_of(397) {
            continue;
        }
        let text = json!({"type": "x", "text": "é$".repeat(length / 3)}).to_string();
        let Some(frames) = pack(&text, "-1_1_1", Toward::Phone, LengthOrder::Big) else {
            assert!(text.len() > MAX_SERIAL_MESSAGE);
            continue;
        };
        assert!(frames.iter().all(|frame| frame.len() <= 240));
        assert_eq!(receive(&frames.concat()).last(), Some(&message(&text, false)));
    }
    for payload in [0, 1, 2, 513] {
        assert_eq!(frame::encode(&"x".repeat(payload), LengthOrder::Big), None);
    }
    for payload in 3..=512 {
        let text = format!("{{\"type\":\"{}\"}}", "y".repeat(payload));
        let text = if payload >= 12 { &text[..payload - 2] } else { continue };
        let text = format!("{text}\"}}");
        for order in [LengthOrder::Big, LengthOrder::Little] {
            let frame = frame::encode(&text, order).unwrap();
            assert_eq!(receive(&frame), [message(&text, false)], "{payload} bytes, {order:?}");
        }
    }
}

#[test]
fn text_that_needs_escapes_still_fits_the_chip() {
    for nasty in ["\"", "\\", "\"\\/", "😀\"", "\u{1}"] {
        let text = json!({"type": "x", "text": nasty.repeat(400)}).to_string();
        let frames = sent(&text);
        assert!(frames.iter().all(|frame| frame.len() <= 240), "{nasty:?}");
        assert_eq!(receive(&frames.concat()).last(), Some(&message(&text, true)));
    }
}

/// A message of several chunks.
fn long() -> (String, Vec<Vec<u8>>) {
    let text =
        json!({"type": "start_stream", "streamUrl": "rtmp://h/live/key", "streamId": "s".repeat(250)}).to_string();
    let frames = sent(&text);
    assert!(frames.len() > 3);
    (text, frames)
}

#[test]
fn pieces_may_come_in_any_order_and_twice() {
    let (text, mut frames) = long();
    frames.reverse();
    let (last, before) = frames.split_last().unwrap();
    let mut receiver = Receiver::default();
    for frame in before.iter().chain(before) {
        assert_eq!(receive_at(&mut receiver, frame, Duration::ZERO), [Received::Piece]);
    }
    assert_eq!(receive_at(&mut receiver, last, Duration::ZERO), [message(&text, true)]);
    assert_eq!(receive_at(&mut receiver, last, Duration::ZERO), [Received::Piece], "a new message of this id");
}

#[test]
fn pieces_that_come_late_make_no_message() {
    let (text, frames) = long();
    let (last, before) = frames.split_last().unwrap();
    for (late, whole) in [(29_999, true), (30_000, false)] {
        let mut receiver = Receiver::default();
        receive_at(&mut receiver, &before.concat(), Duration::from_secs(5));
        let came = receive_at(&mut receiver, last, Duration::from_secs(5) + Duration::from_millis(late));
        assert_eq!(came == [message(&text, true)], whole, "{came:?}");
    }
}

fn chunk(id: &str, number: u16, count: u16, piece: &str) -> Vec<u8> {
    let chunk = json!({"t": "ck", "id": id, "c": number, "n": count, "d": piece});
    frame::encode(&envelope::seal(&chunk.to_string(), Toward::Glasses), LengthOrder::Little).unwrap()
}

#[test]
fn pieces_that_contradict_each_other_are_dropped() {
    let line = [chunk("a", 0, 2, "{\"type\":"), chunk("a", 1, 3, "\"x\"}"), chunk("a", 1, 2, "\"x\"}")].concat();
    assert_eq!(receive(&line), vec![Received::Piece; 3]);
    assert_eq!(receive(&chunk("a", 2, 2, "x")), [Received::Piece]);
    assert_eq!(receive(&chunk("a", 0, 1, "{\"t\":\"ck\"}")), [Received::Malformed]);
    assert_eq!(receive(&chunk("a", 0, 1, "{\"type\":\"x\"}")), [message("{\"type\":\"x\"}", true)]);
}

#[test]
fn ten_messages_are_put_together_at_a_time_and_the_oldest_gives_way() {
    let mut receiver = Receiver::default();
    for id in 0..11 {
        receive_at(&mut receiver, &chunk(&id.to_string(), 0, 2, "{\"type\":"), Duration::ZERO);
    }
    let mut end = |id: &str| receive_at(&mut receiver, &chunk(id, 1, 2, "\"x\"}"), Duration::ZERO);
    assert_eq!(end("1"), [message("{\"type\":\"x\"}", true)]);
    assert_eq!(end("0"), [Received::Piece]);
}

#[test]
fn what_pieces_claim_takes_no_memory_and_too_much_of_them_is_dropped() {
    let mut receiver = Receiver::default();
    let piece = "x".repeat(300);
    for number in 0..200 {
        assert_eq!(receive_at(&mut receiver, &chunk("a", number, 2048, &piece), Duration::ZERO), [Received::Piece]);
    }
    assert_eq!(receive(&chunk("a", 0, u16::MAX, "x")), [Received::Piece]);
}

#[test]
fn the_id_that_wants_an_acknowledgement_may_be_on_the_last_piece() {
    let last = json!({"t": "ck", "id": "7_1_1", "c": 1, "n": 2, "d": "\"x\"}", "mId": 7}).to_string();
    let last = frame::encode(&envelope::seal(&last, Toward::Glasses), LengthOrder::Little).unwrap();
    let line = [last, chunk("7_1_1", 0, 2, "{\"type\":")].concat();
    let Some(Received::Message { text, .. }) = receive(&line).pop() else { panic!() };
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"type": "x", "mId": 7}));
}

/// There is no checksum. If this test fails, the module can promise more.
#[test]
fn a_letter_for_a_letter_is_not_noticed() {
    let mut line = bytes(PING);
    let at = line.iter().position(|&byte| byte == b'i').unwrap();
    line[at] = b'o';
    assert_eq!(receive(&line), [message(r#"{"type":"pong"}"#, true)]);
}

/// A message that states its own expected contents.
fn checked(random: &mut fastrand::Rng, number: usize, length: usize) -> String {
    let words = ["$$", "##", "##0", "$$##0!", "a", "é", "😀", "\"", "\\", " ", "}", "{\"type\":\"ping\"}", "\n"];
    let text: String = (0..length).map(|_| words[random.usize(..words.len())]).collect();
    json!({"type": "t", "number": number, "text": text, "sum": sum(number, &text)}).to_string()
}

fn sum(number: usize, text: &str) -> u64 {
    text.bytes()
        .fold(number as u64 ^ 0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The number of a message; panics if nobody sent it.
fn number(text: &str) -> usize {
    let json: Value = serde_json::from_str(text).unwrap();
    let number = json["number"].as_u64().unwrap() as usize;
    assert_eq!(json["sum"].as_u64(), Some(sum(number, json["text"].as_str().unwrap())), "{text}");
    number
}

/// Spoils a frame in a way that a receiver without a checksum can notice: never one letter for another.
fn spoil(random: &mut fastrand::Rng, frame: &mut Vec<u8>) {
    let at = random.usize(..frame.len());
    match random.u8(..7) {
        0 => frame.truncate(at),
        1 => drop(frame.drain(..=at)),
        // One byte less. JSON may tolerate that within the payload, but then the end is not where it should be.
        2 => drop(frame.remove(at)),
        3 => frame.insert(at, random.u8(..)),
        // A byte that is never in UTF-8, and one that is never in JSON.
        4 => frame[at] = random.u8(0xf8..),
        5 => frame[at] = random.u8(3..9),
        _ => {
            let mark = [0, 1, frame.len() - 1, frame.len() - 2][random.usize(..4)];
            frame[mark] ^= 1 << random.u8(..8);
        }
    }
}

/// Bytes that may come between frames.
fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    match random.u8(..4) {
        0 => (0..random.usize(..40)).map(|_| random.u8(..)).collect(),
        1 => b"##0$$#\x00\x01\x02\xff@1 "[..]
            .iter()
            .cycle()
            .skip(random.usize(..13))
            .take(random.usize(..30))
            .copied()
            .collect(),
        // The beginning of a frame that never follows.
        2 => [b"##0".to_vec(), vec![random.u8(..), random.u8(..3)], vec![b'x'; random.usize(..300)]].concat(),
        _ => b"###"[..random.usize(..4)].to_vec(),
    }
}

/// 100,000 frames of which a third are spoiled, never two in a row (the halves of two may form a third that nobody can
/// tell apart): none yields a message that nobody sent, and each good one is received with its last byte, right after
/// a spoiled one and amid noise.
#[test]
fn of_spoiled_frames_and_noise_no_message_comes_and_good_frames_are_all_heard() {
    let mut random = fastrand::Rng::with_seed(900);
    let mut receiver = Receiver::default();
    let (mut good, mut spoiled) = (0, false);
    for index in 0..100_000 {
        let length = random.usize(..20);
        let text = checked(&mut random, index, length);
        let order = if random.bool() { LengthOrder::Big } else { LengthOrder::Little };
        let toward = if random.bool() { Toward::Phone } else { Toward::Glasses };
        let Some(mut frame) = frame::encode(&envelope::seal(&text, toward), order) else { continue };
        spoiled = !spoiled && random.bool();
        if spoiled {
            spoil(&mut random, &mut frame);
        }
        let before = if random.bool() { noise(&mut random) } else { vec![] };
        for &byte in &before {
            // Noise may restore a marker that a frame lost.
            if let Some(Received::Message { text, .. }) = receiver.push(byte, Duration::ZERO) {
                assert!(number(&text) < index);
            }
        }
        let mut heard = None;
        for (at, &byte) in frame.iter().enumerate() {
            if let Some(Received::Message { text, .. }) = receiver.push(byte, Duration::ZERO) {
                assert_eq!((number(&text), heard), (index, None), "another or twice: {text}");
                heard = Some(at);
            }
        }
        // Some ways to spoil a frame leave it whole: a byte before it, another white space character.
        assert!(spoiled || heard == Some(frame.len() - 1), "{index}: {text} after {before:?}, heard at {heard:?}");
        good += usize::from(!spoiled);
    }
    assert!(good > 50_000, "{good}");
}

/// Some 100,000 frames of chunked messages, with chunks lost, doubled and shuffled with those of other messages: a
/// message arrives if and only if all its chunks did.
#[test]
fn chunked_messages_are_whole_or_nothing() {
    let mut random = fastrand::Rng::with_seed(901);
    let (mut sent, mut frames_sent, mut round) = (0, 0, 0_u64);
    while frames_sent < 100_000 {
        round += 1;
        let now = Duration::from_secs(round);
        let mut receiver = Receiver::default();
        let (mut line, mut whole) = (Vec::new(), HashSet::new());
        for _ in 0..random.usize(1..=10) {
            let length = random.usize(100..600);
            let text = checked(&mut random, sent, length);
            let mut frames = pack(&text, &format!("-1_{round}_{sent}"), Toward::Glasses, LengthOrder::Little).unwrap();
            frames_sent += frames.len();
            if random.bool() {
                frames.remove(random.usize(..frames.len()));
            } else {
                whole.insert(sent);
            }
            if random.bool() {
                // Doubled only until the message is complete; a later chunk would begin it anew, and never complete
                // it.
                frames.push(frames[random.usize(..frames.len())].clone());
            }
            line.extend(frames);
            sent += 1;
        }
        random.shuffle(&mut line);
        let mut heard = HashSet::new();
        for frame in line {
            for received in receive_at(&mut receiver, &frame, now) {
                match received {
                    Received::Message { text, .. } => assert!(heard.insert(number(&text)), "twice"),
                    other => assert_eq!(other, Received::Piece),
                }
            }
        }
        assert_eq!(heard, whole);
    }
}
