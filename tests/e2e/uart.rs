//! What a phone sees over the serial line, with a cloud beside it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{CloudStandIn, Daemon, Nginx, PhoneStandIn};

const SOON: Duration = Duration::from_secs(10);
/// Limit for a link to return: its delays between attempts grow while the cloud is away.
const REJOINED: Duration = Duration::from_secs(30);
/// The beginning of a frame that never follows, the chip's word, a binary message, and the noise of a loose contact.
const NOISE: &[u8] = b"\x00\xff##0\x21\x00{\"C\":\"##0\x15\x00{\"C\":\"cs_batv\",\"V\":1}$$##@\x09\x00\x0b\x01\x00\x00\x01\x02\x00v2$$#\r\n$$##";

fn is_status(message: &Value, status: &str) -> bool {
    message["type"] == "stream_status"
        && message["streamId"] == "stream-1"
        && message["status"] == status
        && message.get("kind").is_none()
        && message.get("m").is_none()
}

fn statuses<'a>(messages: impl IntoIterator<Item = &'a Value>) -> Vec<&'a str> {
    let told = |message: &&Value| message.get("kind").is_none() && message.get("m").is_none();
    messages.into_iter().filter(told).filter_map(|message| message["status"].as_str()).collect()
}

#[test]
fn a_stream_from_start_to_stop_amid_noise_while_the_cloud_comes_and_goes() {
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let mut cloud = CloudStandIn::start();
    let mut phone = PhoneStandIn::start();
    let daemon = Daemon::start(&format!("{}{}", cloud.config(), phone.config()));
    cloud.wait_connected(SOON);

    // Repeats it until answered, as phones do.
    let mut ready = None;
    for _ in 0..50 {
        phone.send(&json!({"type": "phone_ready"}));
        std::thread::sleep(Duration::from_millis(100));
        ready = phone.messages().iter().find(|m| m["type"] == "glasses_ready").cloned();
        if ready.is_some() {
            break;
        }
    }
    assert!(ready.expect("glasses_ready")["timestamp"].is_u64());
    assert_eq!(phone.messages()[0]["kind"], "snapshot", "the whole state comes first");

    phone.send_bytes(NOISE);
    phone.send(&json!({
        "type": "start_stream", "streamUrl": nginx.url("live", "stream-1"), "streamId": "stream-1", "appId": "org.example.app",
        "video": {"width": 320, "height": 240, "bitrate": 300_000, "frameRate": 15}, "audio": {}, "stream": {},
        "flash": true, "sound": true, "keepAlive": true, "note": "$$ and ## are text", "mId": 77,
    }));
    let ack = phone.wait("an acknowledgement", SOON, |m| m["type"] == "msg_ack");
    assert_eq!(ack["mId"], 77);
    phone.wait("streaming", SOON, |m| is_status(m, "streaming"));

    for round in 0..3 {
        match round {
            0 => cloud.drop_link(),
            1 => cloud.go_away(),
            _ => cloud.come_back(),
        }
        phone.send_bytes(NOISE);
        phone.send(&json!({"type": "ping"}));
        phone.wait("a pong", SOON, |m| m["type"] == "pong");
        phone.send_bytes(NOISE);
        let ack_id = format!("a{round}");
        phone.send(&json!({"type": "keep_stream_alive", "streamId": "stream-1", "ackId": ack_id}));
        phone.wait("an acknowledgement", SOON, |m| m["type"] == "keep_alive_ack" && m["ackId"] == ack_id);
        phone.wait("a measurement", SOON, |m| m["m"]["w"] == 320 && m["streamId"] == "stream-1");
        // Waits for each return in turn: an earlier one says nothing about the next.
        if round != 1 {
            cloud.wait_connected(REJOINED);
            let whole = |m: &Value| m["kind"] == "snapshot" && m["streamId"] == "stream-1";
            let told = cloud.wait_message("the whole state", SOON, whole);
            assert_eq!(told["status"], "streaming");
        }
    }

    // A link cannot stop what it did not start, unless it names the id.
    cloud.send(&json!({"type": "stop_stream"}));
    cloud.wait_message("a refusal", SOON, |m| m["cause"] == "unknown_stream");
    phone.send_bytes(NOISE);
    phone.send(&json!({"type": "stop_stream"}));
    let end = phone.wait("the end", SOON, |m| is_status(m, "stopped"));
    assert_eq!(end["cause"], "requested", "{end}");
    cloud.wait_message("the end", SOON, |m| is_status(m, "stopped"));
    assert_eq!(
        statuses(phone.messages()),
        ["initializing", "connecting", "streaming", "stopping", "stopped"],
        "each once, whatever the cloud's link did"
    );
    recordings.wait_closed(0, SOON);
    daemon.finish();
    assert_eq!(recordings.finish().len(), 1, "one publication");
}
