//! `cargo bench --bench uplink`: rules of bitrate over simulated uplinks, side by side.
//!
//! Deterministic: a family and a seed give a trace, a trace and a rule give an outcome. Seeds below [`FIRST_UNSEEN`] are
//! for tuning; the table is made of those from there on.

mod path;
mod plot;
mod rivals;
mod run;
mod score;
mod traces;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use lenscast::policy::bitrate::{self, Follow, Rule, Settings};

use score::{Outcome, mean_score};
use traces::Family;

/// Seeds below it may be looked at while a rule is tuned.
const FIRST_UNSEEN: u64 = 1000;

/// Compares rules of bitrate over simulated uplinks and prints what each is worth.
#[derive(Parser)]
struct Arguments {
    /// Traces of each family
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The seeds for tuning in place of those that were kept for the report
    #[arg(long)]
    tuning: bool,
    /// Draws the first trace of each family, with what the rules made of it, into this file
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Who takes part.
struct Contestant {
    name: &'static str,
    interval: Duration,
    rule: fn(u32) -> Box<dyn Rule>,
}

const CONTESTANTS: [Contestant; 4] = [
    Contestant {
        name: "lenscast",
        interval: bitrate::INTERVAL,
        rule: |limit| {
            Box::new(Follow::new(&Settings { limit, floor: 150_000, frame_rate: run::FRAME_RATE, start: None }))
        },
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
        println!("runs for a minute; run it by cargo bench");
        return;
    }
    let first = if arguments.tuning { 0 } else { FIRST_UNSEEN };
    let seeds = first..first + arguments.seeds;
    let start = Instant::now();
    let mut table = String::from("| uplink |");
    for contestant in &CONTESTANTS {
        let _ = write!(table, " {} | used | queue p95 | frozen | changes/min |", contestant.name);
    }
    table.push_str("\n|---|");
    table.push_str(&"---|---|---|---|---|".repeat(CONTESTANTS.len()));
    table.push('\n');
    let mut all: Vec<Vec<Outcome>> = CONTESTANTS.iter().map(|_| Vec::new()).collect();
    for family in Family::ALL {
        let _ = write!(table, "| {} |", family.name());
        for (contestant, all) in CONTESTANTS.iter().zip(&mut all) {
            let outcomes = outcomes(contestant, family, seeds.clone());
            line(&mut table, &outcomes);
            all.extend(outcomes);
        }
        table.push('\n');
    }
    table.push_str("| **all** |");
    for all in &all {
        line(&mut table, all);
    }
    table.push('\n');
    let runs = all.iter().map(Vec::len).sum::<usize>();
    if let Some(file) = &arguments.plot {
        draw(file, first);
    }
    println!("{table}\n{runs} runs in {:.1} s, seeds {seeds:?}", start.elapsed().as_secs_f64());
}

/// One picture a family: the link, and over it what each rule asked for and how long pictures waited.
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

fn line(table: &mut String, outcomes: &[Outcome]) {
    let mean = Outcome::mean(outcomes);
    let _ = write!(
        table,
        " **{:.1}** | {:.0} % | {:.0} ms | {:.1} % | {:.0} |",
        mean_score(outcomes),
        mean.used * 100.0,
        mean.queue_p95_s * 1000.0,
        mean.frozen * 100.0,
        mean.changes
    );
}
