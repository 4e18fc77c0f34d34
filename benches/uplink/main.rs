//! `cargo bench --bench uplink`: compares bitrate rules over simulated uplinks and over a real one.
//!
//! The simulation is deterministic: a family and a seed give a trace, a trace and a rule give an outcome. Seeds below
//! [`FIRST_UNSEEN`] are for tuning; the table uses those from there on. A whole run writes `benches/RESULTS-uplink.md`
//! and `benches/uplink.svg`.

#[path = "../../tests/support/mod.rs"]
mod support;

mod figures;
mod path;
mod phases;
mod plot;
mod publish;
mod real;
mod rig;
mod rivals;
mod run;
mod score;
mod traces;

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use lenscast::policy::bitrate::{self, Follow, FollowSettings, Rule};

use score::{Outcome, mean_score};
use traces::Family;

/// Lower seeds may be looked at while a rule is tuned.
const FIRST_UNSEEN: u64 = 1000;

/// Compares bitrate rules over simulated uplinks and prints their scores.
#[derive(Parser)]
struct Arguments {
    /// Traces of each family
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Use the tuning seeds instead of those kept for the report
    #[arg(long)]
    tuning: bool,
    /// Simulate only; writes no file
    #[arg(long)]
    simulated: bool,
    /// Run only lenscast, on the real link with this congestion control, in a network namespace; writes no file
    #[arg(long, value_name = "CONGESTION", conflicts_with = "rig")]
    real: Option<String>,
    /// Do the same in the rig, with delay and loss
    #[arg(long, value_name = "CONGESTION")]
    rig: Option<String>,
    /// Packet loss there, per cent
    #[arg(long, default_value_t = 1.0, requires = "rig")]
    loss: f64,
    /// Seconds of each rate on the real link
    #[arg(long, default_value_t = 30)]
    phase: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A rule or program that takes part.
struct Contestant {
    name: &'static str,
    interval: Duration,
    rule: fn(u32) -> Box<dyn Rule>,
}

const CONTESTANTS: [Contestant; 4] = [
    Contestant {
        name: "lenscast",
        interval: bitrate::INTERVAL,
        rule: |limit| Box::new(Follow::new(&FollowSettings { limit, floor: 150_000, frame_rate: run::FRAME_RATE })),
    },
    Contestant {
        name: "belacoder",
        interval: rivals::Belacoder::INTERVAL,
        rule: |wanted| Box::new(rivals::Belacoder::new(wanted)),
    },
    Contestant { name: "OBS", interval: rivals::Obs::INTERVAL, rule: |wanted| Box::new(rivals::Obs::new(wanted)) },
    Contestant { name: "none", interval: Duration::from_millis(100), rule: |wanted| Box::new(rivals::Fixed(wanted)) },
];

fn outcomes(contestant: &Contestant, family: Family, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    seeds
        .map(|seed| {
            let trace = traces::generate(family, seed);
            let mut rule = (contestant.rule)(trace.wanted as u32);
            run::run(&trace, rule.as_mut(), contestant.interval, seed, None)
        })
        .collect()
}

fn main() {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("measures for minutes; run it by cargo bench");
        return;
    }
    let phase = Duration::from_secs(arguments.phase);
    if let Some(congestion) = &arguments.real {
        println!("{}", real::run(real::ALL[0], congestion, phase));
        return;
    }
    if let Some(congestion) = &arguments.rig {
        println!("{}", rig::run("lenscast", rig::Who::Daemon, congestion, arguments.loss, phase));
        return;
    }
    let first = if arguments.tuning { 0 } else { FIRST_UNSEEN };
    let simulated = simulate(first..first + arguments.seeds);
    println!("{simulated}");
    if arguments.simulated || arguments.tuning {
        return;
    }
    let mut real = real::section(phase);
    println!("{real}");
    let bad = rig::section(phase);
    println!("{bad}");
    real = real + "\n" + &bad;
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches"));
    draw(&folder.join("uplink.svg"), first);
    let heading = "# Following the uplink\n\nWritten by `make bench`; do not edit.";
    let text = format!("{heading}\n\n{simulated}\n{real}");
    std::fs::write(folder.join("RESULTS-uplink.md"), text).expect("the results can be written");
}

/// The score of each rule on each family, as Markdown.
fn simulate(seeds: std::ops::Range<u64>) -> String {
    let start = Instant::now();
    let mut all: Vec<Vec<Outcome>> = CONTESTANTS.iter().map(|_| Vec::new()).collect();
    let mut table = String::from("| uplink |");
    for contestant in &CONTESTANTS {
        let _ = write!(table, " {} |", contestant.name);
    }
    let _ = write!(table, " of the better rival |\n|---|{}---|\n", "---|".repeat(CONTESTANTS.len()));
    for family in Family::ALL {
        let runs = CONTESTANTS.iter().map(|contestant| outcomes(contestant, family, seeds.clone()));
        let runs: Vec<Vec<Outcome>> = runs.collect();
        line(&mut table, family.name(), &runs);
        for (all, runs) in all.iter_mut().zip(runs) {
            all.extend(runs);
        }
    }
    line(&mut table, "**all**", &all);
    let runs = all.iter().map(Vec::len).sum::<usize>();
    format!(
        "## Simulated uplinks\n\nOf 100: what was used of the link, taken down by the queue (half at a 95th percentile of \
         1 s), freezes (to nothing at a quarter of the time) and changes of the bitrate (half at 300 a minute); \
         `uplink/score.rs`. In parentheses: used, the queue's 95th percentile, time frozen, changes a minute. Made-up \
         traces of {} s (`uplink/traces.rs`), bbr or cubic by lot, seeds {} to {}, which no rule was tuned on; the \
         traces of the first in [uplink.svg](uplink.svg).\n\n{table}\n{runs} runs in {:.1} s.\n",
        traces::LENGTH_S,
        seeds.start,
        seeds.end - 1,
        start.elapsed().as_secs_f64()
    )
}

/// One chart per family: the link, and over it what each rule requested and how long pictures waited.
fn draw(file: &Path, seed: u64) {
    let panels: Vec<plot::Panel> = Family::ALL
        .into_iter()
        .map(|family| {
            let trace = traces::generate(family, seed);
            let curves = CONTESTANTS.iter().map(|contestant| {
                let mut rule = (contestant.rule)(trace.wanted as u32);
                let mut points = Vec::new();
                run::run(&trace, rule.as_mut(), contestant.interval, seed, Some(&mut points));
                (contestant.name, points)
            });
            plot::Panel { title: family.name(), wanted: trace.wanted, curves: curves.collect() }
        })
        .collect();
    std::fs::write(file, plot::svg(&panels)).expect("the plot can be written");
}

fn line(table: &mut String, name: &str, runs: &[Vec<Outcome>]) {
    let _ = write!(table, "| {name} |");
    for outcomes in runs {
        let mean = Outcome::mean(outcomes);
        let _ = write!(
            table,
            " **{:.1}** ({:.0} %, {:.0} ms, {:.1} %, {:.0}) |",
            mean_score(outcomes),
            mean.used * 100.0,
            mean.queue_p95_s * 1000.0,
            mean.frozen * 100.0,
            mean.changes
        );
    }
    let rivals = runs[1..3].iter().map(|outcomes| mean_score(outcomes)).fold(0.0, f64::max);
    let _ = writeln!(table, " {:.0} % |", 100.0 * mean_score(&runs[0]) / rivals);
}
