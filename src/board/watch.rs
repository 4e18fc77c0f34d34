//! The task that reads the board: often while the camera is in use, rarely otherwise, and at once on request.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Light, Reading, Settings, Zone, network, power, thermal};
use crate::policy::heat::HeatSample;

/// Limit for a reading; after that the board counts as unknown for now.
const LIMIT: Duration = Duration::from_millis(500);
/// Factor on the interval between readings while nothing runs.
const IDLE: u32 = 7;

/// Reads the board until it is ended.
#[derive(Debug)]
pub struct Watch {
    in_use: watch::Sender<bool>,
    wanted: Arc<Notify>,
    light: Option<Arc<Light>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts with a reading. Each requested reading begins after its request.
    pub fn start(settings: Settings, light: Option<Arc<Light>>, readings: mpsc::Sender<Reading>) -> Self {
        let (in_use, use_changes) = watch::channel(false);
        let wanted = Arc::new(Notify::new());
        let looker = Looker { settings, zones: Vec::new(), light: light.clone(), light_obeyed: true };
        let task = tokio::spawn(run(looker, use_changes, wanted.clone(), readings));
        Self { in_use, wanted, light, task }
    }

    /// Says whether the camera is in use: while it is, the light is on and readings are frequent.
    pub fn camera_in_use(&self, in_use: bool) {
        if *self.in_use.borrow() != in_use {
            if let Some(light) = &self.light {
                light.want(in_use);
            }
            self.in_use.send_replace(in_use);
        }
    }

    /// Requests a reading at once.
    pub fn look(&self) {
        self.wanted.notify_one();
    }

    /// The privacy light, if there is one.
    pub fn light(&self) -> Option<Arc<Light>> {
        self.light.clone()
    }

    /// Ends the task, with the light off.
    pub async fn end(self) {
        if let Some(light) = &self.light {
            light.want(false);
        }
        drop(self.in_use);
        let _ = self.task.await;
    }
}

async fn run(looker: Looker, mut in_use: watch::Receiver<bool>, wanted: Arc<Notify>, readings: mpsc::Sender<Reading>) {
    let every = looker.settings.every;
    let mut free = Some(looker);
    let mut looking: Option<JoinHandle<(Looker, Reading)>> = None;
    loop {
        let look = looking.take().unwrap_or_else(|| {
            let mut looker = free.take().expect("whoever does not look is free");
            let thorough = !*in_use.borrow_and_update();
            tokio::task::spawn_blocking(move || {
                let reading = looker.look(thorough);
                (looker, reading)
            })
        });
        let reading = match finish(look).await {
            Ok((looker, reading)) => {
                free = Some(looker);
                reading
            }
            Err(Some(stuck)) => {
                tracing::warn!(limit = ?LIMIT, "the board's sensors do not answer");
                looking = Some(stuck);
                Reading::default()
            }
            Err(None) => return,
        };
        if readings.send(reading).await.is_err() {
            break;
        }
        let next = Instant::now() + if *in_use.borrow() { every } else { every * IDLE };
        tokio::select! {
            changed = in_use.changed() => if changed.is_err() { break },
            () = wanted.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
    // The last reading, to switch the light off, whatever was requested meanwhile.
    if let Some(mut looker) = free {
        let _ = finish(tokio::task::spawn_blocking(move || {
            looker.settle_light();
            (looker, Reading::default())
        }))
        .await;
    }
}

/// Waits for a reading; returns it as pending if it takes too long, and nothing if it panicked.
async fn finish(
    mut look: JoinHandle<(Looker, Reading)>,
) -> Result<(Looker, Reading), Option<JoinHandle<(Looker, Reading)>>> {
    match tokio::time::timeout(LIMIT, &mut look).await {
        Ok(done) => done.map_err(|_| None),
        Err(_) => Err(Some(look)),
    }
}

/// State kept from one reading to the next.
struct Looker {
    settings: Settings,
    zones: Vec<Zone>,
    light: Option<Arc<Light>>,
    light_obeyed: bool,
}

impl Looker {
    /// `thorough`: look for new zones, which may have come with a driver.
    fn look(&mut self, thorough: bool) -> Reading {
        let light_obeys = self.settle_light();
        if thorough || self.zones.is_empty() {
            self.zones = thermal::zones(&self.settings);
        }
        let mut reading = Reading {
            battery: power::battery(&self.settings.sys),
            network: network::up(&self.settings.sys),
            light_obeys,
            ..Reading::default()
        };
        let mut nearest = f64::MIN;
        for zone in &self.zones {
            let Some(celsius) = zone.celsius() else { continue };
            let sample = HeatSample::of(celsius, zone.limits);
            reading.heat = Some(reading.heat.map_or(sample, |heat| heat.worse(sample)));
            if sample.over > nearest {
                nearest = sample.over;
                reading.hottest = Some((zone.name.clone(), celsius));
            }
        }
        reading
    }

    fn settle_light(&mut self) -> Option<bool> {
        let settled = self.light.as_ref()?.settle();
        if let Err(error) = &settled
            && self.light_obeyed
        {
            tracing::warn!(%error, "the privacy light does not obey");
        }
        self.light_obeyed = settled.is_ok();
        Some(self.light_obeyed)
    }
}
