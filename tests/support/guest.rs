//! A guest of the camera rig (`hw-fixtures/`): a Linux kernel with cameras and encoders of its own, that programs built
//! here run in as they are.
//!
//! Boots in a second or two once the rig's kernel is built. Everything in the guest dies with the [`Guest`]. It has one
//! CPU, and counts as a heavy test.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::heavy::{self, Turn};
use super::process::Process;

/// How long the agent may take for what is done at once.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a shell command may take.
const COMMAND: Duration = Duration::from_mins(1);
/// The guest ends after this, whatever happens.
const LIMIT: Duration = Duration::from_mins(4);

/// Builds the rig's kernel if it is not there, which takes minutes. What failed once is not tried again.
pub fn prepare() {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hw-fixtures/build-kernel.sh");
        let output = Command::new(script).stdin(Stdio::null()).output().expect("bash is there");
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    if let Err(reason) = built {
        panic!("the rig cannot be had: {reason}");
    }
}

/// The guest.
pub struct Guest {
    agent: SocketAddr,
    host: IpAddr,
    shared: TempDir,
    lifeline: ChildStdin,
    told: BufReader<ChildStdout>,
    runner: Process,
    _turn: Turn,
}

impl Guest {
    /// Boots one, without any hardware so far.
    pub fn boot() -> Self {
        Self::boot_for(LIMIT)
    }

    /// Boots one that may live for `limit`.
    pub fn boot_for(limit: Duration) -> Self {
        prepare();
        Self::boot_in(heavy::turn(), limit)
    }

    /// Boots one that has the machine to itself, for what is measured rather than only seen to work.
    pub fn boot_alone() -> Self {
        prepare();
        Self::boot_in(heavy::alone(), LIMIT)
    }

    fn boot_in(turn: Turn, limit: Duration) -> Self {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hw-fixtures/run-guest.py"));
        command.args(["--limit", &limit.as_secs().to_string()]);
        Self::launch(command, turn).0
    }

