//! Fuzz target (see [`crate::fuzz`]): a connection to the control socket, with a device that grants everything.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, watch};

use super::{ControlEvent, LIMITS, Shared, connection};
use crate::fuzz_input::Input;
use crate::protocol::DaemonState;
use crate::protocol::control::{Answer, MAX_REQUEST_LINE, Request};

/// The first byte is the length of the pieces in which the rest arrives. However it arrives, each line gets one line.
/// Overlong lines and `watch`, which end the exchange, have their own tests.
pub fn socket(data: &[u8]) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    let mut input = Input::new(data);
    let piece = usize::from(input.byte()) * 16 + 1;
    let bytes = input.rest();
    let requests =
        || bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).map(Request::parse);
    if bytes.len() > MAX_REQUEST_LINE || requests().any(|request| request == Ok(Request::Watch)) {
        return;
    }
    let replies = RUNTIME.with(|runtime| runtime.block_on(talk(bytes, piece)));
    let replies = String::from_utf8(replies).expect("replies are text");
    assert!(replies.is_empty() || replies.ends_with('\n'));
    let granted =
        replies.lines().map(|line| serde_json::from_str::<Value>(line).expect("replies are JSON")["ok"] == true);
    assert!(granted.eq(requests().map(|request| request.is_ok())), "{replies}");
}

/// The replies.
async fn talk(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (client, server) = UnixStream::pair().expect("a pair of sockets");
    let (events, mut inbox) = mpsc::channel(4);
    let (_state, state) = watch::channel(DaemonState::default());
    let (reports, _) = broadcast::channel(4);
    let (_shutdown, shutdown) = watch::channel(false);
    let shared = Shared { limits: LIMITS, events, state, reports, shutdown };
    let (mut reader, mut writer) = client.into_split();
    let device = async move {
        while let Some(ControlEvent::Request { request, reply, .. }) = inbox.recv().await {
            assert!(!matches!(request, Request::Status | Request::Watch));
            reply.send(Ok(Answer::Done)).expect("the client waits");
        }
    };
    let send = async move {
        for piece in bytes.chunks(piece) {
            writer.write_all(piece).await.expect("all is read");
        }
    };
    let receive = async move {
        let mut replies = Vec::new();
        reader.read_to_end(&mut replies).await.expect("it ends when all is answered");
        replies
    };
    let connection = connection(1, server, Arc::new(shared));
    let ((), (), (), replies) = tokio::join!(connection, device, send, receive);
    replies
}
