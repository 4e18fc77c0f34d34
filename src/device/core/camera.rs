//! The camera: when its capture is open, the photos that wait for it, and the processes that it is lent to.

use std::time::Duration;

use super::{Effect, Outbox};
use crate::media::capture;
use crate::policy::Time;
use crate::policy::arbiter::{LeaseId, RequestId};
use crate::policy::bitrate::Decision;
use crate::policy::camera::{self as policy, CameraAction, CameraEvent, CaptureSettings, Holder, Need};
use crate::protocol::control::{Answer, Lease, Refusal, Reply};
use crate::protocol::{CameraSnapshot, Cause, Failure, VideoSettings};

/// How long a photo may take in all, the opening of the camera included.
pub const PHOTO_LIMIT: Duration = Duration::from_secs(5);

/// What a stream needs of the camera.
#[derive(Clone, Copy, Debug)]
pub struct StreamNeed {
    pub lease: LeaseId,
    pub settings: CaptureSettings,
    /// Where its rate stands, bit/s of video: not where it began, for the camera may be opened anew amidst the stream.
    pub bitrate: u32,
}

/// What others are to know.
#[derive(Debug)]
pub enum CameraOutcome {
    /// Encoded frames arrive.
    Running,
    /// They do not, and the camera is being tried again.
    Lost(Failure),
    /// Who needs it cannot have it.
    Failed(Failure),
    /// A photo is answered.
    Photo(RequestId, Reply),
    /// A lease is over.
    Released(LeaseId),
}

/// A photo that was granted.
#[derive(Debug)]
struct Photo {
    request: RequestId,
    /// Its own, or the running stream's.
    lease: LeaseId,
    joined: bool,
    deadline: Time,
    /// Asked of the capture; else it waits for the capture to run.
    taking: bool,
}

/// The camera, given to another process.
#[derive(Debug)]
struct ProcessLease {
    request: RequestId,
    connection: u64,
    program: String,
    lease: LeaseId,
    /// The device is being looked up for it.
    looking: bool,
}

/// The camera and its users beside the stream.
#[derive(Debug)]
pub struct Camera {
    life: policy::Camera,
    photo_linger: Duration,
    /// Of the stream that needs it.
    bitrate: Option<u32>,
    photos: Vec<Photo>,
    processes: Vec<ProcessLease>,
}

impl Camera {
    /// `photo_linger`: how long it stays open after a photo.
    pub fn new(photo_linger: Duration) -> Self {
        Self { life: policy::Camera::new(), photo_linger, bitrate: None, photos: Vec::new(), processes: Vec::new() }
    }

    /// Brings the capture in line with who needs it: the stream, else photos, else nobody. `ending`: it is not to linger.
    pub fn settle(
        &mut self,
        stream: Option<StreamNeed>,
        ending: bool,
        now: Time,
        out: &mut Outbox,
    ) -> Vec<CameraOutcome> {
        self.bitrate = stream.map(|stream| stream.bitrate);
        let need = if let Some(StreamNeed { lease, settings, .. }) = stream {
            Need::Holder(Holder { lease, settings: Some(settings), linger: Duration::ZERO })
        } else if let Some(photo) = self.photos.first() {
            Need::Holder(Holder { lease: photo.lease, settings: None, linger: self.photo_linger })
        } else if ending || !self.processes.is_empty() {
            Need::Closed
        } else {
            Need::Nobody
        };
        self.on(CameraEvent::Needed(need), now, out)
    }

    /// The capture of this generation says something.
    pub fn capture(
        &mut self,
        generation: u64,
        event: capture::CaptureEvent,
        now: Time,
        out: &mut Outbox,
    ) -> Vec<CameraOutcome> {
        match event {
            capture::CaptureEvent::Running => self.on(CameraEvent::Running { generation }, now, out),
            capture::CaptureEvent::Lost(failure) => {
                let cause = failure.cause;
                out.counts.captures_lost.count(cause.name());
                if matches!(cause, Cause::EncoderFailed | Cause::EncoderStalled) {
                    out.push(Effect::DistrustEncoder(failure.clone()));
                }
                self.on(CameraEvent::Lost { generation, failure }, now, out)
            }
            // The camera is in use until it is closed all the same.
            capture::CaptureEvent::LeftBehind => Vec::new(),
            capture::CaptureEvent::Closed => {
                let outcomes = self.on(CameraEvent::Closed { generation }, now, out);
                self.give_process_leases(out);
                outcomes
            }
        }
    }

    pub fn devices_changed(&mut self, now: Time, out: &mut Outbox) -> Vec<CameraOutcome> {
        self.on(CameraEvent::DevicesChanged, now, out)
    }

    pub fn tick(&mut self, now: Time, out: &mut Outbox) -> Vec<CameraOutcome> {
        let mut outcomes = self.on(CameraEvent::Tick, now, out);
        // A camera that was tried again and again in vain has said why.
        let failure = self.life.failure().cloned().unwrap_or(Cause::CameraStalled.into());
        outcomes.extend(self.end_photos(|photo| photo.deadline <= now, &Err(failure.into()), out));
        outcomes
    }

