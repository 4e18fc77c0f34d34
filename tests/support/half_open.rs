//! A server that accepts TCP connections and never says a word.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The server. Its thread lives as long as the test program; it holds each connection open.
pub struct HalfOpen {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl HalfOpen {
    /// Starts it on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for connection in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                held.push(connection);
            }
        });
        Self { address, accepted }
    }

    /// `rtmp://` address of a stream there.
    pub fn url(&self, key: &str) -> String {
        format!("rtmp://{}/live/{key}", self.address)
    }

    /// Connections that came in so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}
