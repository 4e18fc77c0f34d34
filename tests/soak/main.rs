//! The soak: daemon, cloud, two apps with the published SDK, viewers and servers, all real, with faults drawn from a
//! seed.
//!
//! It fails if a process grows, if recovery from a fault takes more than three times the promised time, if a status is
//! not true, or if a request does not get exactly one final answer. A scene is one stream from start to end. Between
//! scenes nothing runs, and what the processes hold then must stay the same.
//!
//! `LENSCAST_SOAK_MINUTES` is how long (2), `LENSCAST_SOAK_SEED` repeats a run, `LENSCAST_SOAK_REPORT` is a file for the
//! report. `make soak` sets them. Camera and encoder faults are in `tests/hardware/endurance.rs`.
#![cfg(feature = "cloud")]

#[path = "../cloud/link_proxy.rs"]
#[allow(dead_code, reason = "shared with the tests of the cloud")]
mod link_proxy;
#[path = "../support/mod.rs"]
mod support;
#[path = "../cloud/viewer.rs"]
#[allow(dead_code, reason = "shared with the tests of the cloud")]
mod viewer;

mod faults;
mod growth;
mod report;
mod scene;
mod schedule;
mod stage;
mod truth;
mod viewers;

use std::cell::Cell;
use std::time::Duration;

use report::Report;
use schedule::Schedule;
use stage::{Outcome, Stage};
use support::{heavy, monotonic};

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().expect("a whole number"))
}

/// Prints how to repeat the run, whatever ends the test.
struct Last<'a> {
    seed: u64,
    doing: &'a Cell<&'static str>,
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- the soak failed during: {}; repeat it with: make soak SEED={}",
                self.doing.get(),
                self.seed
            );
        }
    }
}

#[test]
fn everything_comes_back_nothing_grows_and_all_that_is_told_is_true() {
    let _turn = heavy::alone();
    let minutes = from_environment("LENSCAST_SOAK_MINUTES").unwrap_or(2);
    let seed = from_environment("LENSCAST_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("soak: seed {seed}, {minutes} minutes");
    let doing = Cell::new("the beginning");
    let _last = Last { seed, doing: &doing };
    let begun = monotonic();
    let until = begun + Duration::from_mins(minutes);
    let mut stage = Stage::new();
    let mut report = Report::new(seed);
    let result = run(&mut stage, &mut report, &doing, begun, until);
    let text = report.markdown(Some(&stage), result.as_ref().err().map(String::as_str));
    println!("{text}");
    if let Some(file) = std::env::var_os("LENSCAST_SOAK_REPORT") {
        std::fs::write(&file, &text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }
    if let Err(why) = result {
        panic!("seed {seed}, {}: {why}", doing.get());
    }
    stage.finish();
}

fn run(
    stage: &mut Stage,
    report: &mut Report,
    doing: &Cell<&'static str>,
    begun: Duration,
    until: Duration,
) -> Outcome {
    let clock = || format!("{:6.1} s", monotonic().saturating_sub(begun).as_secs_f64());
    for scene in Schedule::new(report.seed) {
        if monotonic() > until {
            break;
        }
        println!("{} {:?} of app {}, {:?}", clock(), scene.kind, scene.app + 1, scene.ending);
        doing.set("a start");
        scene::play(stage, &scene, until, |fault, recovery| {
            doing.set(fault.name());
            if let Some(recovery) = recovery {
                let link =
                    recovery.link.map_or_else(String::new, |link| format!(", link after {:.1} s", link.as_secs_f64()));
                println!("{}   {}: well after {:.1} s{link}", clock(), fault.name(), recovery.took.as_secs_f64());
                report.recovered(&recovery);
                doing.set("a quiet time or an end");
            }
        })?;
        doing.set("the rest between scenes");
        report.rest(stage)?;
    }
    Ok(())
}
