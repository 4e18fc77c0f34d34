//! Only those of GStreamer's plugins that are used here.
//!
//! GStreamer keeps what it knows of every installed plugin in memory: 2.2 MB for the 260 of a Debian with all packages, more than
//! the rest of an idle daemon has of its own. Its `GST_PLUGIN_LOADING_WHITELIST` leaves out whatever is not named in it. What
//! was left out stays so in the cached registry, which other programs would then miss; so each list has a registry of its
//! own.

#![allow(unsafe_code, reason = "GStreamer is told by environment variables")]

use std::hash::{DefaultHasher, Hash, Hasher};

use gstreamer::glib;

use super::profile::Profile;

/// Those of the elements that the modules beside this one make; some have been one plugin since GStreamer 1.22 and were two
/// before.
const USED: [&str; 23] = [
    "staticelements",
    "coreelements",
    "app",
    "video4linux2",
    "videotestsrc",
    "jpeg",
    "videoconvertscale",
    "videoconvert",
    "videoscale",
    "videorate",
    "videocrop",
    "videofilter",
    "videoparsersbad",
    "alsa",
    "audiotestsrc",
    "audioconvert",
    "audioresample",
    "audioparsers",
    "voaacenc",
    "fdkaac",
    "libav",
    "openh264",
    "rtmp2",
];

/// Restricts GStreamer, which is not initialised yet, to the plugins of these profiles and the pipelines here. All of them
/// remain if a profile does not say which its are in, or the user has restricted it otherwise.
///
/// # Safety
/// No other thread may read the environment meanwhile.
pub unsafe fn restrict(profiles: &[Profile]) {
    const LIST: &str = "GST_PLUGIN_LOADING_WHITELIST";
    const REGISTRY: &str = "GST_REGISTRY";
    let restricted = [LIST, REGISTRY, "GST_REGISTRY_1_0"].iter().any(|name| std::env::var_os(name).is_some());
    let Some(list) = list(profiles).filter(|_| !restricted) else { return };
    let mut hasher = DefaultHasher::new();
    list.hash(&mut hasher);
    let registry = format!("lenscast-{}-{:016x}.bin", std::env::consts::ARCH, hasher.finish());
    // SAFETY: as promised by the caller.
    unsafe {
        std::env::set_var(LIST, list);
        std::env::set_var(REGISTRY, glib::user_cache_dir().join("gstreamer-1.0").join(registry));
    }
}

/// As GStreamer reads it; none when it is not known which plugins are needed.
fn list(profiles: &[Profile]) -> Option<String> {
    let mut names = USED.to_vec();
    for profile in profiles {
        names.extend(profile.plugins.iter().map(String::as_str));
    }
    names.sort_unstable();
    names.dedup();
    profiles.iter().all(|profile| !profile.plugins.is_empty()).then(|| names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::profile;

    #[test]
    fn the_built_in_profiles_say_which_plugins_they_need() {
        let profiles = profile::load(&[]).unwrap();
        let list = list(&profiles).unwrap();
        for name in ["va", "x264", "rockchipmpp", "rtmp2"] {
            assert!(list.split(',').any(|other| other == name), "{list}");
        }
    }

    #[test]
    fn a_profile_that_does_not_say_needs_all() {
        let mut profiles = profile::load(&[]).unwrap();
        profiles[0].plugins.clear();
        assert_eq!(list(&profiles), None);
    }
}
