//! Sends GStreamer's log to `tracing` instead of stderr, without stream keys. `GST_DEBUG` selects what is logged, as
//! usual; without it nothing here is ever called.

use std::sync::{Mutex, PoisonError};

use gstreamer as gst;

use crate::protocol::{StreamUrl, redact_urls};

static URLS: Mutex<Vec<StreamUrl>> = Mutex::new(Vec::new());

/// Keys to hide: those of current streams, and of earlier ones that a message may still contain.
const KEPT: usize = 256;

/// From now on the secret parts of `url` are hidden in GStreamer's log.
pub fn keep_secret(url: &StreamUrl) {
    let mut urls = URLS.lock().unwrap_or_else(PoisonError::into_inner);
    if urls.contains(url) {
        return;
    }
    if urls.len() == KEPT {
        urls.remove(0);
    }
    urls.push(url.clone());
}

/// Takes over GStreamer's log.
pub fn take_over() {
    gst::log::remove_default_log_function();
    gst::log::add_log_function(|category, level, file, _function, line, object, message| {
        let text = message.get().map(|text| redact(&text)).unwrap_or_default();
        let object = object.map(|object| redact(&object.to_string())).unwrap_or_default();
        match level {
            gst::DebugLevel::Error => {
                tracing::error!(target: "gstreamer", "{} {file}:{line} {object} {text}", category.name());
            }
            gst::DebugLevel::Warning | gst::DebugLevel::Fixme => {
                tracing::warn!(target: "gstreamer", "{} {file}:{line} {object} {text}", category.name());
            }
            _ => tracing::info!(target: "gstreamer", "{level} {} {file}:{line} {object} {text}", category.name()),
        }
    });
}

fn redact(text: &str) -> String {
    let urls = URLS.lock().unwrap_or_else(PoisonError::into_inner);
    urls.iter().fold(redact_urls(text), |text, url| url.redact(&text))
}
