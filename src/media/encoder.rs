//! Encoders, chosen by trial: a profile counts only after it has encoded pictures to H.264 on this machine.

mod trial;

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use gstreamer::{self as gst, prelude::*};
use gstreamer_video::{UpstreamForceKeyUnitEvent, VideoCapsBuilder, VideoFormat};

use super::failure::element_name;
use super::pipeline;
use super::profile::{Bitrate, Profile, Setting, h264_level};
use crate::camera::{Choice, v4l2};
use crate::protocol::{Cause, Failure, VideoSettings};

pub use trial::Trial;
use trial::try_out;

/// Limit for one trial: even three that hang are over before an opening of the camera takes too long
/// (`policy::health`).
const TRIAL_LIMIT: Duration = Duration::from_secs(8);
/// `V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME`: the next picture is to be a key frame.
const CID_FORCE_KEY_FRAME: u32 = 0x0099_09e5;
/// Key frames are one second apart, so that whoever joins or returns waits no longer.
const KEY_FRAMES_PER_SECOND: u32 = 1;

/// The encoders of this board: their profiles, and trial results so far.
#[derive(Debug)]
pub struct Encoders {
    profiles: Vec<Profile>,
    trials: Arc<Mutex<Trials>>,
    failed_in_use: Mutex<HashSet<TrialKey>>,
    /// Threads of trials that exceeded their limit, by profile.
    overrun: Mutex<HashMap<String, JoinHandle<()>>>,
    /// There may be new elements that GStreamer does not know of yet.
    hardware_changed: AtomicBool,
}

type Trials = HashMap<TrialKey, Result<Trial, Failure>>;

/// Profile name, and the size for hardware, which has limits; software works at any size.
type TrialKey = (String, Option<(u32, u32)>);

impl Encoders {
    /// The encoders of these profiles, in this order.
    pub fn new(profiles: Vec<Profile>) -> Self {
        Self {
            profiles,
            trials: Arc::default(),
            failed_in_use: Mutex::default(),
            overrun: Mutex::default(),
            hardware_changed: false.into(),
        }
    }

    /// The first profile that works with these settings; `wanted` is `auto` or a profile's name. Blocks while it runs
    /// the trials not yet made. If only profiles that failed in use are left, they get another chance: a hang may be
    /// over, and there is nothing else to try.
    ///
    /// # Errors
    /// [`Cause::EncoderFailed`] with the reason of each profile.
    pub fn choose(&self, wanted: &str, settings: &VideoSettings) -> Result<Profile, Failure> {
        self.first_that_works(wanted, settings).or_else(|failure| {
            let pardoned: Vec<_> = self.failed_in_use().drain().collect();
            if pardoned.is_empty() {
                return Err(failure);
            }
            self.trials().retain(|key, _| !pardoned.contains(key));
            self.first_that_works(wanted, settings)
        })
    }

    fn first_that_works(&self, wanted: &str, settings: &VideoSettings) -> Result<Profile, Failure> {
        let mut complaints = Vec::new();
        for profile in self.profiles.iter().filter(|profile| wanted == "auto" || profile.name == wanted) {
            match self.trial(profile, settings) {
                Ok(_) => return Ok(profile.clone()),
                Err(failure) => complaints.push(format!("{}: {}", profile.name, failure.detail)),
            }
        }
        if complaints.is_empty() {
            complaints.push(format!("there is no encoder profile {wanted:?}"));
        }
        Err(Failure::new(Cause::EncoderFailed, complaints.join("; ")))
    }

    /// Tries the hardware encoders before anybody waits for them. Software is quick to try when needed, and takes
    /// memory that an idle daemon should not hold.
    pub fn warm_up(&self, wanted: &str, settings: &VideoSettings) {
        for profile in self.profiles.iter().filter(|profile| profile.hardware) {
            if (wanted == "auto" || profile.name == wanted) && self.trial(profile, settings).is_ok() {
                return;
            }
        }
    }

