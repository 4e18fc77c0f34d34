//! A maker's acceptance run (`lenscastctl doctor --full`), from the command line to the report.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Daemon, Process, heavy};

/// Encoders have their trials, and a machine that is busy.
const LIVE: Duration = Duration::from_secs(30);

/// A daemon, and a folder for the report and for encoder profiles.
struct Bench {
    daemon: Daemon,
    folder: TempDir,
}

impl Bench {
    /// Without OpenH264, which does not keep a bitrate that is low for a test picture's noise.
    fn new() -> Self {
        let folder = TempDir::with_prefix("acceptance-").expect("a folder");
        let bench = Self { daemon: Daemon::start(""), folder };
        fs::create_dir(bench.profiles()).expect("a folder for profiles");
        bench.profile("openh264", &[("elements", "elements = [\"none\"]")]);
        bench
    }

    fn profiles(&self) -> PathBuf {
        self.folder.path().join("profiles")
    }

    /// One that comes with the program, with lines changed.
    fn profile(&self, name: &str, changes: &[(&str, &str)]) {
        let path = format!("{}/pipelines/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).expect("a profile");
        let new_line = |line: &str| {
            let change = changes.iter().find(|(key, _)| line.starts_with(&format!("{key} = ")));
            change.map_or(line, |(_, new)| new).to_owned()
        };
        let lines: Vec<_> = text.lines().map(new_line).collect();
        fs::write(self.profiles().join(format!("{name}.toml")), lines.join("\n")).expect("the folder takes files");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("report.json")
    }

    fn report(&self) -> Value {
        let text = fs::read_to_string(self.file()).expect("a report");
        serde_json::from_str(&text).expect("the report is JSON")
    }

    fn command(&self, minutes: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lenscastctl"));
        command.args(["doctor", "--minutes", minutes, "--width", "320", "--height", "240", "--fps", "15"]);
        command.args(["--bitrate", "400k", "--profiles"]).arg(self.profiles()).arg("--full").arg(self.file());
        command.env("LENSCAST_SOCKET", self.daemon.socket()).stdin(Stdio::null());
        command
    }

    /// Runs it to its end: exit status, and what it printed.
    fn run(&self) -> (Option<i32>, String) {
        let output = self.command("0.1").output().expect("lenscastctl runs");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "no progress where no terminal is");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    }

    fn finish(self) {
        let state = self.daemon.control().status();
        assert_eq!((&state["stream"], &state["owner"]), (&Value::Null, &Value::Null), "the camera is free");
        self.daemon.finish();
    }
}

fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name}: {report}"))
}

/// A figure, which must have this unit.
fn figure(step: &Value, name: &str, unit: &str) -> f64 {
    let figure = &step["figures"][name];
    assert_eq!(figure["unit"], unit, "{step}");
    figure["value"].as_f64().unwrap_or_else(|| panic!("{name} is no number: {step}"))
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "part")).collect()
}

