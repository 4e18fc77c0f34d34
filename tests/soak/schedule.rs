//! What happens when: scenes with faults, drawn from a seed. Pure; the same seed gives the same schedule.
//!
//! Faults come out of bags: each kind once before any comes again, so that two minutes have most of them. Whatever
//! restarts a process is in every other bag only: what grows must be given time to grow.

use std::collections::VecDeque;
use std::time::Duration;

/// The kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the cloud, for viewers.
    Managed,
    /// To the app's own server.
    Unmanaged,
}

/// A fault, or an action of somebody, while a stream is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    IngestCut,
    IngestStalled,
    CloudFrozen,
    CloudKilled,
    CloudRestarted,
    DaemonKilled,
    DaemonRestarted,
    LinkCut,
    AppCut,
    DestinationKilled,
    ServerKilled,
    ServerFrozen,
    BlackHole,
    ViewersComeAndGo,
    SlowViewers,
    Photo,
    Joined,
    Preempted,
    Conflict,
    IngestGarbage,
    ControlGarbage,
    Bitrate,
    WrongStop,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 23] = [
        Self::IngestCut,
        Self::IngestStalled,
        Self::CloudFrozen,
        Self::CloudKilled,
        Self::CloudRestarted,
        Self::DaemonKilled,
        Self::DaemonRestarted,
        Self::LinkCut,
        Self::AppCut,
        Self::DestinationKilled,
        Self::ServerKilled,
        Self::ServerFrozen,
        Self::BlackHole,
        Self::ViewersComeAndGo,
        Self::SlowViewers,
        Self::Photo,
        Self::Joined,
        Self::Preempted,
        Self::Conflict,
        Self::IngestGarbage,
        Self::ControlGarbage,
        Self::Bitrate,
        Self::WrongStop,
    ];

    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::IngestCut => "ingest connection cut",
            Self::IngestStalled => "ingest connection stalled",
            Self::CloudFrozen => "cloud frozen",
            Self::CloudKilled => "cloud killed",
            Self::CloudRestarted => "cloud restarted",
            Self::DaemonKilled => "daemon killed",
            Self::DaemonRestarted => "daemon restarted",
            Self::LinkCut => "glasses' link cut",
            Self::AppCut => "app's socket cut",
            Self::DestinationKilled => "restream destination killed",
            Self::ServerKilled => "app's server killed",
            Self::ServerFrozen => "app's server frozen",
            Self::BlackHole => "black hole",
            Self::ViewersComeAndGo => "viewers come and go",
            Self::SlowViewers => "viewers that do not read",
            Self::Photo => "photo",
            Self::Joined => "another app joins and leaves",
            Self::Preempted => "preempted by another app's stream",
            Self::Conflict => "refused while unmanaged",
            Self::IngestGarbage => "garbage at the cloud's ports",
            Self::ControlGarbage => "garbage at control sockets",
            Self::Bitrate => "bitrate changed",
            Self::WrongStop => "stop of a stream there is not",
        }
    }

    /// Whether the fault can happen to this kind of stream.
    pub fn fits(self, kind: Kind) -> bool {
        match self {
            Self::IngestCut
            | Self::IngestStalled
            | Self::CloudFrozen
            | Self::CloudRestarted
            | Self::DestinationKilled
            | Self::ViewersComeAndGo
            | Self::SlowViewers
            | Self::Joined
            | Self::Preempted
            | Self::IngestGarbage => kind == Kind::Managed,
            Self::ServerKilled | Self::ServerFrozen | Self::BlackHole | Self::Conflict => kind == Kind::Unmanaged,
            _ => true,
        }
    }

    /// Whether it ends a process that is measured for growth.
    pub fn restarts(self) -> bool {
        matches!(self, Self::CloudKilled | Self::CloudRestarted | Self::DaemonKilled | Self::DaemonRestarted)
    }

    /// Whether it breaks the glasses' link.
    pub fn breaks_link(self) -> bool {
        self.restarts() || self == Self::LinkCut
    }

    /// The longest time from the end of the fault until everything is as before, as promised by the design or derived
    /// from it.
    pub fn promise(self) -> Duration {
        Duration::from_millis(match self {
            // At most 5 s between two attempts, and a managed start.
            Self::IngestCut
            | Self::IngestStalled
            | Self::CloudFrozen
            | Self::ServerKilled
            | Self::ServerFrozen
            | Self::BlackHole
            | Self::DestinationKilled => 6500,
            // The package tries after 1, 2 and 4 s.
            Self::CloudKilled | Self::CloudRestarted => 7000,
            // The daemon's start, and a managed start.
            Self::DaemonKilled | Self::DaemonRestarted => 4000,
            Self::AppCut => 3000,
            _ => 1500,
        })
    }
}

