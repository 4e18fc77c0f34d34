//! nginx with its RTMP module: the server that nobody here wrote.
//!
//! One process (no master, no workers), so that a signal hits all of it. Applications:
//!
//! | name | what |
//! |---|---|
//! | `live` | takes any key and records it; a second publisher of a key is refused |
//! | `keyed` | the same, for the key [`GOOD_KEY`] only |
//! | `patient` | the same as `live`, with more patience: 10 s, as README and docs advise |
//! | `faithful` | the same as `live`, but believes in a publisher for as long as TCP does |

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::clock::poll_until;
use super::namespace::Namespace;
use super::process::Process;
use super::recordings::Recordings;

/// The key that `keyed` takes.
pub const GOOD_KEY: &str = "good-key";

/// The server. Its port stays the same over its restarts.
pub struct Nginx {
    dir: Arc<TempDir>,
    host: IpAddr,
    port: u16,
    notify_port: u16,
    tls: Option<(u16, PathBuf, PathBuf)>,
    prefix: Vec<String>,
    lives: u32,
    process: Option<Process>,
}

impl Nginx {
    /// Starts it on loopback.
    pub fn start() -> Self {
        let mut this = Self::absent();
        this.launch();
        this
    }

    /// Has a free port on loopback, but nothing runs there yet.
    pub fn absent() -> Self {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let dir = Arc::new(TempDir::new().expect("a folder for the server"));
        fs::create_dir(dir.path().join("recordings")).expect("a folder for recordings");
        Self {
            dir,
            host,
            port: free_port(),
            notify_port: free_port(),
            tls: None,
            prefix: Vec::new(),
            lives: 0,
            process: None,
        }
    }

    /// Starts it on another address of this machine.
    pub fn start_at(host: IpAddr) -> Self {
        let mut this = Self::absent();
        this.host = host;
        this.launch();
        this
    }

    /// Starts it in a namespace.
    pub fn start_in(namespace: &Namespace) -> Self {
        let mut this = Self::absent();
        this.host = IpAddr::V4(namespace.address());
        this.prefix = namespace.prefix().to_vec();
        this.launch();
        this
    }

    /// Starts it on loopback with RTMPS too.
    pub fn start_with(certificate: &Certificate) -> Self {
        let mut this = Self::absent();
        this.tls = Some((free_port(), certificate.chain(), certificate.key()));
        this.launch();
        this
    }

    /// `rtmp://` address of a stream.
    pub fn url(&self, application: &str, key: &str) -> String {
        format!("rtmp://{}:{}/{application}/{key}", self.host, self.port)
    }

    /// `rtmps://` address of a stream, with the server named as `host`.
    pub fn secure_url(&self, host: &str, application: &str, key: &str) -> String {
        let (port, ..) = self.tls.as_ref().expect("started with a certificate");
        format!("rtmps://{host}:{port}/{application}/{key}")
    }

    /// Its RTMP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it (again), on the same port; returns when it listens.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.lives += 1;
        let config = self.dir.path().join("nginx.conf");
        fs::write(&config, self.config()).expect("the configuration can be written");
        let log = File::create(self.dir.path().join(format!("stderr-{}.log", self.lives))).expect("a log file");
        let mut words = self.prefix.clone();
        words.push("nginx".to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-p").arg(self.dir.path()).arg("-c").arg(&config).arg("-e").arg("error.log");
        let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
        let address = SocketAddr::new(self.host, self.port);
        poll_until("nginx to listen", Duration::from_secs(10), || {
            assert!(process.exited().is_none(), "nginx ended at once: {}", self.complaints());
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
        });
        self.process = Some(process);
    }

    /// `kill -9`; returns when it is gone.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Stops its process, but not its machine's kernel.
    pub fn freeze(&self) {
        self.running().signal(Signal::SIGSTOP);
    }

    /// Lets it run again.
    pub fn thaw(&self) {
        self.running().signal(Signal::SIGCONT);
    }

    /// How many times anybody asked to publish `key`, in all its lives.
    pub fn publish_requests(&self, key: &str) -> usize {
        let log = fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(&format!("publish: name='{key}'"))).count()
    }

    /// Follows what it records from now on.
    pub fn recordings(&self) -> Recordings {
        Recordings::follow(Arc::clone(&self.dir), &self.dir.path().join("recordings"))
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    fn complaints(&self) -> String {
        let read = |name: String| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        read("error.log".to_owned()) + &read(format!("stderr-{}.log", self.lives))
    }

    fn config(&self) -> String {
        let Self { host, port, notify_port, lives, .. } = self;
        let modules = "/usr/lib/nginx/modules";
        // A publisher that was cut off keeps its key for as long as the server believes in it.
        let faithful = format!(
            "live on; wait_key off; record all; record_path {}; record_unique on; record_suffix -{lives}.flv;",
            self.dir.path().join("recordings").display()
        );
        let application = format!("{faithful} drop_idle_publisher 3s;");
        let (stream_module, stream) = match &self.tls {
            None => (String::new(), String::new()),
            Some((tls_port, chain, key)) => (
                format!("load_module {modules}/ngx_stream_module.so;"),
                format!(
                    "stream {{ server {{ listen {host}:{tls_port} ssl; proxy_pass {host}:{port};\n\
                     ssl_certificate {}; ssl_certificate_key {}; }} }}",
                    chain.display(),
                    key.display()
                ),
            ),
        };
        format!(
            "{stream_module}\n\
             load_module {modules}/ngx_rtmp_module.so;\n\
             daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log info;\n\
             events {{ worker_connections 256; }}\n\
             rtmp {{ access_log off; server {{ listen {host}:{port}; notify_method get;\n\
               application live {{ {application} }}\n\
               application keyed {{ {application} on_publish http://{host}:{notify_port}/publish; }}\n\
               application faithful {{ {faithful} }}\n\
               application patient {{ {faithful} drop_idle_publisher 10s; }}\n\
             }} }}\n\
             http {{ access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;\n\
               uwsgi_temp_path t4; scgi_temp_path t5;\n\
               server {{ listen {host}:{notify_port};\n\
                 location /publish {{ if ($arg_name = {GOOD_KEY}) {{ return 200; }} return 403; }} }} }}\n\
             {stream}\n"
        )
    }
}

/// A port nobody listens on. Below the kernel's own choices for outgoing connections, so that none of those can take it
/// while its server is down.
fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() * 61 % u32::from(COUNT)).expect("less than COUNT");
    (0..COUNT)
        .map(|_| FIRST + (start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % COUNT)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port on loopback")
}