    /// Has a runner of `hw-fixtures/` boot a machine and keep it; gives what it says of it too.
    pub(super) fn launch(mut runner: Command, turn: Turn) -> (Self, Value) {
        let shared = TempDir::with_prefix("guest-").expect("a folder to share with the guest");
        runner.arg("--serve").arg("--shared").arg(shared.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        runner.stderr(fs::File::create(shared.path().join("runner.log")).expect("a log file"));
        let mut runner = Process::spawn(&mut runner);
        let (lifeline, told) = runner.take_pipes();
        let nowhere = (IpAddr::from([0, 0, 0, 0]), 0);
        let (agent, told) = (nowhere.into(), BufReader::new(told));
        let mut this = Self { agent, host: nowhere.0, shared, lifeline, told, runner, _turn: turn };
        let place = this.hear();
        this.settle(&place);
        (this, place)
    }

    /// The next line of its runner.
    pub(super) fn hear(&mut self) -> Value {
        let mut line = String::new();
        // It has deadlines of its own, and its output ends when it fails.
        self.told.read_line(&mut line).expect("the runner's words are UTF-8");
        serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = |name: &str| fs::read_to_string(self.shared.path().join(name)).unwrap_or_default();
            // The runner repeats the end of the console, unless it was ended itself.
            let complaints = match log("runner.log") {
                silence if silence.is_empty() => format!("its runner ended without a word; {}", log("console.log")),
                complaints => complaints,
            };
            panic!("the rig cannot be had: {complaints}")
        })
    }

    /// Tells its runner something.
    pub(super) fn tell(&mut self, word: &str) {
        writeln!(self.lifeline, "{word}").expect("the runner listens");
    }

    /// Takes note of where it is now.
    pub(super) fn settle(&mut self, place: &Value) {
        let ip =
            |name: &str| place[name].as_str().and_then(|text| text.parse().ok()).expect("the runner gives addresses");
        let port = place["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("the runner gives a port");
        (self.agent, self.host) = (SocketAddr::new(ip("guest"), port), ip("host"));
    }

    /// The host's address as the guest sees it, for servers.
    pub fn host(&self) -> IpAddr {
        self.host
    }

    /// The process here in which, and in whose descendants, all of the guest runs.
    pub fn runner(&self) -> u32 {
        self.runner.pid()
    }

    /// The folder that is `/host` in the guest.
    pub fn shared(&self) -> &Path {
        self.shared.path()
    }

    /// Adds hardware, as `hw-fixtures/guest/bin/hardware` says; gives its device nodes.
    pub fn hardware(&self, line: &str) -> Vec<String> {
        self.shell(&format!("hardware {line}")).lines().map(str::to_owned).collect()
    }

    /// Plugs in a USB webcam with these options of `uvcsim`.
    pub fn webcam(&self, serial: &str, options: &str) -> Webcam<'_> {
        let nodes = self.hardware(&format!("webcam --serial {serial} {options}"));
        Webcam { guest: self, serial: serial.to_owned(), node: nodes.first().cloned() }
    }

    /// Sets a parameter of the encoder that is there: a fault.
    pub fn set_encoder(&self, parameter: &str, value: &str) {
        self.write(&format!("/sys/module/vh264enc/parameters/{parameter}"), value);
    }

    /// Runs a line of shell, which must succeed within a minute, and gives its output.
    pub fn shell(&self, line: &str) -> String {
        let program = self.start(&["bash", "-euo", "pipefail", "-c", line], &[]);
        let status = program.wait(COMMAND);
        assert_eq!(status, 0, "{line} failed in the guest: {}", program.output());
        program.output()
    }

    /// Writes a file, for example of sysfs.
    pub fn write(&self, path: &str, text: &str) {
        let answer = self.ask(&json!({"write": path, "text": text}));
        assert!(answer.as_ref().is_ok_and(|a| a["error"].is_null()), "cannot write {path} in the guest: {answer:?}");
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> String {
        let answer = self.ask(&json!({"read": path}));
        let text = answer.as_ref().ok().and_then(|answer| answer["text"].as_str());
        text.unwrap_or_else(|| panic!("cannot read {path} in the guest: {answer:?}")).to_owned()
    }

    /// Starts a program.
    pub fn start(&self, program: &[&str], environment: &[(&str, &str)]) -> Program {
        let environment: serde_json::Map<_, _> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        Program::start(self, &json!({"run": program, "environment": environment}))
    }

    /// Makes a Unix socket of the guest's, which a program there is about to open, one of the host's. It goes on for as
    /// long as the test program runs.
    pub fn forward(&self, socket: &str, within: Duration) -> PathBuf {
        let answer = self.connect(&json!({"connect": socket, "within": within.as_secs_f64()}), within + ANSWER);
        let (_, answer) = answer.unwrap_or_else(|e| panic!("the agent does not answer: {e}"));
        assert!(answer["error"].is_null(), "{socket} did not open in the guest within {within:?}: {answer}");
        let path = self.shared.path().join(socket.trim_start_matches('/').replace('/', "-"));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket can be made in a folder of the test's");
        let (agent, request) = (self.agent, json!({"connect": socket}));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if let Ok((far, answer)) = connect(agent, &request, ANSWER)
                    && answer["error"].is_null()
                {
                    splice(near, far);
                }
            }
        });
        path
    }

    fn ask(&self, request: &Value) -> io::Result<Value> {
        self.connect(request, ANSWER).map(|(_, answer)| answer)
    }

    fn connect(&self, request: &Value, within: Duration) -> io::Result<(TcpStream, Value)> {
        connect(self.agent, request, within)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let line = "dmesg | tail -n 15; for log in /run/webcam-*.log; do echo; echo $log:; tail -n 15 $log; done; \
                    ls -l /dev/video* /dev/media*; journalctl --no-pager -u lenscastd -n 80 2> /dev/null";
        let mut said = String::new();
        if let Ok((stream, _)) = self.connect(&json!({"run": ["sh", "-c", line]}), ANSWER) {
            let answers = BufReader::new(stream).lines().map_while(Result::ok);
            for answer in answers.filter_map(|answer| serde_json::from_str::<Value>(&answer).ok()) {
                said.push_str(answer["output"].as_str().unwrap_or_default());
            }
        } else {
            let _ = write!(said, "{}", fs::read_to_string(self.shared.path().join("console.log")).unwrap_or_default());
        }
        eprintln!("---- the guest's last words\n{said}");
    }
}