/// How a stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By its app.
    Stop,
    /// By its app, while its media cannot reach the server.
    StopWhileLost,
    /// By its app, which starts the next stream before it is told of the end.
    StopAndStart,
    /// By `lenscastctl`.
    ByPerson,
}

/// A fault and its duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How long the stream is healthy before.
    pub quiet: Duration,
    pub fault: Fault,
    pub hold: Duration,
}

/// One stream from start to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    pub kind: Kind,
    /// Index of one of the two apps.
    pub app: usize,
    pub restream: bool,
    pub steps: Vec<Step>,
    pub ending: Ending,
}

/// An endless sequence of scenes.
pub struct Schedule {
    random: fastrand::Rng,
    managed: Bag,
    unmanaged: Bag,
    endings: VecDeque<Ending>,
}

struct Bag {
    kind: Kind,
    left: Vec<Fault>,
    filled: u32,
}

impl Bag {
    fn draw(&mut self, random: &mut fastrand::Rng) -> Fault {
        if self.left.is_empty() {
            self.filled += 1;
            let whole = self.filled % 2 == 1;
            self.left = Fault::ALL.into_iter().filter(|f| f.fits(self.kind) && (whole || !f.restarts())).collect();
            random.shuffle(&mut self.left);
        }
        self.left.pop().expect("just filled")
    }
}

impl Schedule {
    /// The schedule of this seed.
    pub fn new(seed: u64) -> Self {
        let bag = |kind| Bag { kind, left: Vec::new(), filled: 0 };
        Self {
            random: fastrand::Rng::with_seed(seed),
            managed: bag(Kind::Managed),
            unmanaged: bag(Kind::Unmanaged),
            endings: VecDeque::new(),
        }
    }

    fn ending(&mut self) -> Ending {
        if self.endings.is_empty() {
            let mut all = [Ending::Stop, Ending::StopWhileLost, Ending::StopAndStart, Ending::ByPerson];
            self.random.shuffle(&mut all);
            self.endings.extend(all);
        }
        self.endings.pop_front().expect("just filled")
    }
}

impl Iterator for Schedule {
    type Item = Scene;

    fn next(&mut self) -> Option<Scene> {
        let ending = self.ending();
        let random = &mut self.random;
        // Managed streams have more faults to go through.
        let (kind, bag) = if random.u8(..5) < 3 {
            (Kind::Managed, &mut self.managed)
        } else {
            (Kind::Unmanaged, &mut self.unmanaged)
        };
        let steps: Vec<Step> = (0..random.usize(3..=5))
            .map(|_| {
                let fault = bag.draw(random);
                let quiet = Duration::from_millis(random.u64(0..1500));
                Step { quiet, fault, hold: Duration::from_millis(random.u64(0..3000)) }
            })
            .collect();
        let needs_it = steps.iter().any(|step| step.fault == Fault::DestinationKilled);
        let restream = kind == Kind::Managed && (needs_it || random.u8(..4) == 0);
        Some(Scene { kind, app: random.usize(..2), restream, steps, ending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        let scenes = |seed| Schedule::new(seed).take(50).collect::<Vec<_>>();
        assert_eq!(scenes(7), scenes(7));
        assert_ne!(scenes(7), scenes(8));
    }

    #[test]
    fn every_fault_comes_before_any_comes_twice_and_none_where_it_cannot() {
        for seed in 0..200 {
            for kind in [Kind::Managed, Kind::Unmanaged] {
                let all = Fault::ALL.iter().filter(|fault| fault.fits(kind)).count();
                let scenes = Schedule::new(seed).filter(|scene| scene.kind == kind);
                let mut drawn: Vec<Fault> = scenes.take(20).flat_map(|s| s.steps).map(|s| s.fault).collect();
                drawn.truncate(all);
                assert!(drawn.iter().all(|fault| fault.fits(kind)));
                drawn.sort();
                drawn.dedup();
                assert_eq!(drawn.len(), all, "seed {seed}");
            }
        }
    }

    #[test]
    fn scenes_are_bounded() {
        for scene in Schedule::new(1).take(1000) {
            let length: Duration = scene.steps.iter().map(|step| step.quiet + step.hold).sum();
            assert!(length < Duration::from_secs(23) && (3..=5).contains(&scene.steps.len()));
            assert!(scene.app < 2 && (scene.kind == Kind::Managed || !scene.restream));
            let wants = scene.steps.iter().any(|step| step.fault == Fault::DestinationKilled);
            assert!(scene.restream || !wants);
        }
    }
}
