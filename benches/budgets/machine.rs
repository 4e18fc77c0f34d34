//! The machine that the figures were measured on.

use std::fs;

use crate::support::process::run;

/// The machine and the programs involved, as a Markdown list.
pub fn describe() -> String {
    let cpu_info = read("/proc/cpuinfo");
    let model = field(&cpu_info, "model name", ':').unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let release = read("/etc/os-release");
    let system = field(&release, "PRETTY_NAME", '=').map_or("unknown system", |name| name.trim_matches('"'));
    let kernel = read("/proc/sys/kernel/osrelease");
    let nginx = run("nginx", &["-v"]);
    [
        format!("CPU: {model}, {cores} cores"),
        format!("system: {system}, Linux {}", kernel.trim()),
        format!("GStreamer: {}", lenscast::media::version()),
        format!("server: {}, on the same machine", first_line(&nginx.stderr).trim_start_matches("nginx version: ")),
        format!("ffmpeg: {}", first_line(&run("ffmpeg", &["-version"]).stdout)),
        format!("date: {}", date()),
        format!("lenscast: {}, commit {}", env!("CARGO_PKG_VERSION"), commit()),
    ]
    .map(|line| format!("- {line}\n"))
    .concat()
}

/// Today's date.
pub fn date() -> String {
    first_line(&run("date", &["--utc", "+%F %R UTC"]).stdout)
}

/// The load average over the last minute: how many tasks ran or wanted to.
pub fn load() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// The last commit that changed the daemon.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        let output = command.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| first_line(&output.stdout))
    };
    let daemon = ["--", "src", "pipelines", "Cargo.lock"];
    let changed = git(&[&["status", "--porcelain", "--untracked-files=no"], &daemon[..]].concat());
    let changed = if changed.is_some_and(|lines| !lines.is_empty()) { ", with changes" } else { "" };
    git(&[&["log", "-1", "--format=%h"], &daemon[..]].concat()).unwrap_or_else(|| "unknown".to_owned()) + changed
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn first_line(output: &[u8]) -> String {
    String::from_utf8_lossy(output).lines().next().unwrap_or_default().to_owned()
}

fn field<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    text.lines().find(|line| line.starts_with(name))?.split_once(separator).map(|(_, value)| value.trim())
}
