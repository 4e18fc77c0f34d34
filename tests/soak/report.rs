//! The soak's report, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::growth::{self, Life, Sample};
use crate::scene::Recovery;
use crate::schedule::Fault;
use crate::stage::{Outcome, Stage};
use crate::support::monotonic;

/// Collected during the run.
pub struct Report {
    pub seed: u64,
    begun: Duration,
    scenes: u64,
    faults: BTreeMap<Fault, Vec<Duration>>,
    links: Vec<Duration>,
    /// The lives of daemon and cloud.
    lives: [Vec<(u32, Life)>; 2],
    busiest: f64,
}

/// The processes that are measured, in this order.
const PROCESSES: [&str; 2] = ["lenscastd", "lenscast-cloud"];
/// Time for a process to release what the last scene needed.
const GIVEN_BACK: Duration = Duration::from_secs(10);

impl Report {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            begun: monotonic(),
            scenes: 0,
            faults: BTreeMap::new(),
            links: Vec::new(),
            lives: [Vec::new(), Vec::new()],
            busiest: 0.0,
        }
    }

    /// Notes that a fault is over and everything has recovered.
    pub fn recovered(&mut self, recovery: &Recovery) {
        self.faults.entry(recovery.fault).or_default().push(recovery.took);
        self.links.extend(recovery.link);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
        self.busiest = self.busiest.max(load);
    }

    /// A scene is over and nothing runs: measures what the processes hold.
    pub fn rest(&mut self, stage: &mut Stage) -> Outcome {
        self.scenes += 1;
        let minutes = monotonic().saturating_sub(self.begun).as_secs_f64() / 60.0;
        for (n, name) in PROCESSES.into_iter().enumerate() {
            let pid = if n == 0 { stage.daemon.process().pid() } else { stage.cloud.process().pid() };
            let lives = &mut self.lives[n];
            if lives.last().is_none_or(|(of, _)| *of != pid) {
                lives.push((pid, Life::default()));
            }
            let (_, life) = lives.last_mut().expect("just there");
            let mut sample = Sample::of(pid);
            let mut children = growth::children(pid);
            let given_back = stage.until("", GIVEN_BACK, |_| {
                sample = Sample::of(pid);
                children = growth::children(pid);
                children.is_empty() && life.is_usual(&sample)
            });
            life.add(minutes, sample);
            if let Err(why) = given_back {
                let why = if why.contains("in vain") { "" } else { &why };
                return Err(format!(
                    "{name} at rest has {sample:?}, usually not more files and threads than {:?}; children: {children:?}; \
                     {why}\n{}",
                    life.usual(),
                    growth::open_files(pid)
                ));
            }
            life.growth().map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }

    /// The report in Markdown.
    pub fn markdown(&self, stage: Option<&Stage>, failure: Option<&str>) -> String {
        let mut text = String::new();
        let minutes = monotonic().saturating_sub(self.begun).as_secs_f64() / 60.0;
        let faults: usize = self.faults.values().map(Vec::len).sum();
        let mut line = |words: std::fmt::Arguments| {
            let _ = writeln!(text, "{words}"); // a String takes all
        };
        line(format_args!(
            "# Soak\n\nWritten by `make soak`: daemon, cloud, two apps and viewers under faults by a seed.\n"
        ));
        line(format_args!(
            "Seed {}, {minutes:.1} minutes, {} scenes, {faults} faults; load up to {:.1}.",
            self.seed, self.scenes, self.busiest
        ));
        line(format_args!("Result: {}.\n", failure.unwrap_or("all promises held")));
        line(format_args!("| fault | times | well again after, median | most | promise |\n|---|--:|--:|--:|--:|"));
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let row = |name: &str, times: &[Duration], promise: Duration| {
            let mut times = times.to_vec();
            times.sort_unstable();
            let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
            format!("| {name} | {} | {} | {} | {} |", times.len(), seconds(median), seconds(most), seconds(promise))
        };
        for (fault, times) in &self.faults {
            line(format_args!("{}", row(fault.name(), times, fault.promise())));
        }
        if !self.links.is_empty() {
            line(format_args!("{}", row("(of these: the link)", &self.links, Duration::from_secs(30))));
        }
        line(format_args!(
            "\n| process, each life | samples | files | sockets | threads | resident kB |\n|---|--:|--:|--:|--:|--:|"
        ));
        for (name, lives) in PROCESSES.iter().zip(&self.lives) {
            for (_, life) in lives {
                line(format_args!("{}", life.row(name).trim_end()));
            }
        }
        line(format_args!("\nAt rest, first → last (slope per hour after the warm-up).\n"));
        if let Some(stage) = stage {
            let listeners = || stage.apps.iter().flat_map(|app| [&app.managed, &app.unmanaged]);
            let (begun, finals) = listeners().fold((0, 0), |(b, f), l| (b + l.begun, f + l.finals));
            let longest = listeners().map(|l| l.longest).max().unwrap_or_default();
            line(format_args!("| told | |\n|---|--:|"));
            line(format_args!("| calls of apps, outcomes | {}, {} |", stage.requests, stage.answers));
            line(format_args!("| streams of apps, final statuses | {begun}, {finals} |"));
            line(format_args!(
                "| streams of the glasses, final statuses | {}, {} |",
                stage.glasses.begun, stage.glasses.finals
            ));
            line(format_args!("| lost answers | {} |", stage.requests - stage.answers + begun - finals));
            line(format_args!("| `checkExistingStream()` compared | {} |", stage.checks));
            line(format_args!("| false statuses | {} |", u8::from(failure.is_some_and(|why| why.contains("is told")))));
            line(format_args!(
                "| longest `streaming` of the glasses without media | {} of 9 s |",
                seconds(stage.glasses.longest)
            ));
            line(format_args!("| longest `active` of an app without media | {} of 12 s |", seconds(longest)));
        }
        text
    }
}