    /// When [`Camera::tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        self.photos.iter().map(|photo| photo.deadline).chain(self.life.deadline()).min()
    }

    /// Tells the encoder what to make, if one runs.
    pub fn encode(&self, what: Decision, out: &mut Outbox) {
        if self.life.is_open() {
            out.push(Effect::Encode(self.life.generation(), what));
        }
    }

    /// Whether a capture is open, or not closed yet.
    pub fn is_open(&self) -> bool {
        self.life.is_open()
    }

    /// Whether anybody uses the camera or is about to.
    pub fn in_use(&self) -> bool {
        self.life.is_open() || self.life.is_wanted() || !self.processes.is_empty()
    }

    pub fn snapshot(&self) -> CameraSnapshot {
        let (state, failure) = (self.life.state(), self.life.failure().cloned());
        CameraSnapshot { state, failure, generation: self.life.generation(), ..CameraSnapshot::default() }
    }

    /// A photo was granted: by a lease of its own, or, `joined`, from the stream that has this one.
    pub fn begin_photo(&mut self, request: RequestId, lease: LeaseId, joined: bool, now: Time, out: &mut Outbox) {
        self.photos.push(Photo { request, lease, joined, deadline: now + PHOTO_LIMIT, taking: false });
        self.take_photos(out);
    }

    pub fn photo_taken(
        &mut self,
        request: RequestId,
        jpeg: Result<Vec<u8>, Refusal>,
        out: &mut Outbox,
    ) -> Vec<CameraOutcome> {
        self.end_photos(|photo| photo.request == request, &jpeg.map(Answer::Photo), out)
    }

    /// Refuses all photos that are not taken yet.
    pub fn refuse_photos(&mut self, refusal: Refusal, out: &mut Outbox) -> Vec<CameraOutcome> {
        self.end_photos(|_| true, &Err(refusal), out)
    }

    /// The camera was granted to a process, which gets it once it is closed here.
    pub fn begin_process_lease(
        &mut self,
        request: RequestId,
        connection: u64,
        program: String,
        lease: LeaseId,
        out: &mut Outbox,
    ) {
        self.processes.push(ProcessLease { request, connection, program, lease, looking: false });
        self.give_process_leases(out);
    }

    /// The device for a process is known, or why there is none.
    pub fn found(
        &mut self,
        request: RequestId,
        found: Result<String, Refusal>,
        out: &mut Outbox,
    ) -> Vec<CameraOutcome> {
        let Some(process) = self.processes.iter().find(|process| process.request == request) else {
            return Vec::new();
        };
        match found {
            Ok(device) => {
                let lease = Lease { lease: process.lease.0, device };
                tracing::info!(program = process.program, lease = lease.lease, "camera leased");
                out.reply(request, Ok(Answer::Lease(lease)));
                Vec::new()
            }
            Err(refusal) => {
                out.reply(request, Err(refusal));
                self.take_back(request)
            }
        }
    }

    /// Whoever was lent the camera by this request never heard of it.
    pub fn take_back(&mut self, request: RequestId) -> Vec<CameraOutcome> {
        self.release_processes(|process| process.request == request)
    }

    /// This client of the control socket gives back what it was lent.
    pub fn release(&mut self, connection: u64) -> Vec<CameraOutcome> {
        self.release_processes(|process| process.connection == connection)
    }

    fn release_processes(&mut self, which: impl Fn(&ProcessLease) -> bool) -> Vec<CameraOutcome> {
        let ended = self.processes.extract_if(.., |process| which(process));
        ended
            .map(|process| {
                tracing::info!(program = process.program, lease = process.lease.0, "camera lease ended");
                CameraOutcome::Released(process.lease)
            })
            .collect()
    }

    /// A device has one user: processes get it once it is closed here.
    fn give_process_leases(&mut self, out: &mut Outbox) {
        if self.life.is_open() {
            return;
        }
        for process in self.processes.iter_mut().filter(|process| !process.looking) {
            process.looking = true;
            out.push(Effect::FindCamera(process.request));
        }
    }

    /// Starts the photos that a running capture allows.
    fn take_photos(&mut self, out: &mut Outbox) {
        if !self.life.is_running() {
            return;
        }
        for photo in self.photos.iter_mut().filter(|photo| !photo.taking) {
            photo.taking = true;
            out.push(Effect::TakePhoto(photo.request));
        }
    }

    fn end_photos(&mut self, which: impl Fn(&Photo) -> bool, reply: &Reply, out: &mut Outbox) -> Vec<CameraOutcome> {
        let mut outcomes = Vec::new();
        for photo in self.photos.extract_if(.., |photo| which(photo)) {
            match reply {
                Ok(_) => out.counts.photos += 1,
                Err(refusal) => out.counts.photos_failed.count(refusal.cause.name()),
            }
            outcomes.push(CameraOutcome::Photo(photo.request, reply.clone()));
            if !photo.joined {
                outcomes.push(CameraOutcome::Released(photo.lease));
            }
        }
        outcomes
    }

    fn on(&mut self, event: CameraEvent, now: Time, out: &mut Outbox) -> Vec<CameraOutcome> {
        let mut outcomes = Vec::new();
        for action in self.life.on(event, now) {
            match action {
                CameraAction::Open { generation, settings } => {
                    let bitrate = self.bitrate.unwrap_or(settings.video.bitrate);
                    let video = VideoSettings { bitrate, ..settings.video };
                    out.push(Effect::OpenCapture(generation, CaptureSettings { video, ..settings }));
                }
                CameraAction::Close { generation } => out.push(Effect::CloseCapture(generation)),
                CameraAction::Running => {
                    outcomes.push(CameraOutcome::Running);
                    self.take_photos(out);
                }
                CameraAction::Lost(failure) => outcomes.push(CameraOutcome::Lost(failure)),
                CameraAction::Failed(failure) => {
                    outcomes.push(CameraOutcome::Failed(failure.clone()));
                    outcomes.extend(self.end_photos(|_| true, &Err(failure.into()), out));
                }
            }
        }
        outcomes
    }
}
