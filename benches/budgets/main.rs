//! `cargo bench`: the daemon's time and size budgets, measured on the release build beside gst-launch-1.0 and ffmpeg.
//!
//! Nothing here passes or fails: a missed budget is printed as missed. Every figure is measured from outside: from the
//! server's recordings, the control socket and the kernel's accounts of a process, all times on `CLOCK_MONOTONIC`. The
//! results of a whole run go to `benches/RESULTS.md`.

#[path = "../../tests/support/mod.rs"]
mod support;

mod beginning;
mod camera;
mod cost;
mod faults;
mod figures;
mod flv;
mod idle;
mod machine;
mod passthrough;
mod photo;
mod publishers;
mod usage;

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use clap::{Parser, ValueEnum};

use figures::Section;

/// Measures lenscastd and writes benches/RESULTS.md.
#[derive(Parser)]
struct Arguments {
    /// Runs of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Make one short run of each, to see that everything works; writes no file
    #[arg(long)]
    quick: bool,
    /// Measure only these parts; writes no file without --update
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Replace these parts in benches/RESULTS.md
    #[arg(long, requires = "parts", conflicts_with = "quick")]
    update: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true, num_args = 2)]
    pass_through: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Encoding,
    Passthrough,
    Camera,
    Beginning,
    Outage,
    Crash,
    DeadServer,
    Photo,
    Flv,
    Idle,
}

impl Part {
    fn measure(self, extent: &Extent) -> Section {
        match self {
            Self::Encoding => cost::encoding(extent),
            Self::Passthrough => cost::passing_through(extent),
            Self::Camera => camera::section(extent),
            Self::Beginning => beginning::section(extent),
            Self::Outage => faults::outage(extent),
            Self::Crash => faults::crash(extent),
            Self::DeadServer => faults::dead_server(extent),
            Self::Photo => photo::section(extent),
            Self::Flv => flv::section(extent),
            Self::Idle => idle::section(extent),
        }
    }
}

/// The extent of the measurements.
struct Extent {
    runs: usize,
    /// Period over which CPU time is measured.
    window: Duration,
    kills: usize,
    photos: usize,
    /// Period over which the idle daemon's CPU time is measured.
    idle: Duration,
}

impl Extent {
    fn new(arguments: &Arguments) -> Self {
        let runs = usize::from(arguments.runs);
        if arguments.quick {
            let short = Duration::from_secs(3);
            return Self { runs: 1, window: short, kills: 2, photos: 3, idle: short };
        }
        let (window, idle) = (Duration::from_secs(20), Duration::from_mins(10));
        Self { runs, window, kills: runs * 4, photos: runs * 4, idle }
    }
}

fn progress(text: &str) {
    println!("{text}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(pair) = &arguments.pass_through {
        return passthrough::run(&pair[0], &pair[1]);
    }
    if !arguments.bench {
        println!("measures for three quarters of an hour; run it by cargo bench");
        return;
    }
    build_release();
    let daemon = daemon();
    let extent = Extent::new(&arguments);
    let whole = arguments.parts.is_empty() && !arguments.quick;
    let parts = if arguments.parts.is_empty() { Part::value_variants() } else { &arguments.parts };
    let mut loads = vec![machine::load()];
    let mut sections = Vec::new();
    for part in parts {
        let section = part.measure(&extent);
        assert_eq!(daemon, self::daemon(), "lenscastd was built anew while it was measured");
        println!("\n{}", section.text());
        loads.push(machine::load());
        sections.push(section);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md");
    let results = if arguments.update {
        let before = fs::read_to_string(path).expect("benches/RESULTS.md can be read");
        Some(sections.iter_mut().fold(before, |text, section| updated(&text, section)))
    } else {
        whole.then(|| results(&sections, &loads))
    };
    if let Some(results) = results {
        fs::write(path, results).expect("benches/RESULTS.md can be written");
        println!("written to {path}");
    }
    let missed = sections.iter().flat_map(|section| &section.rows).filter(|row| !row.keeps_budget()).count();
    println!("{missed} budgets missed");
}

/// `results` with this section in place of the one with its title, or at the end; the section says when it was
/// measured.
fn updated(results: &str, section: &mut Section) -> String {
    let (date, commit) = (machine::date(), machine::commit());
    section.method = format!("{} Measured later than the rest: {date}, commit {commit}.", section.method);
    let heading = format!("## {}\n", section.title);
    let Some((before, rest)) = results.split_once(&heading) else { return format!("{results}\n{}", section.text()) };
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    format!("{before}{}{after}", section.text())
}

/// Puts the release build of the daemon where the benchmarks' own build is: for benchmarks, cargo ignores the
/// profile's `panic`, and a daemon that unwinds is half a megabyte larger.
fn build_release() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--release", "--locked", "--bin", "lenscastd"]);
    let built = command.status().expect("cargo can be started");
    assert!(built.success(), "lenscastd does not build");
}

/// Identifies the daemon's build.
fn daemon() -> (u64, SystemTime) {
    let file = fs::metadata(env!("CARGO_BIN_EXE_lenscastd")).expect("the daemon is built");
    (file.len(), file.modified().expect("Linux knows when a file was written"))
}

fn results(sections: &[Section], loads: &[f64]) -> String {
    let loads: Vec<String> = loads.iter().map(|load| format!("{load:.1}")).collect();
    let texts: Vec<String> = sections.iter().map(Section::text).collect();
    format!(
        "# Measurements\n\n\
         Written by `make bench`; do not edit. The budgets are those of the design.\n\n\
         {}- load average (1 min) before the first part and after each: {}; the benchmark itself is part of it\n\n{}",
        machine::describe(),
        loads.join(", "),
        texts.join("\n")
    )
}
