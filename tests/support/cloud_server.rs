//! The built `lenscast-cloud`, as a user would run it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lenscast::cloud::credential::KeyHash;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::clock::poll_until;
use super::process::Process;
use super::sdk_app::free_port;

/// The key of every app in the tests.
pub const API_KEY: &str = "key-12345678";
/// The token of the glasses in the tests.
pub const TOKEN: &str = "token-of-the-glasses";
/// The user they belong to.
pub const USER: &str = "user@example.com";

/// A cloud with ports, store and control socket of its own.
pub struct CloudServer {
    dir: TempDir,
    process: Process,
    host: IpAddr,
    http: u16,
    rtmp: u16,
    lives: u32,
    log_filter: &'static str,
    certificate: Option<Arc<Certificate>>,
}

/// Where publishers are told to go.
enum Publishers {
    Here,
    By(u16),
    Secure(Arc<Certificate>),
    /// On this address of the machine, where the glasses are elsewhere.
    At(IpAddr),
}

/// As the configuration wants it.
pub fn sha256(text: &str) -> String {
    KeyHash::of(text).to_hex()
}

/// An app of the configuration.
pub fn app(package: &str, permissions: &str, webhook: &str) -> String {
    let hash = sha256(API_KEY);
    format!(
        "[[app]]\npackage = \"{package}\"\napi_key_sha256 = \"{hash}\"\npermissions = [{permissions}]\nwebhook_url = \"{webhook}\"\n"
    )
}

impl CloudServer {
    /// Starts it with one device of [`USER`] and the TOML in `more`.
    pub fn start(more: &str) -> Self {
        Self::build(more, "info,lenscast=debug", &Publishers::Here)
    }

    /// The same, with publishers told to go to this port of the loopback address instead of its own.
    pub fn start_behind(rtmp_seen: Option<u16>, more: &str) -> Self {
        Self::build(more, "info,lenscast=debug", &rtmp_seen.map_or(Publishers::Here, Publishers::By))
    }

    /// The same on another address of this machine.
    pub fn start_at(host: IpAddr, more: &str) -> Self {
        Self::build(more, "info,lenscast=debug", &Publishers::At(host))
    }

    /// The same, logging everything there is to be logged.
    pub fn start_talkative(more: &str) -> Self {
        Self::build(more, "trace", &Publishers::Here)
    }

    /// The same with HTTPS, and RTMPS beside RTMP.
    pub fn start_with_tls(more: &str, certificate: Certificate) -> Self {
        Self::build(more, "info,lenscast=debug", &Publishers::Secure(Arc::new(certificate)))
    }

    /// Between finding free ports and listening on them somebody else may take one: then with others.
    fn build(more: &str, log_filter: &'static str, publishers: &Publishers) -> Self {
        for _ in 0..4 {
            let mut this = Self::try_build(more, log_filter, publishers);
            match this.await_port() {
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("the cloud ended at once:\n{log}"),
                Ok(()) => return this,
            }
        }
        panic!("no free ports, four times over");
    }

    fn try_build(more: &str, log_filter: &'static str, publishers: &Publishers) -> Self {
        let dir = TempDir::with_prefix("lenscast-cloud-").expect("a folder for the cloud");
        let (http, rtmp, webrtc, rtmps) = (free_port(), free_port(), free_port(), free_port());
        let (mut https_lines, mut certificate) = (String::new(), None);
        let mut host = IpAddr::from([127, 0, 0, 1]);
        let rtmp_lines = match publishers {
            Publishers::Here => String::new(),
            Publishers::At(address) => {
                host = *address;
                format!("public_url = \"rtmp://{host}:{rtmp}/live\"\n")
            }
            Publishers::By(port) => format!("public_url = \"rtmp://127.0.0.1:{port}/live\"\n"),
            Publishers::Secure(given) => {
                let (chain, key) = (given.chain(), given.key());
                https_lines = format!("cert = \"{}\"\nkey = \"{}\"\n", chain.display(), key.display());
                certificate = Some(given.clone());
                format!(
                    "tls_listen = \"127.0.0.1:{rtmps}\"\npublic_url = \"rtmps://localhost:{rtmps}/live\"\n{https_lines}"
                )
            }
        };
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (store, socket) = (path("cloud.sqlite"), path("cloud.sock"));
        let config = format!(
            "[http]\nlisten = \"{host}:{http}\"\n{https_lines}[rtmp]\nlisten = \"{host}:{rtmp}\"\n{rtmp_lines}\
             [webrtc]\nlisten = \"127.0.0.1:{webrtc}\"\nviewers = 2000\n\
             [store]\npath = \"{store}\"\n[control]\nsocket = \"{socket}\"\n\
             [[device]]\nname = \"glasses\"\nuser = \"{USER}\"\ntoken_sha256 = \"{}\"\n{more}",
            sha256(TOKEN)
        );
        fs::write(dir.path().join("cloud.toml"), config).expect("the configuration");
        let process = Self::launch(&dir, 1, log_filter);
        Self { dir, process, host, http, rtmp, lives: 1, log_filter, certificate }
    }

