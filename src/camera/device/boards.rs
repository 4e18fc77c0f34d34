//! What real boards report (`hw-fixtures/boards/`): what each node is taken for, and which mode a user gets.

use serde::Deserialize;

use super::super::mode::{Choice, Crop, FrameRate, Wanted, choose};
use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Board {
    #[serde(rename = "board")]
    name: String,
    sources: Vec<String>,
    quirks: Vec<String>,
    #[serde(default, rename = "device")]
    devices: Vec<Node>,
    #[serde(rename = "encoder")]
    _encoder: toml::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    source: Option<String>,
    driver: String,
    card: String,
    #[serde(default)]
    bus: String,
    device_caps: u32,
    #[serde(default = "yes")]
    input: bool,
    formats: Vec<String>,
    #[serde(default)]
    output_formats: Vec<String>,
    kind: String,
    #[serde(default, rename = "mode")]
    modes: Vec<Offer>,
    #[serde(default, rename = "picture")]
    pictures: Vec<Picture>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Offer {
    format: String,
    size: Option<(u32, u32)>,
    min: Option<(u32, u32)>,
    max: Option<(u32, u32)>,
    step: Option<(u32, u32)>,
    rates: Option<Vec<f64>>,
    slowest: Option<u32>,
    fastest: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Picture {
    asked: String,
    gets: String,
}

fn fourcc(text: &str) -> FourCC {
    FourCC::new(text.as_bytes().try_into().expect("four characters"))
}

fn described(formats: &[String]) -> Vec<FormatDescription> {
    const COMPRESSED: [&str; 7] = ["H264", "HEVC", "MJPG", "JPEG", "MPG4", "H263", "VP80"];
    let one = |code: &String| {
        let flags = if COMPRESSED.contains(&code.as_str()) { FormatFlags::COMPRESSED } else { FormatFlags::empty() };
        FormatDescription { index: 0, typ: 0, flags, description: String::new(), fourcc: fourcc(code) }
    };
    formats.iter().map(one).collect()
}

impl Node {
    fn kind(&self) -> Kind {
        let capability = Capability {
            driver: self.driver.clone(),
            card: self.card.clone(),
            bus: self.bus.clone(),
            device_caps: self.device_caps,
        };
        let input = if self.input { Input::Ready } else { Input::Missing };
        classify(&capability, &described(&self.formats), &described(&self.output_formats), input)
    }
}

impl Offer {
    fn range(&self) -> ModeRange {
        let sizes = match (self.size, self.min, self.max, self.step) {
            (Some((width, height)), None, None, None) => Sizes::One(width, height),
            (None, Some(min), Some(max), Some(step)) => Sizes::Grid { min, max, step },
            _ => panic!("either size, or min, max and step"),
        };
        let rate = |frames: u32, seconds: u32| FrameRate::new(frames, seconds).expect("a rate above zero");
        let rates = match (&self.rates, self.slowest, self.fastest) {
            (Some(list), None, None) => Rates::List(list.iter().map(|fps| rate((fps * 10.0) as u32, 10)).collect()),
            (None, Some(slowest), Some(fastest)) => Rates::Range(rate(slowest, 1), rate(fastest, 1)),
            (None, None, None) => Rates::Unknown,
            _ => panic!("either rates, or slowest and fastest, or none"),
        };
        ModeRange { format: PixelFormat::from_fourcc(fourcc(&self.format)), sizes, rates }
    }
}

/// `1280x720 at 30`.
fn wanted(text: &str) -> Wanted {
    let (size, rate) = text.split_once(" at ").expect("SIZE at RATE");
    let (width, height) = size.split_once('x').expect("WIDTHxHEIGHT");
    let number = |text: &str| text.parse().expect("a number");
    let frame_rate = FrameRate::new(number(rate), 1).expect("a rate above zero");
    Wanted { width: number(width), height: number(height), frame_rate }
}

fn in_words(choice: Option<Choice>) -> String {
    let Some(choice) = choice else { return "nothing".to_owned() };
    let mut text = choice.mode.to_string();
    if choice.crop != Crop::default() {
        let Crop { left, right, top, bottom } = choice.crop;
        let _ = write!(text, " crop {left},{right},{top},{bottom}");
    }
    if !choice.is_untouched() {
        let _ = write!(text, " -> {}x{}", choice.width, choice.height);
    }
    text + if choice.too_small { " too small" } else { "" } + if choice.too_slow { " too slow" } else { "" }
}

#[test]
fn each_board_is_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hw-fixtures/boards");
    let mut boards = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let board: Board = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let Board { name: board, sources, quirks, devices, .. } = board;
        boards += 1;
        let mut all_sources = sources.iter().chain(devices.iter().filter_map(|device| device.source.as_ref()));
        assert!(!sources.is_empty() && all_sources.all(|source| source.starts_with("https://")), "{board}");
        assert!(!quirks.is_empty(), "{board}");
        for device in devices {
            let name = format!("{board}: {} ({})", device.card, device.driver);
            let kind = match device.kind() {
                Kind::Camera => "camera".to_owned(),
                Kind::MediaController => "media controller".to_owned(),
                Kind::Metadata => "metadata".to_owned(),
                Kind::Encoder { codecs } if codecs.contains(&PixelFormat::H264) => "encoder".to_owned(),
                other => format!("{other:?}"),
            };
            assert_eq!(kind, device.kind, "{name}");
            let modes: Vec<ModeRange> = device.modes.iter().map(Offer::range).collect();
            assert!(kind != "camera" || !device.pictures.is_empty(), "{name}: what does a user get?");
            for Picture { asked, gets } in &device.pictures {
                assert_eq!(in_words(choose(&modes, wanted(asked))), *gets, "{name}, asked for {asked}");
            }
        }
    }
    assert!(boards >= 10, "{boards} boards");
}
