//! Loads only those GStreamer plugins that are used here.
//!
//! GStreamer keeps data on every installed plugin in memory: 2.2 MB for the 260 of a Debian with all packages, more
//! than the rest of an idle daemon. Its `GST_PLUGIN_LOADING_WHITELIST` leaves out every plugin it does not name. A
//! plugin left out is also missing from the cached registry, for other programs too; so each list has its own
//! registry.

#![allow(unsafe_code, reason = "GStreamer is told by environment variables")]

use std::hash::{DefaultHasher, Hash, Hasher};

use gstreamer::glib;

use super::profile::Profile;

/// Plugins with the elements that the other modules here make. Some of these plugins were two before GStreamer 1.22.
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

/// Restricts GStreamer, before it is initialised, to the plugins of these profiles and of the pipelines here. Does
/// nothing if a profile does not name its plugins, or if the user has set a restriction.
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
    // SAFETY: the caller promises it.
    unsafe {
        std::env::set_var(LIST, list);
        std::env::set_var(REGISTRY, glib::user_cache_dir().join("gstreamer-1.0").join(registry));
    }
}

/// The list in GStreamer's syntax; `None` if the plugins needed are not known.
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
