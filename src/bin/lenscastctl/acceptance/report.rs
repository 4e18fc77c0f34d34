//! The report and its file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lenscast::protocol::control::{DoctorLine, Level};
use serde::{Deserialize, Serialize};

use super::board::{Board, Node};
use crate::failure::Failure;

/// Rises when a field changes its meaning or is removed.
pub const VERSION: u32 = 1;

/// What one run found.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The kind of the file: [`Self::KIND`].
    pub kind: String,
    /// [`VERSION`].
    pub version: u32,
    /// Seconds since 1970 at its beginning.
    pub taken_at_unix_s: u64,
    /// Whether the run was completed; otherwise it was interrupted.
    pub complete: bool,
    /// What board this is.
    pub board: Board,
    /// What `lenscastctl doctor --json` prints.
    pub findings: Vec<DoctorLine>,
    /// The video devices, in the form of `hw-fixtures/boards/*.toml`.
    #[serde(rename = "device")]
    pub devices: Vec<Node>,
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// The board during the stream.
    pub samples: Vec<Sample>,
}

/// One step of the run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Its result.
    pub outcome: Outcome,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, Figure>,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was as required.
    Passed,
    /// Something was not.
    Failed,
    /// It was not tried.
    Skipped,
}

/// A number with its unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The number, to three places.
    pub value: f64,
    /// `bit/s`, `ms` and the like; empty for a count.
    pub unit: String,
}

/// The board at one moment of the stream. Unknown values are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the stream was asked for.
    pub at_s: f64,
    /// Degrees Celsius, of the thermal zone nearest to its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    /// The heat step of the stream; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat_step: Option<u32>,
    /// Per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub battery_percent: Option<u8>,
    /// Whether it is on a charger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charging: Option<bool>,
    /// lenscastd's per cent of one core since the previous sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Bits per second that went out.
    pub bitrate: u64,
    /// Pictures per second that went out.
    pub fps: f64,
}

impl Report {
    /// Tells the file from other JSON.
    pub const KIND: &str = "lenscast acceptance run";

    /// Without any step yet.
    pub fn new(taken_at_unix_s: u64, board: Board, devices: Vec<Node>) -> Self {
        Self {
            kind: Self::KIND.into(),
            version: VERSION,
            taken_at_unix_s,
            complete: false,
            board,
            findings: Vec::new(),
            devices,
            steps: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Adds the findings, without the serial number that may name a camera.
    pub fn set_findings(&mut self, findings: Vec<DoctorLine>) {
        let hide = |line: DoctorLine| DoctorLine { text: without_serial(&line.text), ..line };
        self.findings = findings.into_iter().map(hide).collect();
    }

    /// Whether any step failed.
    pub fn has_failed(&self) -> bool {
        self.steps.iter().any(|step| step.outcome == Outcome::Failed)
    }

    /// Replaces `file` by the report, whole or not at all.
    pub fn write(&self, file: &Path) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Other(format!("{}: {error}", file.display()));
        let mut text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        text.push('\n');
        let mut beside = file.as_os_str().to_owned();
        beside.push(".part");
        let beside = PathBuf::from(beside);
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, file)).map_err(|error| failed(&error))
    }
}

/// An identity of a camera ends in its serial number, in square brackets (`lenscast::camera::Device::identity`).
fn without_serial(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, (_, after))) =
        rest.split_once(" [").and_then(|(before, in_it)| Some((before, in_it.split_once(']')?)))
    {
        kept.extend([before, " [***]"]);
        rest = after;
    }
    kept + rest
}

impl Step {
    /// A step that passed.
    pub fn passed(name: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Passed, reason: None, figures: BTreeMap::new() }
    }

    /// A step that failed.
    pub fn failed(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, reason: Some(reason.into()), ..Self::passed(name) }
    }

    /// A step that was skipped.
    pub fn skipped(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, ..Self::failed(name, reason) }
    }

    /// Failed if there is any complaint.
    pub fn judged(name: impl Into<String>, complaints: &[String]) -> Self {
        if complaints.is_empty() { Self::passed(name) } else { Self::failed(name, complaints.join("; ")) }
    }

    /// Adds a number, if it is finite.
    pub fn with(mut self, name: &str, value: f64, unit: &str) -> Self {
        if value.is_finite() {
            let value = (value * 1000.0).round() / 1000.0;
            self.figures.insert(name.into(), Figure { value, unit: unit.into() });
        }
        self
    }

    /// Adds a number, if it is known.
    pub fn with_known(self, name: &str, value: Option<f64>, unit: &str) -> Self {
        match value {
            Some(value) => self.with(name, value, unit),
            None => self,
        }
    }
}

/// The findings as a step.
pub fn of_findings(findings: &[DoctorLine]) -> Step {
    let wrong = findings.iter().filter(|line| line.level == Level::Fail);
    let complaints: Vec<_> = wrong.map(|line| format!("{}: {}", line.subject, line.text)).collect();
    let warnings = findings.iter().filter(|line| line.level == Level::Warn).count();
    Step::judged("findings", &complaints).with("warnings", warnings as f64, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, text: &str) -> DoctorLine {
        DoctorLine { level, subject: "camera".into(), text: text.into() }
    }

    #[test]
    fn serial_numbers_stay_here() {
        let mut report = Report::new(0, Board::default(), Vec::new());
        let text = "camera.device = \"usb-0000:00:14.0-2/0 Cam [A1B2C3]\" is /dev/video0";
        report.set_findings(vec![line(Level::Ok, text), line(Level::Ok, "heat.zones = [\"cpu\"")]);
        assert_eq!(report.findings[0].text, "camera.device = \"usb-0000:00:14.0-2/0 Cam [***]\" is /dev/video0");
        assert_eq!(report.findings[1].text, "heat.zones = [\"cpu\"");
    }

    #[test]
    fn a_finding_that_fails_is_a_step_that_fails() {
        let step = of_findings(&[line(Level::Warn, "dim"), line(Level::Fail, "gone")]);
        assert_eq!((step.outcome, step.reason.as_deref()), (Outcome::Failed, Some("camera: gone")));
        assert_eq!(step.figures["warnings"], Figure { value: 1.0, unit: String::new() });
        assert_eq!(of_findings(&[line(Level::Ok, "there")]).outcome, Outcome::Passed);
    }

    /// The reports that makers have sent.
    #[test]
    fn each_report_among_the_boards_can_be_read_and_tells_no_secret() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hw-fixtures/boards");
        let own = serde_json::to_string(&Report::new(7, Board::default(), vec![Node::default()])).unwrap();
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let sent = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let texts = sent.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()));
        for (path, text) in texts.chain([("its own".to_owned(), own)]) {
            let report: Report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!((report.kind.as_str(), report.version), (Report::KIND, VERSION), "{path}");
            for device in report.devices.iter().filter(|device| device.kind == "camera") {
                assert!(!device.modes.is_empty() && !device.pictures.is_empty(), "{path}: {device:?}");
            }
            assert!(report.findings.iter().all(|line| line.text == without_serial(&line.text)), "{path}");
        }
    }

    #[test]
    fn a_report_is_written_whole_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("board.json");
        let mut report = Report::new(7, Board::default(), vec![Node::default()]);
        report.steps.push(Step::failed("photo", "dark").with("time", 12.345_67, "ms").with("rate", f64::NAN, "1/s"));
        report.write(&file).unwrap();
        report.write(&file).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&fs::read_to_string(&file).unwrap()).unwrap(), report);
        assert_eq!(report.steps[0].figures.len(), 1, "what is no number is left out");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
        assert!(report.write(Path::new("/nowhere/report.json")).is_err());
    }
}