#[test]
fn a_board_on_which_everything_works_is_0_and_its_report_has_the_figures() {
    let _turn = heavy::turn();
    let bench = Bench::new();
    let (status, output) = bench.run();
    assert_eq!(status, Some(0), "{output}");
    let last = output.lines().last().expect("a sum");
    assert!(last.contains(" 0 failed, ") && last.contains("report.json"), "{output}");
    assert!(output.lines().any(|line| line == "passed   stream"), "{output}");

    let report = bench.report();
    assert_eq!((&report["version"], &report["complete"]), (&json!(1), &json!(true)));
    assert_eq!(report["board"]["lenscastd"], env!("CARGO_PKG_VERSION"));
    assert!(report["board"]["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()), "{report}");
    let findings = report["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|line| line["subject"] == "encoder" && line["level"] == "ok"), "{report}");

    assert!(figure(step(&report, "photo"), "width", "pixels") > 300.0);
    let stream = step(&report, "stream");
    assert!(figure(stream, "rate", "pictures/s") > 13.0, "{stream}");
    assert!((200e3..520e3).contains(&figure(stream, "bitrate", "bit/s")), "{stream}");
    assert!(figure(stream, "sound_bitrate", "bit/s") > 30e3, "{stream}");
    assert!(figure(stream, "cpu_mean", "% of a core") > 0.0, "{stream}");
    assert!(report["samples"].as_array().is_some_and(|samples| samples.len() >= 2), "{report}");
    assert!(figure(step(&report, "sound"), "level_highest", "dB") > -6.0);
    let x264 = step(&report, "encoder x264");
    assert_eq!(x264["figures"]["bitrate_low_asked"], json!({"value": 200_000.0, "unit": "bit/s"}));
    assert!(figure(x264, "bitrate_high", "bit/s") > 1.3 * figure(x264, "bitrate_low", "bit/s"), "{x264}");
    assert!(figure(x264, "key_frame_after", "pictures") < 8.0, "{x264}");
    for (name, why) in [("unplug", "test picture"), ("camera modes", "test picture"), ("encoder jetson", "no element")]
    {
        let step = step(&report, name);
        assert_eq!(step["outcome"], "skipped", "{step}");
        assert!(step["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{step}");
    }
    assert_eq!(leftovers(bench.folder.path()), Vec::<PathBuf>::new());
    bench.finish();
}

#[test]
fn an_encoder_that_does_not_work_is_4_and_the_report_says_why() {
    let _turn = heavy::turn();
    let bench = Bench::new();
    let unknown = "bitrate = { property = \"no-such-rate\", unit = \"kbit/s\" }";
    bench.profile("x264", &[("name", "name = \"mine\""), ("bitrate", unknown)]);
    let (status, output) = bench.run();
    assert_eq!(status, Some(4), "{output}");
    assert!(output.contains("FAILED   encoder mine: ") && output.contains("no-such-rate"), "{output}");
    let report = bench.report();
    let broken = step(&report, "encoder mine");
    assert_eq!((&broken["outcome"], &report["complete"]), (&json!("failed"), &json!(true)), "the run went on");
    assert!(broken["reason"].as_str().is_some_and(|reason| reason.contains("cannot set no-such-rate")), "{broken}");
    assert_eq!(step(&report, "encoder x264")["outcome"], "passed");
    bench.finish();
}

#[test]
fn an_interrupted_run_leaves_what_there_was_and_a_free_camera() {
    let bench = Bench::new();
    let mut watch = bench.daemon.watch();
    let mut process = Process::spawn(bench.command("10").stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (_, output) = process.take_pipes();
    watch.wait_state("streaming", LIVE);
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait(LIVE).code(), Some(130));
    let told: Vec<String> = BufReader::new(output).lines().map_while(Result::ok).collect();
    assert!(told.last().is_some_and(|line| line.starts_with("interrupted; ")), "{told:?}");
    let stopped = watch.wait_state("stopped", LIVE);
    assert_eq!(stopped.cause(), "requested");
    let report = bench.report();
    assert_eq!(report["complete"], false);
    assert_eq!(step(&report, "photo")["outcome"], "passed");
    let steps = report["steps"].as_array().expect("steps");
    assert!(steps.iter().all(|step| step["name"] != "stream"), "{report}");
    bench.finish();
}

#[test]
fn a_stream_of_somebody_elses_is_left_alone() {
    let bench = Bench::new();
    let nowhere = crate::support::control::small("rtmp://127.0.0.1:1/live/key", "org.example", "s-1");
    let mut watch = bench.daemon.watch();
    bench.daemon.control().granted(&nowhere);
    watch.wait_state("reconnecting", LIVE);
    let said = bench.command("0.1").output().expect("lenscastctl runs");
    let errors = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{errors}");
    assert!(errors.contains("s-1") && errors.contains("stop it first"), "{errors}");
    assert!(!bench.file().exists());
    assert_eq!(bench.daemon.control().status()["stream"]["stream_id"], "s-1");
    bench.daemon.control().granted(&json!({"cmd": "stop"}));
    bench.finish();
}
