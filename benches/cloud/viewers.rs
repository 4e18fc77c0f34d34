//! How many viewers a server can serve, and what fails first. The server runs on one core, the load program and the
//! publisher on the other.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::glasses::{Glasses, active};
use crate::support::cloud_server::CloudServer;
use crate::support::process::run;
use crate::support::sdk_app::free_port;
use crate::support::{Process, poll_until};
use crate::usage::Usage;
use crate::{Extent, http_client, load_hls, load_whep, progress};

const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";

/// The load program: `--load KIND URL VIEWERS SECONDS`. Prints `ready` when the load is on, and its results at the end.
pub fn run_load(arguments: &[String]) {
    let [kind, url, count, seconds] = arguments else { unreachable!("four, says clap") };
    let (count, seconds) = (count.parse().expect("a number"), seconds.parse().expect("a number"));
    let time = Duration::from_secs(seconds);
    let ready = || println!("ready");
    let tally = if kind == "whep" {
        load_whep::run(url, count, time, ready)
    } else {
        load_hls::run(kind, url, count, time, ready)
    };
    println!("{}", tally.json());
}

struct Step {
    viewers: usize,
    server: Usage,
    load: Usage,
    seen: Value,
    seconds: f64,
}

impl Step {
    fn count(&self, key: &str) -> u64 {
        self.seen[key].as_u64().unwrap_or(u64::MAX)
    }

    /// Mbit/s of media per viewer.
    fn rate(&self) -> f64 {
        self.count("bytes") as f64 * 8e-6 / self.seconds / self.viewers as f64
    }

    fn line(&self, what: &str) -> String {
        let number = |key: &str| self.seen[key].as_f64().unwrap_or(f64::NAN);
        format!(
            "| {what} | {} ({} left out) | {:.2} | {:.0} | {:.0} | {:.0} | {} of {} | {} | {:.0} | {:.0} | {:.0} |\n",
            self.viewers,
            self.count("left_out"),
            self.rate(),
            self.server.cpu,
            self.server.rss,
            self.load.cpu,
            self.count("late"),
            self.count("items"),
            self.count("failures"),
            number("p50"),
            number("p95"),
            number("max"),
        )
    }
}

fn pin(pid: u32, core: &str) {
    run("taskset", &["-a", "-c", "-p", core, &pid.to_string()]);
}

/// Puts a load on a server and measures both.
fn step(kind: &str, url: &str, viewers: usize, server: u32, extent: &Extent) -> Step {
    let program = std::env::current_exe().expect("Linux knows this program's file");
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE]).arg(program).args(["--load", kind, url, &viewers.to_string()]);
    command.arg((extent.load.as_secs() + 1).to_string());
    let mut load = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (_stdin, stdout) = load.take_pipes();
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"), "the load program says when it is");
    let usage = Usage::over(extent.load, &[server, load.pid()]);
    let seen = lines.next().expect("the load program says what it saw");
    let seen = serde_json::from_str(&seen).expect("JSON");
    load.wait(Duration::from_secs(10));
    let step = Step { viewers, server: usage[0], load: usage[1], seen, seconds: extent.load.as_secs_f64() + 1.0 };
    progress(step.line(kind).trim_end());
    step
}

/// A file of 1 Mbit/s, encoded as by glasses.
fn material(folder: &Path) -> String {
    let file = folder.join("media.mp4").display().to_string();
    let picture = "testsrc2=size=1280x720:rate=30:duration=20,noise=alls=12:allf=t";
    let sources =
        ["-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", "sine=sample_rate=48000:duration=20"];
    let video = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-profile:v", "baseline"];
    let rate = ["-pix_fmt", "yuv420p", "-g", "30", "-b:v", "936k", "-maxrate", "936k", "-bufsize", "468k"];
    let audio = ["-c:a", "aac", "-b:a", "64k", "-t", "20"];
    run("ffmpeg", &[&sources[..], &video, &rate, &audio, &[&file]].concat());
    file
}

