//! A client of the daemon's control socket: one request, one reply, each within a deadline.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::schema;

/// How long a reply may take: a little longer than the daemon gives itself.
const REPLY: Duration = Duration::from_secs(20);

/// One connection.
pub struct Control {
    stream: BufReader<UnixStream>,
    /// The other end is lenscastd, whose words are described.
    described: bool,
}

impl Control {
    /// Connects to lenscastd.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap_or_else(|e| panic!("cannot connect {}: {e}", socket.display()));
        Self::over(stream)
    }

    /// Takes over a connection.
    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(REPLY)).expect("a time-out above zero");
        stream.set_write_timeout(Some(REPLY)).expect("a time-out above zero");
        Self { stream: BufReader::new(stream), described: true }
    }

    /// Connects to lenscast-cloud.
    pub fn connect_to_cloud(socket: &Path) -> Self {
        Self { described: false, ..Self::connect(socket) }
    }

    /// Sends a request and gives the reply, which must be as docs/control.schema.json says.
    pub fn request(&mut self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes());
        let reply = self.line().unwrap_or_else(|| panic!("connection closed instead of an answer to {request}"));
        if let Some(command) = request["cmd"].as_str().filter(|_| self.described) {
            schema::check(&format!("reply_to_{command}"), &reply);
        }
        reply
    }

    /// Sends a request that must be granted, and gives the reply.
    pub fn granted(&mut self, request: &Value) -> Value {
        let reply = self.request(request);
        assert_eq!(reply["ok"], true, "{request} was refused: {reply}");
        reply
    }

    /// Sends a request that must be refused, and gives the error.
    pub fn refused(&mut self, request: &Value) -> Value {
        let reply = self.request(request);
        assert_eq!(reply["ok"], false, "{request} was granted: {reply}");
        reply["error"].clone()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the daemon takes what it is sent");
    }

    /// Sends bytes as they are, to a daemon that may close the connection before it has them all.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next line, or `None` when the daemon closed the connection.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"))),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(e) => panic!("no line from the daemon: {e}"),
        }
    }

    /// The daemon's state.
    pub fn status(&mut self) -> Value {
        self.granted(&json!({"cmd": "status"}))["state"].clone()
    }

    /// A photo for `app`, or the refusal.
    pub fn photo(&mut self, app: &str) -> Result<Vec<u8>, Value> {
        let reply = self.request(&json!({"cmd": "photo", "app": app}));
        if reply["ok"] != true {
            return Err(reply["error"].clone());
        }
        let length = usize::try_from(reply["length"].as_u64().expect("a length")).expect("a length that fits");
        let mut jpeg = vec![0; length];
        self.stream.read_exact(&mut jpeg).expect("as many bytes as announced");
        Ok(jpeg)
    }

    /// The connection itself.
    pub fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }
}

/// A start request for an unmanaged stream of a small picture, which costs next to nothing to encode.
pub fn small(url: &str, app: &str, stream_id: &str) -> Value {
    start(url, app, stream_id, (320, 240), 15, 300_000)
}

/// A start request for an unmanaged stream.
pub fn start(url: &str, app: &str, stream_id: &str, size: (u32, u32), frame_rate: u32, bitrate: u32) -> Value {
    json!({
        "cmd": "start", "url": url, "app": app, "stream_id": stream_id, "kind": "unmanaged",
        "video": {"width": size.0, "height": size.1, "bitrate": bitrate, "frame_rate": frame_rate},
        "audio": {"bitrate": 64_000, "sample_rate": 44_100},
    })
}

/// The same request for a managed stream.
pub fn managed(mut request: Value) -> Value {
    request["kind"] = "managed".into();
    request
}