    /// Tries the profiles after `present` until one works, while `present` still does. A server that gets nothing
    /// drops its publisher after seconds, so a stream whose encoder has failed has no time for trials.
    pub fn prepare_next(&self, wanted: &str, present: &str, settings: &VideoSettings) {
        if wanted == "auto" {
            let behind = self.profiles.iter().skip_while(|profile| profile.name != present).skip(1);
            behind.take_while(|profile| self.trial(profile, settings).is_err()).for_each(drop);
        }
    }

    /// The trial result of each profile, for `doctor`.
    pub fn survey(&self, settings: &VideoSettings) -> Vec<(Profile, Result<Trial, Failure>)> {
        self.profiles.iter().map(|profile| (profile.clone(), self.trial(profile, settings))).collect()
    }

    /// Records that a profile failed in use, so that the next one takes over.
    pub fn distrust(&self, name: &str, settings: &VideoSettings, failure: &Failure) {
        if let Some(profile) = self.profiles.iter().find(|profile| profile.name == name) {
            let key = key(profile, settings);
            self.trials().insert(key.clone(), Err(failure.clone()));
            self.failed_in_use().insert(key);
        }
    }

    /// Whether the chosen profile's encoder takes this camera's buffers without a copy. Blocks for some milliseconds;
    /// the camera must be closed.
    pub fn takes_buffers_of(
        &self,
        camera: &Path,
        choice: &Choice,
        profile: &Profile,
        settings: &VideoSettings,
    ) -> bool {
        let trial = self.trials().get(&key(profile, settings)).cloned();
        let Some(Ok(Trial { device: Some(encoder), .. })) = trial else { return false };
        let Some(fourcc) = choice.mode.format.fourcc() else { return false };
        let outcome = v4l2::try_sharing(camera, &encoder, fourcc, (choice.mode.width, choice.mode.height));
        tracing::info!(?camera, ?encoder, mode = %choice.mode, ?outcome, "tried to share buffers");
        outcome.is_ok()
    }

    /// Forgets failures: hardware came or went, so what failed may work now.
    pub fn forget_failures(&self) {
        self.trials().retain(|_, trial| trial.is_ok());
        self.failed_in_use().clear();
        self.hardware_changed.store(true, Ordering::Relaxed);
    }

    fn trial(&self, profile: &Profile, settings: &VideoSettings) -> Result<Trial, Failure> {
        let key = key(profile, settings);
        if let Some(known) = self.trials().get(&key) {
            return known.clone();
        }
        if profile.hardware && self.hardware_changed.swap(false, Ordering::Relaxed) {
            self.look_for_elements();
        }
        let result = self.try_in_time(profile, settings);
        match &result {
            Ok(trial) => tracing::info!(profile = profile.name, ?trial, "encoder works"),
            Err(failure) => tracing::info!(profile = profile.name, reason = failure.detail, "encoder does not work"),
        }
        result
    }

    /// Tries a profile on a separate thread, since a driver may never return from opening or closing its device.
    /// Nobody can end such a thread; its profile fails without another trial while the thread hangs, and a late result
    /// counts the next time.
    fn try_in_time(&self, profile: &Profile, settings: &VideoSettings) -> Result<Trial, Failure> {
        let failed = |why: String| Failure::new(Cause::EncoderFailed, why);
        if self.overrun().get(&profile.name).is_some_and(|thread| !thread.is_finished()) {
            return Err(failed("an earlier trial still hangs in its driver".into()));
        }
        let (outcome, waiting) = mpsc::sync_channel(1);
        let (tried, settings, trials) = (profile.clone(), *settings, self.trials.clone());
        let thread = std::thread::Builder::new()
            .name("encoder-trial".into())
            .spawn(move || {
                let result = try_out(&tried, &settings);
                trials.lock().unwrap_or_else(PoisonError::into_inner).insert(key(&tried, &settings), result.clone());
                let _ = outcome.send(result); // nobody waits for one that overran
            })
            .map_err(|error| failed(format!("cannot start a thread for its trial: {error}")))?;
        waiting.recv_timeout(TRIAL_LIMIT).unwrap_or_else(|error| {
            self.overrun().insert(profile.name.clone(), thread);
            Err(failed(format!("its trial gave no result within {TRIAL_LIMIT:?}: {error}")))
        })
    }

