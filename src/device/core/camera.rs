//! The camera's other uses: photos, and leases of other processes; and whether the capture is needed.

use std::time::Duration;

use super::{CaptureSettings, Core, Effect, PHOTO_LIMIT};
use crate::media::capture;
use crate::policy::Time;
use crate::policy::arbiter::{Event as ArbiterEvent, LeaseId, RequestId};
use crate::policy::camera::{Action, Event};
use crate::policy::stream::Event as StreamEvent;
use crate::protocol::control::{Answer, Lease, Refusal, Reply};
use crate::protocol::{AudioSettings, CameraSnapshot, Cause, VideoSettings};

/// A photo that was granted.
#[derive(Debug)]
pub struct Photo {
    pub request: RequestId,
    /// None when it is taken from the running stream.
    pub lease: Option<LeaseId>,
    pub deadline: Time,
    /// Asked of the capture; else it waits for the capture to run.
    pub taking: bool,
}

/// The camera, given to another process.
#[derive(Debug)]
pub struct ProcessLease {
    pub request: RequestId,
    pub connection: u64,
    pub program: String,
    pub lease: LeaseId,
    /// The process knows it.
    pub given: bool,
    /// The device is being looked up for it.
    pub looking: bool,
}

impl Core {
    pub(super) fn begin_photo(&mut self, request: RequestId, lease: Option<LeaseId>, now: Time) {
        let deadline = now + PHOTO_LIMIT;
        self.photos.push(Photo { request, lease, deadline, taking: false });
        self.want_camera_anew();
        self.settle_camera(now);
        self.take_photos();
    }

    /// Starts the photos that a running capture allows.
    fn take_photos(&mut self) {
        if !self.capture.running {
            return;
        }
        for photo in self.photos.iter_mut().filter(|photo| !photo.taking) {
            photo.taking = true;
            self.effects.push(Effect::TakePhoto(photo.request));
        }
    }

    pub(super) fn photo_taken(&mut self, request: RequestId, jpeg: Result<Vec<u8>, Refusal>, now: Time) {
        let reply = jpeg.map(Answer::Photo);
        self.end_photos(now, |photo| photo.request == request, &reply);
    }

    pub(super) fn expire_photos(&mut self, now: Time) {
        // A camera that was tried again and again in vain has said why.
        let failure = self.camera.failure().cloned().unwrap_or(Cause::CameraStalled.into());
        self.end_photos(now, |photo| photo.deadline <= now, &Err(failure.into()));
    }

    fn end_photos(&mut self, now: Time, which: impl Fn(&Photo) -> bool, reply: &Reply) {
        let (ended, remaining): (Vec<_>, Vec<_>) = std::mem::take(&mut self.photos).into_iter().partition(which);
        self.photos = remaining;
        for photo in ended {
            match reply {
                Ok(_) => self.counts.photos += 1,
                Err(refusal) => self.counts.photos_failed.count(refusal.cause.name()),
            }
            self.reply(photo.request, reply.clone());
            if let Some(lease) = photo.lease {
                self.arbitrate(ArbiterEvent::Release { lease }, now);
            }
        }
    }

    pub(super) fn begin_process_lease(&mut self, request: RequestId, connection: u64, program: String, lease: LeaseId) {
        self.processes.push(ProcessLease { request, connection, program, lease, given: false, looking: false });
        self.give_process_leases();
    }

    /// The camera is handed over only once it is closed here.
    fn give_process_leases(&mut self) {
        if self.capture.open.is_some() {
            return;
        }
        for process in self.processes.iter_mut().filter(|process| !process.looking) {
            process.looking = true;
            self.effects.push(Effect::FindCamera(process.request));
        }
    }

    pub(super) fn camera_found(&mut self, request: RequestId, found: Result<String, Refusal>, now: Time) {
        let Some(process) = self.processes.iter_mut().find(|process| process.request == request) else { return };
        match found {
            Ok(device) => {
                process.given = true;
                let lease = Lease { lease: process.lease.0, device };
                tracing::info!(program = process.program, lease = lease.lease, "camera leased");
                self.reply(request, Ok(Answer::Lease(lease)));
            }
            Err(refusal) => {
                self.reply(request, Err(refusal));
                self.release_processes(now, |process| process.request == request);
            }
        }
    }

    pub(super) fn release_processes(&mut self, now: Time, which: impl Fn(&ProcessLease) -> bool) {
        let (ended, remaining): (Vec<_>, Vec<_>) = std::mem::take(&mut self.processes).into_iter().partition(which);
        self.processes = remaining;
        for process in ended {
            tracing::info!(program = process.program, lease = process.lease.0, "camera lease ended");
            self.arbitrate(ArbiterEvent::Release { lease: process.lease }, now);
        }
    }