fn publish(file: &str, url: &str) -> Process {
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", file]);
    command.args(["-c", "copy", "-f", "flv", url]);
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

/// Copies what the playlists list at present into a folder.
fn copy(index: &str, folder: &Path) {
    for playlist in ["video.m3u8", "audio.m3u8"] {
        let text = http_client::text(&http_client::beside(index, playlist));
        for name in text.lines().filter(|line| http_client::is_segment(line)) {
            let segment = http_client::get(&http_client::beside(index, name)).expect("it is listed");
            fs::write(folder.join(name), segment).expect("a file");
        }
        fs::write(folder.join(playlist), text).expect("a file");
    }
}

/// Starts nginx with one worker; returns its URL too.
fn nginx(folder: &Path) -> (Process, String) {
    let port = free_port();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log crit;\n\
         events {{ worker_connections 12000; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000;\n\
           open_file_cache max=1000 inactive=60s;\n\
           client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n\
           server {{ listen 127.0.0.1:{port}; root {}; }} }}\n",
        folder.display()
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config).expect("the configuration");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file).arg("-e").arg("error.log");
    let process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    let url = format!("http://127.0.0.1:{port}/index.m3u8");
    let probe = http_client::beside(&url, "video.m3u8");
    poll_until("nginx to answer", Duration::from_secs(10), || http_client::get(&probe).ok());
    (process, url)
}

/// Doubles the load until something fails, then searches between.
fn search(from: usize, tries: usize, mut holds: impl FnMut(usize) -> bool) -> usize {
    let (mut good, mut bad, mut next) = (0, None, from);
    for _ in 0..tries {
        if holds(next) {
            good = next;
        } else {
            bad = Some(next);
        }
        next = bad.map_or(good * 2, |bad: usize| usize::midpoint(good, bad));
        if next - good < 25 {
            break;
        }
    }
    good
}

/// Measures the viewers.
pub fn section(extent: &Extent) -> String {
    let folder = TempDir::with_prefix_in("lenscast-bench-", "/dev/shm").expect("a folder in memory");
    let file = material(folder.path());
    let mut cloud = CloudServer::start("");
    let server = cloud.process().pid();
    let glasses = Glasses::link(&cloud);
    let publisher = publish(&file, &glasses.start(&cloud));
    let stream = active(&cloud);
    pin(server, SERVER_CORE);
    let url = |key: &str| stream[key].as_str().expect("an active stream has URLs").to_owned();
    let (hls, whep) = (url("hls_url"), url("webrtc_url"));
    let mut table = String::new();
    let counts = |all: &'static [usize]| if extent.quick { &all[..1] } else { all };
    for &viewers in counts(&[200, 400, 600, 800, 1000, 1500]) {
        let step = step("whep", &whep, viewers, server, extent);
        table += &step.line("WHEP");
        if step.count("left_out") > 0 || (step.count("late") + step.count("failures")) * 100 > step.count("items") {
            break;
        }
    }
    let plain = counts(&[2000, 4000, 6000, 8000]);
    for &viewers in plain {
        let step = step("plain", &hls, viewers, server, extent);
        table += &step.line("HLS");
        if step.rate() < 0.8 {
            break;
        }
    }
    let tries = if extent.quick { 1 } else { 7 };
    let most = search(200, tries, |viewers| {
        // A single failure may have been caused by another program.
        (0..2).any(|_| {
            let step = step("ll", &hls, viewers, server, extent);
            table += &step.line("LL-HLS");
            step.count("late") + step.count("failures") == 0
        })
    });
    copy(&hls, folder.path());
    drop(publisher);
    let (nginx, url) = nginx(folder.path());
    pin(nginx.pid(), SERVER_CORE);
    for &viewers in plain {
        let step = step("files", &url, viewers, nginx.pid(), extent);
        table += &step.line("HLS by nginx");
        if step.rate() < 0.8 {
            break;
        }
    }
    cloud.finish();
    let mut text = format!(
        "## Viewers of one stream\n\n\
         1280x720 at 30 fps with sound, 1 Mbit/s in all, published by ffmpeg from a file. The server has core {SERVER_CORE}, the \
         load program (one thread) and ffmpeg core {LOAD_CORE}; {} s each. WHEP: items are packets of video, late those that never \
         came, left out are viewers without a picture 20 s after joining, failures pictures more than 250 ms later than the viewer's fastest, delays against that one. HLS: a viewer reads \
         both playlists every 2 s and all new segments; late are segments that took longer than they last (1 s). LL-HLS: \
         blocking reload and every part of both tracks; late are parts that a player PART-HOLD-BACK behind would have missed, \
         delays are from a part's end by the clock, and a number of viewers counts as too many when two runs had late parts. nginx serves the same segments as files in memory; the load goes round \
         in them.\n\n\
         | what | viewers | Mbit/s each | server CPU % | server RSS MiB | load CPU % | late | failures | p50 ms | p95 ms | max ms |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
        extent.load.as_secs()
    );
    text += &table;
    let _ = write!(text, "\nMost LL-HLS viewers without a late part, of those tried: {most}.\n");
    text
}