    /// A plugin registers elements for the devices present when it is loaded; until then GStreamer believes what an
    /// earlier process saw. At boot the encoder's driver may come after the daemon.
    fn look_for_elements(&self) {
        for name in self.profiles.iter().filter(|profile| profile.hardware).flat_map(|profile| &profile.plugins) {
            // Most of these plugins are not on this board.
            let _ = gst::Plugin::load_by_name(name);
        }
    }

    fn failed_in_use(&self) -> std::sync::MutexGuard<'_, HashSet<TrialKey>> {
        self.failed_in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overrun(&self) -> std::sync::MutexGuard<'_, HashMap<String, JoinHandle<()>>> {
        self.overrun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trials(&self) -> std::sync::MutexGuard<'_, Trials> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(profile: &Profile, settings: &VideoSettings) -> TrialKey {
    (profile.name.clone(), profile.hardware.then_some((settings.width, settings.height)))
}

/// An encoder with its settings applied.
#[derive(Debug)]
pub struct Encoder {
    /// The encoder element.
    pub element: gst::Element,
    /// The caps to filter its output by.
    pub caps: gst::Caps,
    bitrate: Bitrate,
}

impl Encoder {
    /// The encoder of a profile for these settings.
    pub fn build(profile: &Profile, settings: &VideoSettings) -> Result<Self, Failure> {
        let factory = find_element(&profile.elements).ok_or_else(|| {
            Failure::new(Cause::EncoderFailed, format!("no element {} here", profile.elements.join(" or ")))
        })?;
        let element = pipeline::element(&factory, Some(element_name::ENCODER))?;
        for (name, value) in &profile.properties {
            pipeline::set_property(&element, name, value)?;
        }
        let mut controls = profile.v4l2_controls.clone();
        match &profile.bitrate {
            Bitrate::Property { property, unit } => {
                pipeline::set_property(&element, property, &unit.of(settings.bitrate).to_string())?;
            }
            Bitrate::V4l2Control { v4l2_control } => {
                controls.insert(v4l2_control.clone(), settings.bitrate.into());
            }
            Bitrate::Fixed { .. } => {}
        }
        let interval = (settings.frame_rate / KEY_FRAMES_PER_SECOND).max(1);
        match &profile.key_frame_interval {
            Setting::Property { property } => pipeline::set_property(&element, property, &interval.to_string())?,
            Setting::V4l2Control { v4l2_control } => {
                controls.insert(v4l2_control.clone(), interval.into());
            }
        }
        if !controls.is_empty() {
            let mut extra = gst::Structure::new_empty("controls");
            for (name, value) in controls {
                extra.set(name, value as i32);
            }
            element.set_property("extra-controls", extra);
        }
        let mut caps = VideoCapsBuilder::for_encoding("video/x-h264").field("profile", &profile.h264_profile);
        if profile.level_in_caps {
            caps = caps.field("level", h264_level(settings.width, settings.height, settings.frame_rate));
        }
        Ok(Self { element, caps: caps.build(), bitrate: profile.bitrate.clone() })
    }

    /// The element, which must be set to NULL before the rest of its pipeline.
    ///
    /// GStreamer 1.22 leaks a V4L2 encoder, with its device and four sockets, when its thread restarts while pictures
    /// come from a pool that is already active. A pipeline shuts down from its sink: the elements behind the encoder
    /// end the encoder's thread, and one more picture from the camera would restart it.
    pub fn ends_first(self) -> gst::Element {
        self.element
    }

