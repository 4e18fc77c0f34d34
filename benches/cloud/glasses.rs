//! Glasses that publish what the benchmark wants: a link to the cloud, and the URL that the cloud gives for each
//! stream.

use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message, client};

use crate::http_client::split;
use crate::support::cloud_server::{CloudServer, TOKEN, USER};
use crate::support::poll_until;

const SOON: Duration = Duration::from_secs(15);

/// Linked glasses. The link ends with the cloud.
pub struct Glasses {
    urls: Receiver<String>,
}

impl Glasses {
    /// Links to the cloud.
    pub fn link(cloud: &CloudServer) -> Self {
        let url = cloud.url();
        let stream = TcpStream::connect(split(&url).0).expect("the cloud listens");
        let mut request = format!("{}/glasses-ws", url.replace("http", "ws")).into_client_request().expect("a URL");
        let header = format!("Bearer {TOKEN}").parse().expect("a token is ASCII");
        request.headers_mut().insert("authorization", header);
        let (mut socket, _) = client(request, stream).expect("the cloud takes these glasses");
        let (send, urls) = channel();
        // The cloud needs no answer but media that arrives. Reading also answers pings.
        std::thread::spawn(move || {
            while let Ok(message) = socket.read() {
                let Message::Text(text) = message else { continue };
                let json: Value = serde_json::from_str(&text).unwrap_or_default();
                if let Some(url) = json["rtmpUrl"].as_str().or_else(|| json["streamUrl"].as_str())
                    && send.send(url.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self { urls }
    }

    /// Makes the cloud start a stream. Returns the URL to publish to.
    pub fn start(&self, cloud: &CloudServer) -> String {
        cloud.ctl(&["start", "--user", USER]);
        self.urls.recv_timeout(SOON).expect("the cloud tells the glasses to start")
    }
}

/// Waits until the stream plays. Returns the cloud's description of it.
pub fn active(cloud: &CloudServer) -> Value {
    poll_until("the stream to be active", SOON, || {
        let streams = cloud.streams();
        (streams[0]["status"] == "active").then(|| streams[0].clone())
    })
}
