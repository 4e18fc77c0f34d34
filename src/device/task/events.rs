//! Turns events into the core's inputs. Adds what the core cannot look up itself, and counts on the way.

use super::{FAREWELL_LIMIT, Task};
use crate::device::core::Input;
use crate::device::{doctor, plan};
use crate::link::control::ControlEvent;
use crate::media::capture;
use crate::media::publisher;
use crate::media::source::VideoSource;
use crate::policy::health;
use crate::protocol::control::{Answer, Cameras, Checkup, Holder, Request};
use crate::protocol::{Cause, Failure};

impl Task {
    pub(super) async fn capture_input(&mut self, (generation, event): (u64, capture::CaptureEvent)) -> Input {
        let now = self.now();
        match &event {
            capture::CaptureEvent::Running => {
                self.health.on(health::HealthEvent::Settled(generation), now);
                self.health.on(health::HealthEvent::Running, now);
            }
            capture::CaptureEvent::Lost(_) | capture::CaptureEvent::Closed => {
                self.health.on(health::HealthEvent::Settled(generation), now);
            }
            capture::CaptureEvent::LeftBehind => self.health.on(health::HealthEvent::LeftBehind, now),
        }
        let event = match event {
            capture::CaptureEvent::Lost(failure) if failure.cause == Cause::CameraBusy && failure.owner.is_none() => {
                let plan = self.captures.get(&generation).and_then(|capture| capture.shown().plan);
                let owner = match plan.map(|plan| plan.video.source) {
                    Some(VideoSource::V4l2 { node, .. }) => {
                        let look = tokio::task::spawn_blocking(move || plan::foreign_holder(&node));
                        look.await.ok().flatten()
                    }
                    _ => None,
                };
                capture::CaptureEvent::Lost(Failure { owner, ..failure })
            }
            capture::CaptureEvent::Closed => {
                if let Some(capture) = self.captures.remove(&generation) {
                    self.totals.capture_over(capture.shown().counters());
                    capture.join(FAREWELL_LIMIT).await;
                }
                capture::CaptureEvent::Closed
            }
            capture::CaptureEvent::Running => {
                self.prepare_next_encoder(generation);
                capture::CaptureEvent::Running
            }
            event @ (capture::CaptureEvent::Lost(_) | capture::CaptureEvent::LeftBehind) => event,
        };
        Input::Capture(generation, event)
    }

    pub(super) async fn publisher_input(&mut self, attempt: u32, event: publisher::PublisherEvent) -> Input {
        match event {
            publisher::PublisherEvent::Accepted => self.totals.accepted(attempt, self.now()),
            publisher::PublisherEvent::Flowing => {
                let now = self.now();
                self.totals.flowing(attempt, now);
                if let Some((_, meter)) = &mut self.meter {
                    meter.flowing(now);
                }
            }
            publisher::PublisherEvent::Closed => {
                if let Some(publisher) = self.publishers.remove(&attempt) {
                    let counters = publisher.counters();
                    self.totals.publication_over(counters);
                    let publisher::Counters { passed, dropped, bytes, .. } = counters;
                    tracing::info!(publisher = attempt, frames = passed, dropped, bytes, "publication over");
                    if let Some((_, meter)) = &mut self.meter {
                        meter.publication_over(counters);
                    }
                    publisher.join().await;
                }
            }
            publisher::PublisherEvent::Sampled(_) | publisher::PublisherEvent::Lost(_) => {}
        }
        Input::Publisher(attempt, event)
    }

    /// Requests that only look at hardware are answered here, on a thread that may block.
    pub(super) fn control_input(&mut self, event: ControlEvent) -> Option<Input> {
        match event {
            ControlEvent::Closed { connection } => {
                // Nobody reads the answers that this connection waited for.
                self.replies.retain(|_, reply| !reply.is_closed());
                Some(Input::ConnectionClosed(connection))
            }
            ControlEvent::Request { connection, peer, request: what, reply } => {
                let owner = self.core.state(self.now()).owner;
                let (config, encoders) = (self.config.clone(), self.encoders.clone());
                match what {
                    Request::CameraList => {
                        tokio::task::spawn_blocking(move || {
                            reply.send(Ok(Answer::Cameras(Cameras { cameras: doctor::cameras() })))
                        });
                    }
                    Request::Doctor => {
                        tokio::task::spawn_blocking(move || {
                            reply.send(Ok(Answer::Checkup(Checkup { lines: doctor::examine(&config, &encoders) })))
                        });
                    }
                    Request::CameraWho if owner.is_none() => {
                        tokio::task::spawn_blocking(move || {
                            let owner = plan::foreign_owner(&config);
                            reply.send(Ok(Answer::Holder(Holder { owner })))
                        });
                    }
                    what => {
                        let request = self.core.next_request();
                        self.replies.insert(request, reply);
                        return Some(Input::Control { request, connection, peer, what });
                    }
                }
                None
            }
        }
    }
}
