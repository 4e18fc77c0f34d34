//! What others see: the state, the stream's measurements, the metrics for Prometheus.

use super::Task;
use crate::device::metrics::{self, Present};
use crate::media::video;
use crate::protocol::DaemonState;

impl Task {
    pub(super) fn measure(&mut self) -> Option<crate::protocol::Metrics> {
        let now = self.now();
        let (_, meter) = self.meter.as_mut()?;
        let running = self.publishers.iter().max_by_key(|(attempt, _)| **attempt);
        Some(meter.measure(now, running.map(|(_, publisher)| publisher.counters())))
    }

    /// For Prometheus.
    pub(super) fn numbers(&self) -> String {
        let mut captures = video::Counters::default();
        for capture in self.captures.values() {
            captures += capture.shown().counters();
        }
        let state = self.present();
        let camera = self.captures.get(&state.camera.generation);
        let mut publishers: Vec<_> = self.publishers.iter().map(|(number, of)| (number, of.counters())).collect();
        publishers.sort_unstable_by_key(|(number, _)| *number);
        let publishers: Vec<_> = publishers.into_iter().map(|(_, counters)| counters).collect();
        let present = Present {
            core: &self.core,
            state: &state,
            captures,
            camera_silent: camera.and_then(|capture| capture.shown().camera_silent()),
            publishers: &publishers,
        };
        metrics::write(&self.totals, &present)
    }

    /// The state, completed by what only the capture knows.
    pub(super) fn present(&self) -> DaemonState {
        let mut state = self.core.state(self.now());
        if let Some(capture) = self.captures.get(&state.camera.generation) {
            let shown = capture.shown();
            state.camera.frames = shown.pictures();
            if let Some(plan) = shown.plan {
                let source = &plan.video.source;
                state.camera.device = Some(source.device());
                state.camera.name = Some(source.name());
                state.camera.mode = Some(source.mode(&plan.video.settings));
                state.camera.encoder = Some(plan.video.encoder().to_owned());
                state.camera.zero_copy = source.is_zero_copy();
                state.camera.audio = plan.audio.filter(|_| shown.sound).map(|(source, _)| source.name().to_owned());
            }
        }
        state
    }

    pub(super) fn show(&mut self) {
        let state = self.present();
        self.service.show(&state);
        self.state.send_if_modified(|shown| {
            let news = *shown != state;
            *shown = state;
            news
        });
    }
}