    /// For somebody new: a camera that was given up is to be tried again. Not before, or a stream that ends because of
    /// that would open it in a loop.
    pub(super) fn want_camera_anew(&mut self) {
        self.capture.wanted &= self.camera.is_wanted();
    }

    /// What the capture is needed for decides whether it is open, and how.
    pub(super) fn settle_camera(&mut self, now: Time) {
        let needed = self.stream.as_ref().map(super::stream::Active::capture_settings).or_else(|| {
            (!self.photos.is_empty()).then(|| {
                let photo = CaptureSettings { video: VideoSettings::default(), audio: AudioSettings::default() };
                self.capture.open.clone().unwrap_or(photo)
            })
        });
        match needed {
            Some(settings) => {
                if self.capture.open.as_ref().is_some_and(|open| *open != settings) {
                    self.camera_policy(Event::Unwanted { linger: Duration::ZERO }, now);
                    self.capture.wanted = false;
                }
                if !self.capture.wanted {
                    self.capture.wanted = true;
                    self.camera_policy(Event::Wanted, now);
                }
            }
            // The camera is to be handed over: it closes at once, even if it lingered.
            None if !self.processes.is_empty() && self.capture.open.is_some() => {
                self.capture.wanted = false;
                self.camera_policy(Event::Unwanted { linger: Duration::ZERO }, now);
            }
            None if self.capture.wanted => {
                self.capture.wanted = false;
                let after_photo = !self.ending && self.capture.for_photo;
                let linger = if after_photo { self.settings.camera.photo_linger_s } else { 0 };
                self.camera_policy(Event::Unwanted { linger: Duration::from_secs(linger) }, now);
            }
            None => {}
        }
    }

    pub(super) fn camera_policy(&mut self, event: Event, now: Time) {
        for action in self.camera.on(event, now) {
            match action {
                Action::Open { generation } => {
                    let settings = self.stream.as_ref().map_or_else(
                        || CaptureSettings { video: VideoSettings::default(), audio: AudioSettings::default() },
                        super::stream::Active::capture_settings,
                    );
                    self.capture.for_photo = self.stream.is_none();
                    self.capture.generation = generation;
                    self.capture.running = false;
                    self.capture.open = Some(settings.clone());
                    // Where the rate stands, not where it began: the camera may have been lost meanwhile.
                    let bitrate = self.stream.as_ref().map_or(settings.video.bitrate, |s| s.rate.decision().bitrate);
                    let video = VideoSettings { bitrate, ..settings.video };
                    self.effects.push(Effect::OpenCapture(generation, CaptureSettings { video, ..settings }));
                }
                Action::Close { generation } => {
                    self.capture.running = false;
                    self.effects.push(Effect::CloseCapture(generation));
                }
                Action::Running => {
                    self.capture.running = true;
                    if let Some(what) = self.stream.as_ref().map(|stream| stream.rate.decision()) {
                        self.encode(what);
                    }
                    self.stream_event(StreamEvent::CameraRunning, now);
                    self.take_photos();
                }
                Action::Lost(failure) => {
                    self.capture.running = false;
                    self.stream_event(StreamEvent::CameraLost(failure), now);
                }
                Action::Failed(failure) => {
                    self.capture.running = false;
                    let refusal = failure.clone().into();
                    // Not those that are granted when the stream ends.
                    let failed: Vec<RequestId> = self.photos.iter().map(|photo| photo.request).collect();
                    self.stream_event(StreamEvent::CameraFailed(failure), now);
                    self.end_photos(now, |photo| failed.contains(&photo.request), &Err(refusal));
                }
            }
        }
    }

    pub(super) fn capture_event(&mut self, generation: u64, event: capture::Event, now: Time) {
        match event {
            capture::Event::Running => self.camera_policy(Event::Running { generation }, now),
            capture::Event::Lost(failure) => {
                let cause = failure.cause;
                self.counts.captures_lost.count(cause.name());
                if matches!(cause, Cause::EncoderFailed | Cause::EncoderStalled) {
                    self.effects.push(Effect::DistrustEncoder(failure.clone()));
                }
                self.camera_policy(Event::Lost { generation, failure }, now);
            }
            // The camera is in use until it is closed all the same.
            capture::Event::LeftBehind => {}
            capture::Event::Closed => {
                if generation == self.capture.generation {
                    self.capture.open = None;
                    self.capture.running = false;
                }
                self.camera_policy(Event::Closed { generation }, now);
                self.give_process_leases();
            }
        }
    }

    pub(super) fn camera_snapshot(&self) -> CameraSnapshot {
        let (state, failure) = (self.camera.state(), self.camera.failure().cloned());
        CameraSnapshot { state, failure, generation: self.camera.generation(), ..CameraSnapshot::default() }
    }
}