/// Sends the agent a request, and gives its first answer and the connection.
fn connect(agent: SocketAddr, request: &Value, within: Duration) -> io::Result<(TcpStream, Value)> {
    let mut stream = TcpStream::connect_timeout(&agent, ANSWER)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(within))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    // Byte by byte: what follows the line is not ours.
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    stream.set_read_timeout(None)?;
    Ok((stream, serde_json::from_slice(&line)?))
}

/// Copies both ways until both have ended.
fn splice(near: UnixStream, far: TcpStream) {
    let (near_out, far_out) = (near.try_clone(), far.try_clone());
    let (Ok(mut near_out), Ok(mut far_out)) = (near_out, far_out) else { return };
    let (mut near_in, mut far_in) = (near, far);
    std::thread::spawn(move || {
        let _ = io::copy(&mut near_in, &mut far_out);
        let _ = far_out.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = io::copy(&mut far_in, &mut near_out);
        let _ = near_out.shutdown(Shutdown::Both);
    });
}

/// A USB webcam in the guest.
pub struct Webcam<'a> {
    guest: &'a Guest,
    serial: String,
    node: Option<String>,
}

impl Webcam<'_> {
    /// Its node when it was plugged in first.
    pub fn node(&self) -> &str {
        self.node.as_deref().expect("it was plugged in")
    }

    /// Pulls the plug.
    pub fn unplug(&self) {
        self.tell("unplug");
    }

    /// Plugs it in again.
    pub fn plug(&self) {
        self.tell("plug");
    }

    /// It stays there, but no frames come.
    pub fn stall(&self) {
        self.tell("stall");
    }

    /// Frames come again.
    pub fn resume(&self) {
        self.tell("resume");
    }

    /// One frame is white; its log has the time.
    pub fn flash(&self) {
        self.tell("flash");
    }

    /// What happened to it, a line each.
    pub fn log(&self) -> String {
        self.guest.read(&format!("/run/webcam-{}.log", self.serial))
    }

    fn tell(&self, word: &str) {
        self.guest.write(&format!("/run/webcam-{}", self.serial), &format!("{word}\n"));
    }
}

#[derive(Default)]
struct Told {
    output: String,
    exit: Option<i32>,
}

/// A program that runs in the guest. Killed, with all it started, when dropped.
pub struct Program {
    connection: TcpStream,
    pid: u32,
    told: Arc<(Mutex<Told>, Condvar)>,
}

impl Program {
    fn start(guest: &Guest, request: &Value) -> Self {
        let (connection, answer) =
            guest.connect(request, ANSWER).unwrap_or_else(|e| panic!("the agent does not answer: {e}"));
        let pid = answer["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.unwrap_or_else(|| panic!("cannot start {}: {answer}", request["run"]));
        let told = Arc::new((Mutex::new(Told::default()), Condvar::new()));
        let reader = BufReader::new(connection.try_clone().expect("a descriptor to spare"));
        let shared = Arc::clone(&told);
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str::<Value>(&line) else { break };
                let mut told = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                told.output.push_str(answer["output"].as_str().unwrap_or_default());
                told.exit = told.exit.or_else(|| answer["exit"].as_i64().map(|status| status as i32));
                shared.1.notify_all();
            }
        });
        Self { connection, pid, told }
    }

    /// Its process id in the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it wrote so far, to standard output and error.
    pub fn output(&self) -> String {
        self.told.0.lock().unwrap_or_else(PoisonError::into_inner).output.clone()
    }

    /// Its exit status if it has ended; below zero: by that signal.
    pub fn exited(&self) -> Option<i32> {
        self.told.0.lock().unwrap_or_else(PoisonError::into_inner).exit
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let line = format!("{}\n", json!({"signal": signal as i32}));
        (&self.connection).write_all(line.as_bytes()).expect("the agent takes a signal");
    }

    /// Waits for its end, and gives its exit status. Panics once `within` is over.
    pub fn wait(&self, within: Duration) -> i32 {
        let deadline = Instant::now() + within;
        let mut told = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(status) = told.exit {
                return status;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "a program in the guest did not end within {within:?}; it said: {}", told.output);
            told = self.told.1.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.connection.shutdown(Shutdown::Both);
    }
}
