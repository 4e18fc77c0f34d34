//! The privacy light: `class/leds/NAME`.
//!
//! [`Light`] holds what the light should be; [`Light::settle`] applies it, on any thread and in any order: the last
//! request wins.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::line;

/// Why the light is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LedError {
    /// A file of the LED cannot be read or written.
    #[error("{}: {error}", file.display())]
    File {
        /// The file of the LED.
        file: PathBuf,
        error: std::io::Error,
    },
    /// The LED was written, but reads back as something else.
    #[error("{} says {value:?} after {wanted} was written", file.display())]
    Disobeys {
        file: PathBuf,
        /// The value written.
        wanted: u32,
        /// The value read back.
        value: String,
    },
}

/// An LED of the kernel.
#[derive(Clone, Debug)]
pub struct Led {
    folder: PathBuf,
}

impl Led {
    /// The LED with this folder under `/sys`.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The LED with this name, below the root `sys`.
    pub fn named(sys: &Path, name: &str) -> Self {
        Self::at(sys.join("class/leds").join(name))
    }

    /// The LED's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the LED is on.
    pub fn shines(&self) -> Result<bool, LedError> {
        let file = self.folder.join("brightness");
        let value = std::fs::read_to_string(&file).map_err(|error| LedError::File { file: file.clone(), error })?;
        let value = value.trim();
        value
            .parse::<u32>()
            .map(|brightness| brightness > 0)
            .map_err(|_| LedError::File { file, error: std::io::Error::other(format!("{value:?} is no brightness")) })
    }

    /// Checks whether the LED is writable, without writing.
    pub fn is_writable(&self) -> Result<(), LedError> {
        let file = self.folder.join("brightness");
        OpenOptions::new().write(true).open(&file).map(drop).map_err(|error| LedError::File { file, error })
    }

    /// Switches the LED, and verifies it by reading back. Writes nothing if it is already so.
    pub fn switch(&self, on: bool) -> Result<(), LedError> {
        self.take_from_trigger()?;
        if self.shines()? == on {
            return Ok(());
        }
        let most = line(&self.folder.join("max_brightness")).and_then(|most| most.parse().ok());
        let wanted = if on { most.unwrap_or(255).max(1) } else { 0 };
        let file = self.folder.join("brightness");
        write(&file, &wanted.to_string())?;
        if self.shines()? != on {
            let value = line(&file).unwrap_or_default();
            return Err(LedError::Disobeys { file, wanted, value });
        }
        Ok(())
    }

    /// Detaches the LED from its trigger: an LED that the kernel blinks for something else says nothing about the
    /// camera.
    fn take_from_trigger(&self) -> Result<(), LedError> {
        let file = self.folder.join("trigger");
        match line(&file) {
            Some(triggers) if !triggers.contains("[none]") && triggers.contains('[') => write(&file, "none"),
            _ => Ok(()),
        }
    }
}

/// Never creates a file: sysfs would not, and elsewhere none should appear.
fn write(file: &Path, text: &str) -> Result<(), LedError> {
    let written = OpenOptions::new().write(true).truncate(true).open(file);
    written
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .map_err(|error| LedError::File { file: file.to_owned(), error })
}

/// The privacy light and its requested state. Switched off when dropped.
#[derive(Debug)]
pub struct Light {
    led: Led,
    wanted: AtomicBool,
    turn: Mutex<()>,
}

impl Light {
    /// A light that is requested to be off.
    pub fn new(led: Led) -> Self {
        Self { led, wanted: AtomicBool::new(false), turn: Mutex::new(()) }
    }

    /// Requests on or off; does not block.
    pub fn want(&self, on: bool) {
        self.wanted.store(on, Ordering::SeqCst);
    }

    /// Whether the light is requested to be on.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Applies the requested state and verifies it. Blocks on the LED's bus.
    pub fn settle(&self) -> Result<(), LedError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.led.switch(self.is_wanted())
    }
}

impl Drop for Light {
    fn drop(&mut self) {
        self.want(false);
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "the privacy light cannot be switched off");
        }
    }
}
