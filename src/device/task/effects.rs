//! Carries out what the core decided: captures, publishers, links, looks at hardware. Nothing here waits.

use std::future::Future;
use std::time::Duration;

use super::Task;
use crate::device::core::{Effect, Input};
use crate::device::{network, plan, remember};
use crate::link::{LinkId, Outgoing};
use crate::media::capture::{self, Capture};
use crate::media::publisher::Publisher;
use crate::policy::arbiter::RequestId;
use crate::policy::camera::CaptureSettings;
use crate::policy::health;
use crate::protocol::control::Reply;
use crate::protocol::{Cause, Failure};

/// Limit of a photo from a running capture, which takes the time of a few pictures.
const PHOTO_LIMIT: Duration = Duration::from_secs(2);

impl Task {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::OpenCapture(generation, settings) => {
                self.health.on(health::HealthEvent::Opening(generation), self.now());
                let plan = self.plan(settings);
                let capture = Capture::open(generation, plan, self.feed.clone(), self.capture_events.clone());
                self.captures.insert(generation, capture);
            }
            Effect::CloseCapture(generation) => {
                if let Some(capture) = self.captures.get_mut(&generation) {
                    capture.close();
                }
            }
            Effect::Encode(generation, what) => {
                if let Some(capture) = self.captures.get(&generation) {
                    capture.encode(what);
                }
            }
            Effect::DistrustEncoder(failure) => {
                if let Some(plan) = self.captures.values().find_map(|capture| capture.shown().plan) {
                    self.encoders.distrust(plan.video.encoder(), &plan.video.settings, &failure);
                }
            }
            Effect::OpenPublisher(attempt, target) => {
                self.recall_uplink(attempt);
                self.totals.attempt(attempt, self.now());
                let events = self.publisher_events.clone();
                self.publishers.insert(attempt, Publisher::open(attempt, target, self.feed.clone(), events));
            }
            Effect::BoundSendBuffer(attempt, bytes) => {
                if let Some(publisher) = self.publishers.get(&attempt) {
                    publisher.bound_send_buffer(bytes);
                }
            }
            Effect::ClosePublisher(attempt) => {
                if let Some(publisher) = self.publishers.get_mut(&attempt) {
                    publisher.close();
                }
            }
            Effect::TakePhoto(request) => self.take_photo(request),
            Effect::Play(chime) => {
                if let Some(speaker) = &self.speaker {
                    speaker.play(chime);
                }
            }
            Effect::LookAtBoard => self.board.look(),
            Effect::FindCamera(request) => self.find_camera(request),
            Effect::Reply(request, reply) => self.reply(request, reply),
            Effect::Tell(line) => drop(self.reports.send(line)), // an error means that nobody watches
            Effect::Send(link, message) => self.send(link, Outgoing::Text(message)),
            Effect::SendPhoto(frame) => self.send(LinkId::Cloud, Outgoing::Binary(frame)),
            Effect::RememberUplink(bitrate) => {
                if let Some(network) = network::current() {
                    remember::keep_uplink(&self.config, network, bitrate);
                }
            }
            Effect::Remember(remembered) => self.keeper.keep(remembered.as_deref()),
        }
    }

    fn send(&self, link: LinkId, outgoing: Outgoing) {
        let queue = match link {
            LinkId::Cloud => &self.to_cloud,
            LinkId::Uart => &self.to_uart,
        };
        if queue.try_send(outgoing).is_err() {
            tracing::warn!("the link takes no more; message dropped");
        }
    }

    /// Reports the bitrate that this network carried before, if it is known.
    fn recall_uplink(&self, publisher: u32) {
        let known = network::current().and_then(|network| remember::uplink(&self.config, &network));
        if let Some(bitrate) = known {
            let _ = self.inputs.try_send(Input::Uplink(publisher, bitrate)); // only a start from further off is lost
        }
    }

    fn plan(&self, settings: CaptureSettings) -> impl Future<Output = Result<capture::Plan, Failure>> + use<> {
        let (config, encoders, light) = (self.config.clone(), self.encoders.clone(), self.board.light());
        let make = move || {
            plan::light_up(&config, light.as_deref())?;
            plan::make(&config, &encoders, &settings)
        };
        async move {
            tokio::task::spawn_blocking(make)
                .await
                .unwrap_or_else(|error| Err(Failure::new(Cause::Internal, error.to_string())))
        }
    }

    fn take_photo(&self, request: RequestId) {
        let running = self.captures.iter().max_by_key(|(generation, _)| **generation);
        let photo = running.map(|(_, capture)| capture.photo());
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let answer = match photo {
                Some(photo) => tokio::time::timeout(PHOTO_LIMIT, photo).await.ok().and_then(Result::ok),
                None => None,
            };
            let jpeg = answer.map_or_else(|| Err(Cause::CameraStalled.into()), |jpeg| jpeg.map_err(Into::into));
            let _ = inputs.send(Input::PhotoTaken(request, jpeg)).await; // the daemon may have ended
        });
    }

    fn find_camera(&self, request: RequestId) {
        let (config, inputs, light) = (self.config.clone(), self.inputs.clone(), self.board.light());
        tokio::task::spawn_blocking(move || {
            let found = plan::light_up(&config, light.as_deref()).and_then(|()| plan::device_for_lease(&config));
            let found = found.map_err(Into::into);
            let _ = inputs.blocking_send(Input::CameraFound(request, found)); // the daemon may have ended
        });
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        // A client that has gone takes no answer.
        let delivered = self.replies.remove(&request).is_some_and(|sender| sender.send(reply).is_ok());
        if !delivered {
            let inputs = self.inputs.clone();
            tokio::spawn(async move { inputs.send(Input::Undeliverable(request)).await });
        }
    }

    pub(super) fn prepare_next_encoder(&self, generation: u64) {
        let plan = self.captures.get(&generation).and_then(|capture| capture.shown().plan);
        if let Some(plan) = plan.filter(|plan| plan.video.profile.is_some()) {
            let (encoders, config) = (self.encoders.clone(), self.config.clone());
            tokio::task::spawn_blocking(move || {
                encoders.prepare_next(&config.encoder.profile, plan.video.encoder(), &plan.video.settings);
            });
        }
    }
}
