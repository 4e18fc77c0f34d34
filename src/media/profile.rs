//! Encoder profiles: data on each family of encoders, one TOML file per family under `pipelines/`.
//!
//! The files hold only data. The ways in which a setting reaches an encoder need code, so they are enums here. The
//! files are compiled into the program, so that none needs to be installed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::toml_file::{self, FileError};

/// The profiles compiled into the program.
const BUILT_IN: [&str; 7] = [
    include_str!("../../pipelines/v4l2.toml"),
    include_str!("../../pipelines/rockchip-mpp.toml"),
    include_str!("../../pipelines/jetson.toml"),
    include_str!("../../pipelines/imx-vpu.toml"),
    include_str!("../../pipelines/va-api.toml"),
    include_str!("../../pipelines/x264.toml"),
    include_str!("../../pipelines/openh264.toml"),
];

/// A family of encoders.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in the configuration and in the status.
    pub name: String,
    /// Lower is tried first.
    pub order: u32,
    /// Whether it relieves the processor.
    pub hardware: bool,
    /// Names of GStreamer elements, `*` for any text; the first that exists is used.
    pub elements: Vec<String>,
    /// The plugins with these elements, as `gst-inspect-1.0 ELEMENT` names them; extra names do no harm. Without any,
    /// GStreamer looks at all installed plugins.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Raw formats of its input, cheapest first.
    pub raw_formats: Vec<String>,
    /// The H.264 profile requested in the caps.
    pub h264_profile: String,
    /// Whether the level must be requested in the caps.
    pub level_in_caps: bool,
    /// Whether it takes buffers of a V4L2 camera without a copy (`output-io-mode=dmabuf-import`).
    #[serde(default)]
    pub takes_dmabuf: bool,
    /// How its bitrate is set.
    pub bitrate: Bitrate,
    /// How its key frame interval is set, in frames.
    pub key_frame_interval: Setting,
    /// What is known of it, and the source.
    pub evidence: String,
    /// Properties set once.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// V4L2 controls set once, through the element's `extra-controls`.
    #[serde(default)]
    pub v4l2_controls: BTreeMap<String, i64>,
}

/// How an encoder's bitrate is set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Bitrate {
    /// A property of the element that may change while it plays.
    Property {
        /// The property's name.
        property: String,
        /// The property's unit.
        unit: Unit,
    },
    /// A V4L2 control in bit/s: set through `extra-controls` at the start and by ioctl while playing, because
    /// GStreamer before 1.28 reads `extra-controls` only at the start (merge request 9168).
    V4l2Control {
        /// Its name in `extra-controls`.
        v4l2_control: String,
    },
    /// It cannot be set.
    Fixed {
        /// Always true.
        fixed: bool,
    },
}

/// A unit of bitrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Unit {
    /// bit/s
    #[serde(rename = "bit/s")]
    Bits,
    /// 1000 bit/s
    #[serde(rename = "kbit/s")]
    Kilobits,
}

impl Unit {
    /// `bits` (bit/s) in this unit.
    pub fn of(self, bits: u32) -> u32 {
        match self {
            Self::Bits => bits,
            Self::Kilobits => bits / 1000,
        }
    }
}

/// How a number reaches the encoder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Setting {
    /// A property of the element.
    Property {
        /// The property's name.
        property: String,
    },
    /// A V4L2 control.
    V4l2Control {
        /// Its name in `extra-controls`.
        v4l2_control: String,
    },
}

/// The built-in profiles, replaced or supplemented by those of each of `folders`, in the order in which they are
/// tried.
pub fn load(folders: &[PathBuf]) -> Result<Vec<Profile>, FileError> {
    let mut profiles: Vec<Profile> =
        BUILT_IN.iter().map(|text| toml::from_str(text).expect("built-in profiles are tested")).collect();
    for folder in folders {
        for path in toml_file::list(folder)? {
            let profile: Profile = toml_file::read(&path)?;
            profiles.retain(|other| other.name != profile.name);
            profiles.push(profile);
        }
    }
    profiles.sort_by_key(|profile| profile.order);
    Ok(profiles)
}

