//! A cable between glasses and cloud that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::support::cloud_server::CloudServer;

/// Carries TCP connections to one address, or refuses to.
#[derive(Clone, Default)]
pub struct LinkProxy(Arc<Cable>);

#[derive(Default)]
struct Cable {
    to: OnceLock<String>,
    cut: AtomicBool,
    stalled: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    connected: Mutex<Vec<Instant>>,
}

impl LinkProxy {
    /// A proxy in front of a cloud's HTTP port, and the configuration of a daemon that links through it.
    pub fn before(cloud: &CloudServer) -> (Self, String) {
        let (this, port) = Self::listen();
        let to = cloud.url().trim_start_matches("http://").to_owned();
        let link = cloud.link().replace(&to, &format!("127.0.0.1:{port}"));
        this.lead_to(to);
        (this, link)
    }

    /// A proxy that has no destination yet, and its port.
    pub fn listen() -> (Self, u16) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let this = Self::default();
        let cable = this.0.clone();
        // A connection ends with its peers, the thread with the test.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if cable.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Some(Ok(far)) = cable.to.get().map(TcpStream::connect) else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                cable.open.lock().expect("not poisoned").extend([clone(&near), clone(&far)]);
                cable.connected.lock().expect("not poisoned").push(Instant::now());
                let (near2, far2) = (clone(&near), clone(&far));
                let (there, back) = (cable.clone(), cable.clone());
                std::thread::spawn(move || carry(&there, near, far));
                std::thread::spawn(move || carry(&back, far2, near2));
            }
        });
        (this, port)
    }

    /// Sets the destination.
    pub fn lead_to(&self, address: String) {
        self.0.to.set(address).expect("it leads to one address");
    }

    /// When each connection was made.
    pub fn connected(&self) -> Vec<Instant> {
        self.0.connected.lock().expect("not poisoned").clone()
    }

    /// Breaks all connections and refuses new ones.
    pub fn cut(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
        for stream in self.0.open.lock().expect("not poisoned").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops carrying data, but keeps connections open and accepts new ones.
    #[allow(dead_code, reason = "for the soak")]
    pub fn stall(&self) {
        self.0.stalled.store(true, Ordering::SeqCst);
    }

    /// Carries data again.
    #[allow(dead_code, reason = "for the soak")]
    pub fn flow(&self) {
        self.0.stalled.store(false, Ordering::SeqCst);
    }

    /// Accepts new connections again.
    pub fn mend(&self) {
        self.0.cut.store(false, Ordering::SeqCst);
    }
}

fn carry(cable: &Cable, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        while cable.stalled.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