    fn launch(dir: &TempDir, life: u32, log_filter: &str) -> Process {
        let log = File::create(dir.path().join(format!("log.{life}"))).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lenscast-cloud"));
        command.arg("--config").arg(dir.path().join("cloud.toml"));
        command.env("RUST_LOG", log_filter).env("NO_COLOR", "1").stdout(Stdio::null()).stderr(log);
        Process::spawn(&mut command)
    }

    /// Until it answers; its log if it ended instead.
    fn await_port(&mut self) -> Result<(), String> {
        poll_until("the cloud's health", Duration::from_secs(15), || {
            if self.process.exited().is_some() {
                return Some(Err(self.log()));
            }
            // The port is there before anybody answers on it.
            if let Some(certificate) = &self.certificate {
                let mut curl = Command::new("curl");
                curl.args(["-sf", "-m", "1", "--cacert"]).arg(certificate.authority()).arg(self.url() + "/healthz");
                return curl.output().expect("curl runs").status.success().then_some(Ok(()));
            }
            let mut stream = TcpStream::connect((self.host, self.http)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.starts_with("HTTP/1.0 200").then_some(Ok(()))
        })
    }

    /// Ends it by `signal` and starts it again with the same store.
    pub fn restart(&mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.wait(Duration::from_secs(9));
        self.lives += 1;
        self.process = Self::launch(&self.dir, self.lives, self.log_filter);
        self.await_port().expect("its ports are its own");
    }

    /// What a daemon needs in its configuration to be linked.
    pub fn link(&self) -> String {
        let token = self.dir.path().join("token");
        fs::write(&token, TOKEN).expect("the token file");
        let (scheme, trust) = match &self.certificate {
            None => ("ws", String::new()),
            Some(certificate) => ("wss", format!("[tls]\nca_file = \"{}\"\n", certificate.authority().display())),
        };
        let token = token.display();
        format!(
            "[cloud]\nurl = \"{scheme}://{}:{}/glasses-ws\"\ntoken_file = \"{token}\"\n{trust}",
            self.host, self.http
        )
    }

    /// Its HTTP base.
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.http)
    }

    /// The port of [`Self::url`].
    pub fn http(&self) -> u16 {
        self.http
    }

    /// Its database.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("cloud.sqlite")
    }

    /// Where publishers with a key go.
    pub fn rtmp(&self) -> u16 {
        self.rtmp
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("cloud.sock")
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `lenscastctl cloud …`; panics with what it said if it fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_lenscastctl"))
            .arg("cloud")
            .args(arguments)
            .env("LENSCAST_CLOUD_SOCKET", self.socket())
            .output()
            .expect("lenscastctl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "lenscastctl cloud {arguments:?}: {}{out}{err}\n{}",
            output.status,
            self.log()
        );
        out
    }

    /// The streams it knows.
    pub fn streams(&self) -> Value {
        serde_json::from_str(&self.ctl(&["streams", "--json"])).expect("JSON")
    }

    /// All it has logged, over its restarts.
    pub fn log(&self) -> String {
        let read = |life| fs::read(self.dir.path().join(format!("log.{life}"))).unwrap_or_default();
        (1..=self.lives).map(|life| String::from_utf8_lossy(&read(life)).into_owned()).collect()
    }

    /// Ends it as systemd does, and expects that to be clean.
    pub fn finish(mut self) {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(Duration::from_secs(9));
        assert!(status.success(), "the cloud ended with {status}");
        let log = self.log();
        assert_eq!(log.lines().find(|line| line.contains("panicked at")), None, "a thread of the cloud panicked");
        for secret in [API_KEY, TOKEN] {
            assert!(!log.contains(secret), "{secret} is in the log");
        }
    }
}

impl Drop for CloudServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            // A test that polls fills it with its own questions.
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("cloud::control")).collect();
            eprintln!("---- the cloud's last words\n{}", lines[lines.len().saturating_sub(80)..].join("\n"));
        }
    }
}