/// The lowest H.264 level that allows this picture (ITU-T H.264 table A-1, by macroblocks per second and per frame).
pub fn h264_level(width: u32, height: u32, frame_rate: u32) -> &'static str {
    const LEVELS: [(u32, u32, &str); 11] = [
        (1_485, 99, "1"),
        (6_000, 396, "1.2"),
        (11_880, 396, "1.3"),
        (19_800, 792, "2.1"),
        (20_250, 1_620, "2.2"),
        (40_500, 1_620, "3"),
        (108_000, 3_600, "3.1"),
        (216_000, 5_120, "3.2"),
        (245_760, 8_192, "4"),
        (522_240, 8_704, "4.2"),
        (589_824, 22_080, "5"),
    ];
    let per_frame = width.div_ceil(16) * height.div_ceil(16);
    LEVELS
        .iter()
        .find(|(per_second, size, _)| per_frame <= *size && per_frame * frame_rate <= *per_second)
        .map_or("5.1", |(_, _, level)| level)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn hardware_is_tried_before_software() {
        let profiles = load(&[]).unwrap();
        let names: Vec<_> = profiles.iter().map(|profile| profile.name.as_str()).collect();
        assert_eq!(names, ["v4l2", "rockchip-mpp", "jetson", "imx-vpu", "va-api", "x264", "openh264"]);
        assert!(profiles.is_sorted_by_key(|profile| !profile.hardware));
    }

    /// A board's file in `hw-fixtures/boards/`, as far as it concerns the encoder.
    #[derive(Deserialize)]
    struct Board {
        encoder: BoardEncoder,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct BoardEncoder {
        elements: Vec<String>,
        profile: String,
        controls: Option<Vec<String>>,
        #[serde(default)]
        lacks: Vec<String>,
    }

    impl BoardEncoder {
        /// Whether the vendor's system has an element of this profile; software is everywhere.
        fn suits(&self, profile: &Profile) -> bool {
            let is = |name: &String, pattern: &String| match pattern.split_once('*') {
                None => name == pattern,
                Some((start, end)) => name.starts_with(start) && name.ends_with(end),
            };
            !profile.hardware
                || profile.elements.iter().any(|pattern| self.elements.iter().any(|name| is(name, pattern)))
        }
    }

    #[test]
    fn each_board_gets_its_own_encoder_first() {
        let profiles = load(&[]).unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/hw-fixtures/boards");
        let files = toml_file::list(Path::new(folder)).unwrap();
        assert!(files.len() >= 10, "{files:?}");
        for file in files {
            let shown = file.display();
            let Board { encoder } = toml_file::read(&file).unwrap();
            let first = profiles.iter().find(|profile| encoder.suits(profile)).unwrap();
            assert_eq!(first.name, encoder.profile, "{shown}");
            let Some(known) = &encoder.controls else { continue };
            let mut set: Vec<&String> = first.v4l2_controls.keys().collect();
            if let Bitrate::V4l2Control { v4l2_control } = &first.bitrate {
                set.push(v4l2_control);
            }
            if let Setting::V4l2Control { v4l2_control } = &first.key_frame_interval {
                set.push(v4l2_control);
            }
            set.retain(|control| !known.contains(control));
            assert_eq!(set, encoder.lacks.iter().collect::<Vec<_>>(), "{shown}: controls set in vain");
        }
    }

    #[test]
    fn a_file_of_the_users_replaces_the_installed_and_the_built_in_of_its_name() {
        let (installed, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [installed.path().to_owned(), own.path().to_owned()];
        let put = |folder: &Path, order: &str| {
            let text = include_str!("../../pipelines/x264.toml").replace("order = 100", order);
            std::fs::write(folder.join("mine.toml"), text).unwrap();
        };
        put(installed.path(), "order = 5");
        assert_eq!(load(&folders).unwrap()[0].name, "x264");
        put(own.path(), "order = 105");
        let profiles = load(&folders).unwrap();
        assert_eq!(
            profiles.iter().filter(|profile| profile.name == "x264").map(|x264| x264.order).collect::<Vec<_>>(),
            [105]
        );
        std::fs::write(own.path().join("mine.toml"), "name = \"x264\"\nspeed = 3\n").unwrap();
        let error = load(&folders).unwrap_err().to_string();
        assert!(error.contains("mine.toml") && error.contains("speed"), "{error}");
    }

    #[test]
    fn the_level_fits_the_picture() {
        assert_eq!(h264_level(320, 240, 30), "1.3");
        assert_eq!(h264_level(640, 480, 30), "3");
        assert_eq!(h264_level(1280, 720, 30), "3.1");
        assert_eq!(h264_level(1920, 1080, 30), "4");
        assert_eq!(h264_level(1920, 1080, 60), "4.2");
    }
}