    /// Changes the bitrate, bit/s, while it encodes.
    ///
    /// # Errors
    /// The reason in words, when this encoder cannot.
    pub fn set_bitrate(&self, bitrate: u32) -> Result<(), String> {
        match &self.bitrate {
            Bitrate::Property { property, unit } => {
                pipeline::set_property(&self.element, property, &unit.of(bitrate).to_string())
                    .map_err(|failure| failure.detail)
            }
            Bitrate::V4l2Control { .. } => set_v4l2_control(&self.element, v4l2::CID_VIDEO_BITRATE, bitrate as i32),
            Bitrate::Fixed { .. } => Err("this encoder's bitrate cannot be changed".into()),
        }
    }

    /// What asks it for a key frame, for as long as it is there.
    pub fn key_frame_request(&self) -> impl Fn() + Send + Sync + 'static {
        let element = self.element.downgrade();
        let by_control = matches!(self.bitrate, Bitrate::V4l2Control { .. });
        move || {
            let Some(element) = element.upgrade() else { return };
            // GStreamer 1.22 does not hand the event on to V4L2 encoders. Not all of those know the control: then the next
            // key frame is the one that is due anyway.
            if by_control && let Err(reason) = set_v4l2_control(&element, CID_FORCE_KEY_FRAME, 1) {
                tracing::debug!(reason, "no key frame on request");
            }
            element.send_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    }
}

/// Sets a control of an encoder that runs.
#[expect(unsafe_code, reason = "an element lends its descriptor as a number")]
fn set_v4l2_control(element: &gst::Element, control: u32, value: i32) -> Result<(), String> {
    let descriptor: i32 = element.property("device-fd");
    if descriptor < 0 {
        return Err("the encoder's device is not open".into());
    }
    // SAFETY: the element keeps its device open while it encodes, and is kept here through the call.
    let device = unsafe { BorrowedFd::borrow_raw(descriptor) };
    v4l2::set_control(device, control, value).map_err(|error| error.to_string())
}

/// Whether this machine has an element of the profile, working or not.
pub fn is_here(profile: &Profile) -> bool {
    find_element(&profile.elements).is_some()
}

fn find_element(patterns: &[String]) -> Option<String> {
    patterns.iter().find_map(|pattern| match pattern.split_once('*') {
        None => gst::ElementFactory::find(pattern).map(|_| pattern.clone()),
        Some((prefix, suffix)) => gst::Registry::get()
            .features(gst::ElementFactory::static_type())
            .into_iter()
            .map(|feature| feature.name().to_string())
            .find(|name| name.starts_with(prefix) && name.ends_with(suffix)),
    })
}

/// Caps of the raw pictures that the encoder takes. Formats that only a later GStreamer knows are left out.
///
/// # Errors
/// When no format is left.
pub fn raw_caps(formats: &[String], settings: &VideoSettings, rate: gst::Fraction) -> Result<gst::Caps, Failure> {
    let known: Vec<_> = formats.iter().filter_map(|name| name.parse::<VideoFormat>().ok()).collect();
    if known.is_empty() {
        let detail = format!("GStreamer knows none of the encoder's raw formats: {}", formats.join(", "));
        return Err(Failure::new(Cause::EncoderFailed, detail));
    }
    let caps = VideoCapsBuilder::for_encoding("video/x-raw")
        .format_list(known)
        .width(settings.width as i32)
        .height(settings.height as i32)
        .framerate(rate)
        .pixel_aspect_ratio(gst::Fraction::new(1, 1));
    Ok(caps.build())
}

