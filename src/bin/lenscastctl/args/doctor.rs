//! The command line of `doctor`.

use std::path::PathBuf;

use clap::Args;

/// What to check.
#[derive(Args, Debug)]
#[command(after_help = "\
With --full: a photo, the camera unplugged and put back, a stream to a
server of lenscastctl's own, sound, every mode of the camera, every
encoder; heat, battery and processor meanwhile. The report is JSON,
without keys, tokens and serial numbers, and written after each step.
Run it as root, or in the groups video, audio and lenscast, and start
no stream meanwhile. To be asked for the plug it needs a terminal.
Exit status then besides:
  4    a step failed; the report says which and why
  130  interrupted; the report has what was there so far")]
pub struct DoctorArguments {
    /// Print the findings as one line of JSON
    #[arg(long, conflicts_with = "full")]
    pub json: bool,
    /// Try everything for about ten minutes, and write a report into this file
    #[arg(long, value_name = "REPORT.json")]
    pub full: Option<PathBuf>,
    /// How long --full takes, about; half of it is the stream
    #[arg(long, value_name = "MINUTES", default_value = "10", value_parser = minutes, requires = "full")]
    pub minutes: f64,
    /// Do not ask for the camera to be unplugged and put back
    #[arg(long, requires = "full")]
    pub no_unplug: bool,
    /// Picture width in pixels
    #[arg(long, value_name = "PIXELS", default_value = "1280", requires = "full")]
    pub width: u32,
    /// Picture height in pixels
    #[arg(long, value_name = "PIXELS", default_value = "720", requires = "full")]
    pub height: u32,
    /// Frames per second
    #[arg(long, default_value = "30", requires = "full", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub fps: u32,
    /// Video bits per second; encoders are tried at half of it too
    #[arg(long, value_name = "BITS", default_value = "2M", requires = "full", value_parser = super::scaled)]
    pub bitrate: u32,
    /// The folder with encoder profiles of your own, as `encoder.profiles` in lenscastd.toml says
    #[arg(long, value_name = "FOLDER", requires = "full")]
    pub profiles: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.05..=600.0).contains(&minutes) => Ok(minutes),
        _ => Err("a number of minutes, from 0.05 to 600".into()),
    }
}
