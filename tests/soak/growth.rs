//! The resources that a process holds, and whether they grow. Samples are taken between scenes, when it is idle.

use std::fmt::Write as _;
use std::fs;

/// A sample of an idle process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub files: u64,
    /// How many of the files are sockets.
    pub sockets: u64,
    pub threads: u64,
    pub kilobytes: u64,
}

impl Sample {
    /// Takes a sample of a process from /proc.
    pub fn of(pid: u32) -> Self {
        let files: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().collect();
        let is_socket =
            |path: std::path::PathBuf| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        Self {
            files: files.len() as u64,
            sockets: files.iter().filter(|file| is_socket(file.path())).count() as u64,
            threads: number("Threads:"),
            kilobytes: number("VmRSS:"),
        }
    }
}

/// The children of a process, dead ones too, as `pid (name) state`.
pub fn children(pid: u32) -> Vec<String> {
    let stats = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            after_name.split_whitespace().nth(1) == Some(pid.to_string().as_str())
        })
        .map(|stat| stat.split_inclusive(')').next().unwrap_or_default().to_owned())
        .collect()
}

/// The open files of a process and the names of its threads, to find out what grows.
pub fn open_files(pid: u32) -> String {
    let all = |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}")).into_iter().flatten().flatten();
    let files = all("fd").filter_map(|file| fs::read_link(file.path()).ok()).map(|to| to.display().to_string());
    let threads = all("task").filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    let (files, threads): (Vec<_>, Vec<_>) = (files.collect(), threads.map(|name| name.trim().to_owned()).collect());
    format!("open: {}\nthreads: {}", files.join(" "), threads.join(" "))
}

/// The median of the slopes of all pairs of points (Theil and Sen), which single jumps of an allocator do not affect.
/// `None` for fewer than two points.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let pairs = points.iter().enumerate().flat_map(|(n, a)| points[n + 1..].iter().map(move |b| (a, b)));
    let mut slopes: Vec<f64> = pairs.filter(|(a, b)| b.0 > a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied()
}

/// The average gain of a series from one point to the next, without its two largest jumps. In a short life these two
/// alone affect [`slope`], while a leak gains again and again. `None` for fewer than four points.
pub fn gain_but_for_leaps(points: &[(f64, f64)]) -> Option<f64> {
    let mut gains: Vec<f64> = points.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    gains.sort_by(f64::total_cmp);
    let steady = gains.get(..gains.len().checked_sub(2)?).filter(|steady| !steady.is_empty())?;
    Some(steady.iter().sum::<f64>() / steady.len() as f64)
}

/// One life of a process: its samples, each with the minute in which it was taken.
#[derive(Debug, Default)]
pub struct Life(Vec<(f64, Sample)>);

/// Samples at the beginning of a life that do not count, because things are loaded and cached then.
const WARM_UP: usize = 3;
/// How many files or threads above the warm-up are accepted. What is loaded at first use may come after the warm-up
/// (GIO's two threads with their three files, with the first restream), and GStreamer's pools end threads late.
const SLACK: u64 = 8;
/// The fewest samples of which a slope is judged.
const ENOUGH: usize = 12;
/// Files or threads left behind per scene that count as growth.
const LEFT_BEHIND: f64 = 0.2;
/// Kilobytes per scene that count as growth. An allocator that has not settled shows less over some minutes; a leak of
/// one stream's frames shows more.
const STEEP: f64 = 400.0;

impl Life {
    pub fn add(&mut self, minutes: f64, sample: Sample) {
        self.0.push((minutes, sample));
    }

    /// The most files and threads of the warm-up, once that is over.
    pub fn usual(&self) -> Option<(u64, u64)> {
        let warm = self.0.get(..WARM_UP)?;
        let most = |value: fn(&Sample) -> u64| warm.iter().map(|(_, s)| value(s)).max().unwrap_or(0);
        Some((most(|s| s.files) + SLACK, most(|s| s.threads) + SLACK))
    }

    /// Whether this sample is within the warm-up's.
    pub fn is_usual(&self, sample: &Sample) -> bool {
        self.usual().is_none_or(|(files, threads)| sample.files <= files && sample.threads <= threads)
    }

    fn series(&self, x: impl Fn(usize, f64) -> f64, y: fn(&Sample) -> u64) -> Vec<(f64, f64)> {
        let warm = self.0.len().min(WARM_UP - 1);
        self.0[warm..].iter().enumerate().map(|(n, (minutes, s))| (x(n, *minutes), y(s) as f64)).collect()
    }