/// Caps of H.264 as the feed carries it.
pub fn avc_caps() -> gst::Caps {
    VideoCapsBuilder::for_encoding("video/x-h264").field("stream-format", "avc").field("alignment", "au").build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::profile;

    fn encoders() -> Encoders {
        crate::media::init().unwrap();
        Encoders::new(profile::load(&[]).unwrap())
    }

    fn settings() -> VideoSettings {
        VideoSettings { width: 320, height: 240, frame_rate: 30, bitrate: 500_000 }
    }

    #[test]
    fn software_encoders_pass_their_trials() {
        let encoders = encoders();
        for name in ["x264", "openh264"] {
            let chosen = encoders.choose(name, &settings()).unwrap();
            assert_eq!(chosen.name, name);
        }
        let survey = encoders.survey(&settings());
        let x264 = survey.iter().find(|(profile, _)| profile.name == "x264").unwrap();
        let trial = x264.1.as_ref().unwrap();
        assert_eq!(trial.profile_and_level.0, 66, "baseline");
        assert!(trial.bitrate.0 < 2 * trial.bitrate.1, "bitrate not obeyed: {trial:?}");
    }

    #[test]
    fn one_that_failed_in_use_is_passed_over_until_hardware_changes() {
        let encoders = encoders();
        encoders.distrust("x264", &settings(), &Failure::new(Cause::EncoderStalled, "hangs"));
        assert_ne!(encoders.choose("auto", &settings()).unwrap().name, "x264");
        encoders.forget_failures();
        assert_eq!(encoders.choose("auto", &settings()).unwrap().name, "x264");
    }

    #[test]
    fn when_all_failed_in_use_they_are_tried_again() {
        let encoders = encoders();
        for name in ["x264", "openh264"] {
            encoders.distrust(name, &settings(), &Failure::new(Cause::EncoderStalled, "hangs"));
        }
        assert_eq!(encoders.choose("auto", &settings()).unwrap().name, "x264");
    }

    /// x264, which in its second pass reads the first one's statistics, from a pipe that nobody writes to: opening it
    /// hangs, and so does ending the pipeline.
    #[test]
    fn one_whose_trial_never_ends_gives_way_to_the_next() {
        crate::media::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("statistics");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut profiles = profile::load(&[]).unwrap();
        profiles.retain(|profile| profile.name == "x264");
        let mut hangs = Profile { name: "hangs".into(), ..profiles[0].clone() };
        hangs.properties.insert("pass".into(), "pass2".into());
        hangs.properties.insert("multipass-cache-file".into(), pipe.to_str().unwrap().into());
        profiles.insert(0, hangs);
        let encoders = Encoders::new(profiles);

        let begun = std::time::Instant::now();
        assert_eq!(encoders.choose("auto", &settings()).unwrap().name, "x264");
        assert!(begun.elapsed() >= TRIAL_LIMIT, "it did not hang: {:?}", encoders.survey(&settings()));
        encoders.forget_failures();
        let begun = std::time::Instant::now();
        assert_eq!(encoders.choose("auto", &settings()).unwrap().name, "x264");
        assert!(begun.elapsed() < TRIAL_LIMIT, "another one was left to hang");

        std::fs::write(&pipe, "").unwrap(); // lets it go
    }

    #[test]
    fn a_raw_format_that_gstreamer_does_not_know_is_left_out_or_named() {
        crate::media::init().unwrap();
        let rate = gst::Fraction::new(30, 1);
        let caps = raw_caps(&["NV99".into(), "NV12".into()], &settings(), rate).unwrap();
        let format: gst::List = caps.structure(0).unwrap().get("format").unwrap();
        assert_eq!(format.iter().map(|name| name.get::<&str>().unwrap()).collect::<Vec<_>>(), ["NV12"]);
        let failure = raw_caps(&["NV99".into()], &settings(), rate).unwrap_err();
        assert!(failure.detail.contains("NV99"), "{failure}");
    }

    #[test]
    fn an_unknown_profile_is_named() {
        let error = encoders().choose("nvidia", &settings()).unwrap_err();
        assert_eq!(error.cause, Cause::EncoderFailed);
        assert!(error.detail.contains("nvidia"));
    }
}
