//! GStreamer: the capture pipelines, the encoders, the gate and the publishers. The only module that uses it.
//!
//! ```text
//! capture, alive as long as anybody needs the camera                     publisher, one per attempt
//! v4l2src|test ─ (decode) ─ convert ─ tee ─ encoder ─ h264parse ─ appsink ══╗
//!                                      └─ valve ─ jpegenc ─ appsink (photo) ╠═ feed ═ gate ═ FLV tags ─ appsrc ─ rtmp2sink
//! alsasrc|test ─ convert ─ AAC encoder ─ aacparse ─ appsink ════════════════╝
//! ```
//!
//! Both capture pipelines run on the monotonic system clock with base time 0, so a buffer's timestamp *is* the clock's
//! time: pictures and sound stay in step even when one pipeline is rebuilt.

pub mod audio;
pub mod capture;
pub mod chime;
pub mod encoder;
pub mod exam;
pub mod failure;
pub mod feed;
pub mod flv;
pub mod gate;
mod log;
mod memory;
#[cfg(feature = "cloud")]
pub mod opus;
mod photo;
mod pipeline;
mod plugins;
pub mod profile;
pub mod publisher;
mod sequence;
pub mod socket;
pub mod source;
#[cfg(feature = "cloud")]
pub mod still;
mod transit;
pub mod video;

use std::path::Path;
use std::sync::OnceLock;

use gio::prelude::*;
use profile::Profile;

/// Initialises GStreamer once, with all its plugins; later calls return the first outcome.
///
/// # Errors
/// The reason in words, when GStreamer is unusable.
pub fn init() -> Result<(), String> {
    init_for(None)
}

/// Like [`init`], with only the plugins that the pipelines here and the encoders of these profiles need.
///
/// # Errors
/// As for [`init`].
pub fn init_with(profiles: &[Profile]) -> Result<(), String> {
    init_for(Some(profiles))
}

#[expect(unsafe_code, reason = "GStreamer is told by environment variables")]
fn init_for(profiles: Option<&[Profile]>) -> Result<(), String> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| {
        memory::share();
        // GStreamer 1.22 leaks a V4L2 element, its buffer pool and 13 to 15 descriptors with every stop if it leaves
        // the kernel's buffers to their users ("orphans" them); this makes it wait for them instead.
        // SAFETY: no GStreamer thread runs yet, and the program has started none that reads the environment.
        unsafe {
            std::env::set_var("GST_V4L2_FORCE_DRAIN", "1");
            if let Some(profiles) = profiles {
                plugins::restrict(profiles);
            }
        }
        gstreamer::init().map_err(|error| error.to_string())?;
        log::take_over();
        Ok(())
    })
    .clone()
}

/// Makes `rtmps://` trust the authorities in this PEM file, and no others.
///
/// # Errors
/// Why the file is unusable, in words.
pub fn trust(file: &Path) -> Result<(), String> {
    let database = gio::TlsFileDatabase::new(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let backend = gio::TlsBackend::default();
    if !backend.supports_tls() {
        return Err("GLib has no TLS here; install glib-networking".into());
    }
    backend.set_default_database(Some(&database));
    Ok(())
}

/// GStreamer's version string.
pub fn version() -> String {
    gstreamer::version_string().to_string()
}