    /// An error that says what grows, if anything does.
    pub fn growth(&self) -> Result<(), String> {
        type Value = fn(&Sample) -> u64;
        type Gauge = fn(&[(f64, f64)]) -> Option<f64>;
        // An allocator jumps, and does not give memory back; files and threads do not jump.
        let memory: Gauge = |points| Some(slope(points)?.min(gain_but_for_leaps(points)?));
        let limits: [(&str, Value, Gauge, f64); 3] = [
            ("memory (kB)", |sample| sample.kilobytes, memory, STEEP),
            ("files", |sample| sample.files, slope, LEFT_BEHIND),
            ("threads", |sample| sample.threads, slope, LEFT_BEHIND),
        ];
        for (name, value, gauge, limit) in limits {
            let series = self.series(|n, _| n as f64, value);
            if let Some(growth) = gauge(&series).filter(|growth| *growth > limit && self.0.len() >= ENOUGH) {
                return Err(format!("{name}: {growth:+.1} a scene: {series:?}"));
            }
        }
        Ok(())
    }

    /// A row of the report: first, last and slope per hour of each value.
    pub fn row(&self, name: &str) -> String {
        let (Some((_, first)), Some((_, last))) = (self.0.first(), self.0.last()) else {
            return format!("| {name} | 0 | | | | |\n");
        };
        let mut row = format!("| {name} | {} |", self.0.len());
        let values: [fn(&Sample) -> u64; 4] = [|s| s.files, |s| s.sockets, |s| s.threads, |s| s.kilobytes];
        for value in values {
            let hourly = slope(&self.series(|_, minutes| minutes / 60.0, value));
            let hourly = hourly.map_or_else(|| "-".into(), |slope| format!("{slope:+.0}"));
            let _ = write!(row, " {} → {} ({hourly}) |", value(first), value(last)); // a String takes all
        }
        row + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_is_no_slope_and_a_leak_is() {
        let once: Vec<(f64, f64)> = (0..20).map(|n| (f64::from(n), if n < 4 { 100.0 } else { 500.0 })).collect();
        assert_eq!(slope(&once), Some(0.0));
        let leak: Vec<(f64, f64)> = (0..20).map(|n| (f64::from(n), f64::from(n * 10 + n % 3))).collect();
        assert!((slope(&leak).unwrap() - 10.0).abs() < 0.5);
        assert_eq!(slope(&[(1.0, 1.0)]), None);
    }

    #[test]
    fn two_leaps_of_an_allocator_in_a_short_life_are_no_growth_and_a_leak_beside_them_is() {
        let life = |leak: u64| {
            let mut life = Life::default();
            for n in 0..12 {
                let leaps = 40_000 + if n > 2 { 51_000 } else { 0 } + if n > 7 { 5_800 } else { 0 };
                life.add(n as f64, Sample { kilobytes: leaps + n / 3 * leak, ..Sample::default() });
            }
            life
        };
        assert_eq!(life(100).growth(), Ok(()));
        assert!(life(4_000).growth().is_err(), "one scene of three leaks");
    }

    #[test]
    fn this_process_has_files_threads_and_memory() {
        let sample = Sample::of(std::process::id());
        assert!(sample.files >= 3 && sample.threads >= 1 && sample.kilobytes > 500, "{sample:?}");
    }

    #[test]
    fn more_files_after_the_warm_up_are_not_usual() {
        let mut life = Life::default();
        let sample = |files| Sample { files, threads: 5, ..Sample::default() };
        for (n, files) in [10, 14, 12].into_iter().enumerate() {
            assert!(life.is_usual(&sample(99)), "nothing is known yet");
            life.add(n as f64, sample(files));
        }
        assert!(life.is_usual(&sample(14 + SLACK)) && !life.is_usual(&sample(15 + SLACK)));
    }

    #[test]
    fn one_file_left_behind_a_scene_grows() {
        let mut life = Life::default();
        for n in 0..20 {
            life.add(n as f64, Sample { files: 20 + u64::from(n > 5), threads: 5 + n % 4, ..Sample::default() });
        }
        assert_eq!(life.growth(), Ok(()));
        for n in 20..60 {
            life.add(n as f64, Sample { files: n, threads: 5, ..Sample::default() });
        }
        assert!(life.growth().is_err());
    }
}
