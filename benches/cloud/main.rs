//! `cargo bench --features cloud --bench cloud`: the cloud's time and size budgets, measured on the release build.
//!
//! Nothing here passes or fails: a missed budget is printed as missed. Publisher, server and viewers are processes of
//! one machine; each figure has a note about what that means for it. A whole run writes `benches/RESULTS-cloud.md`; a
//! run of named parts replaces their sections there.

#[path = "../budgets/figures.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part")]
mod figures;
#[path = "../budgets/machine.rs"]
mod machine;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../budgets/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part")]
mod usage;

mod clock_picture;
mod glasses;
mod http_client;
mod latency;
mod load_hls;
mod load_whep;
mod start;
mod viewers;

use std::fs;
use std::process::Command;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures lenscast-cloud and writes benches/RESULTS-cloud.md.
#[derive(Parser)]
struct Arguments {
    /// One short run of each, to see that all of it works; writes no file
    #[arg(long)]
    quick: bool,
    /// Measure these parts alone
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// The load program: kind, URL, viewers, seconds
    #[arg(long, hide = true, num_args = 4)]
    load: Option<Vec<String>>,
    /// The publisher: where to
    #[arg(long, hide = true)]
    film: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Start,
    Latency,
    Viewers,
}

impl Part {
    fn measure(self, extent: &Extent) -> String {
        match self {
            Self::Start => start::section(extent).text(),
            Self::Latency => latency::section(extent).text(),
            Self::Viewers => viewers::section(extent),
        }
    }
}

/// How much is measured.
struct Extent {
    /// How many daemons are started one after the other, and how many streams each has.
    lives: usize,
    streams: usize,
    /// How long pictures' ages are recorded, and how often.
    watching: Duration,
    rounds: usize,
    /// How long a load lasts.
    load: Duration,
    quick: bool,
}

impl Extent {
    fn new(quick: bool) -> Self {
        let seconds = Duration::from_secs;
        if quick {
            return Self { lives: 1, streams: 2, watching: seconds(3), rounds: 1, load: seconds(3), quick };
        }
        Self { lives: 4, streams: 4, watching: seconds(15), rounds: 3, load: seconds(8), quick }
    }
}

fn progress(text: &str) {
    println!("{text}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS-cloud.md");

fn main() {
    let arguments = Arguments::parse();
    if let Some(load) = &arguments.load {
        return viewers::run_load(load);
    }
    if let Some(url) = &arguments.film {
        return clock_picture::run(url);
    }
    if !arguments.bench {
        println!("measures for a quarter of an hour; run it by cargo bench");
        return;
    }
    build_release();
    let extent = Extent::new(arguments.quick);
    let parts = if arguments.parts.is_empty() { Part::value_variants() } else { &arguments.parts };
    for part in parts {
        let before = machine::load();
        let text = part.measure(&extent);
        let load = format!("Load average (1 min) before and after: {before:.1}, {:.1}.\n", machine::load());
        println!("\n{text}\n{load}");
        if !extent.quick {
            write(*part, &format!("{text}\n{load}"));
        }
    }
}

/// Puts the release programs in the place of the benchmark's own build of them: cargo ignores the profile's `panic` for
/// benchmarks.
fn build_release() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--release", "--locked", "--features", "cloud"]);
    let built = command.arg("--bins").status().expect("cargo can be started");
    assert!(built.success(), "the programs do not build");
}

/// Writes a part's section into the results, in place of the old one.
fn write(part: Part, section: &str) {
    let marker = |part: &Part| format!("<!-- {part:?} -->\n");
    let old = fs::read_to_string(RESULTS).unwrap_or_default();
    let mut text = format!(
        "# Measurements of lenscast-cloud\n\nWritten by `make bench-cloud`; do not edit. The budgets are those of the \
         design. Publisher, server, viewers and browser share this machine.\n\n{}",
        machine::describe()
    );
    for each in Part::value_variants() {
        let kept = old.split_once(&marker(each)).map(|(_, rest)| rest.split("\n<!-- ").next().unwrap_or(rest));
        let body = if *each == part { Some(section) } else { kept };
        if let Some(body) = body {
            text.extend(["\n", &marker(each), body.trim_end(), "\n"]);
        }
    }
    fs::write(RESULTS, text).expect("benches/RESULTS-cloud.md can be written");
    println!("written to {RESULTS}");
}
