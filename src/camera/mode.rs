//! Chooses the mode of a camera for the requested picture. Pure.
//!
//! A picture is never stretched or enlarged: a larger one is cropped to the requested shape and scaled down; where no mode
//! is large enough, the choice says what is possible. The first criterion is the share of the request that a mode fulfils
//! (pixels per second, up to the request), the second is the cost of making the picture. Costs are a model, not
//! measurements: pixels per second times a weight by format, plus one for scaling; only their order matters. Cropping away
//! part of the view costs more than most conversions but less than decoding a much larger JPEG.

use std::fmt;

use v4l::Fraction;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;

use super::format::PixelFormat;

/// Frames a second, as a fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRate {
    numerator: u32,
    denominator: u32,
}

impl FrameRate {
    /// `numerator / denominator` frames a second; `None` if either is 0.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        if numerator == 0 || denominator == 0 {
            return None;
        }
        let divisor = gcd(numerator, denominator);
        Some(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }

    /// The fraction, as (numerator, denominator) in frames a second; neither is 0.
    pub fn fraction(self) -> (u32, u32) {
        (self.numerator, self.denominator)
    }

    /// Frames a second.
    pub fn as_f64(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }

    /// Whether it is as fast as requested, within 1 %: 29.97 is enough for 30.
    fn reaches(self, asked: Self) -> bool {
        self.as_f64() >= asked.as_f64() * 0.99
    }
}

impl PartialOrd for FrameRate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FrameRate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let cross = |a: &Self, b: &Self| u64::from(a.numerator) * u64::from(b.denominator);
        cross(self, other).cmp(&cross(other, self))
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.2}", self.as_f64());
        write!(f, "{} fps", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What a camera can be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// What the pixels look like.
    pub format: PixelFormat,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `None` where the driver does not list its rates: then no rate should be requested.
    pub frame_rate: Option<FrameRate>,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)?;
        self.frame_rate.map_or(Ok(()), |rate| write!(f, " at {rate}"))?;
        write!(f, " {}", self.format)
    }
}

/// Picture sizes, as (width, height) in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// One size.
    One(u32, u32),
    /// A grid of sizes.
    Grid {
        /// The smallest.
        min: (u32, u32),
        /// The largest.
        max: (u32, u32),
        /// The steps from `min` on; at least 1.
        step: (u32, u32),
    },
}

impl Sizes {
    /// The largest size.
    pub fn largest(self) -> (u32, u32) {
        match self {
            Self::One(width, height) | Self::Grid { max: (width, height), .. } => (width, height),
        }
    }
}

impl From<FrameSizeEnum> for Sizes {
    fn from(size: FrameSizeEnum) -> Self {
        match size {
            FrameSizeEnum::Discrete(size) => Self::One(size.width, size.height),
            FrameSizeEnum::Stepwise(grid) => Self::Grid {
                min: (grid.min_width, grid.min_height),
                max: (grid.max_width, grid.max_height),
                step: (grid.step_width.max(1), grid.step_height.max(1)),
            },
        }
    }
}

/// The frame rates of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rates {
    /// These.
    List(Vec<FrameRate>),
    /// All from the slowest to the fastest.
    Range(FrameRate, FrameRate),
    /// The driver does not say.
    Unknown,
}

impl Rates {
    /// The rates of the frame intervals that a driver enumerates.
    pub(super) fn from_intervals(intervals: &[FrameIntervalEnum]) -> Self {
        // The rate is one over the interval.
        let rate = |interval: Fraction| FrameRate::new(interval.denominator, interval.numerator);
        if let [FrameIntervalEnum::Stepwise(range)] = intervals {
            return match (rate(range.max), rate(range.min)) {
                (Some(slowest), Some(fastest)) if slowest <= fastest => Self::Range(slowest, fastest),
                _ => Self::Unknown,
            };
        }
        let mut list: Vec<FrameRate> = intervals
            .iter()
            .filter_map(|interval| match interval {
                FrameIntervalEnum::Discrete(interval) => rate(*interval),
                FrameIntervalEnum::Stepwise(range) => rate(range.min),
            })
            .collect();
        list.sort_unstable();
        list.dedup();
        if list.is_empty() { Self::Unknown } else { Self::List(list) }
    }

    /// The fastest.
    pub fn fastest(&self) -> Option<FrameRate> {
        match self {
            Self::List(rates) => rates.iter().max().copied(),
            Self::Range(_, fastest) => Some(*fastest),
            Self::Unknown => None,
        }
    }

    /// The slowest rate that reaches the request, else the fastest.
    fn nearest(&self, asked: FrameRate) -> Option<FrameRate> {
        match self {
            Self::List(rates) => rates.iter().copied().filter(|rate| rate.reaches(asked)).min().or(self.fastest()),
            Self::Range(slowest, fastest) => Some(asked.max(*slowest).min(*fastest)),
            Self::Unknown => None,
        }
    }
}

/// Modes that a camera offers in one format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeRange {
    /// What the pixels look like.
    pub format: PixelFormat,
    /// In these sizes.
    pub sizes: Sizes,
    /// At these rates.
    pub rates: Rates,
}

impl fmt::Display for ModeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sizes {
            Sizes::One(width, height) => write!(f, "{width}x{height}")?,
            Sizes::Grid { min, max, .. } => write!(f, "{}x{} to {}x{}", min.0, min.1, max.0, max.1)?,
        }
        self.rates.fastest().map_or(Ok(()), |rate| write!(f, " at {rate}"))?;
        write!(f, " {}", self.format)
    }
}

/// The requested picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Pixels; an odd one is rounded down, because 4:2:0 video has none.
    pub width: u32,
    /// Pixels; an odd one is rounded down.
    pub height: u32,
    /// Frames per second at least, if the camera can.
    pub frame_rate: FrameRate,
}

/// What to cut off a camera's picture, in pixels. Left and top are even, so that chroma stays in step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crop {
    /// From the left edge.
    pub left: u32,
    /// From the right edge.
    pub right: u32,
    /// From the top edge.
    pub top: u32,
    /// From the bottom edge.
    pub bottom: u32,
}

/// A mode and how the picture is made from it: cut off [`Self::crop`], then scale to [`Self::width`] x [`Self::height`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What to set the camera to.
    pub mode: Mode,
    /// What to cut off.
    pub crop: Crop,
    /// The width of the resulting picture: what was asked, or less when the camera has no more.
    pub width: u32,
    /// The height of the resulting picture.
    pub height: u32,
    /// The camera has no picture as large as requested.
    pub too_small: bool,
    /// The camera is not as fast as requested.
    pub too_slow: bool,
}

impl Choice {
    /// The camera's own H.264 has the requested size, is fast enough, and can be sent as it is.
    pub fn is_passthrough(&self) -> bool {
        self.mode.format == PixelFormat::H264 && self.is_untouched() && !self.too_small && !self.too_slow
    }

    /// The picture is neither cropped nor scaled.
    pub fn is_untouched(&self) -> bool {
        (self.mode.width, self.mode.height) == (self.width, self.height)
    }

    /// The size between cropping and scaling.
    fn region(&self) -> (u32, u32) {
        let Crop { left, right, top, bottom } = self.crop;
        (self.mode.width - left - right, self.mode.height - top - bottom)
    }
}

/// The best way to the picture; `None` only when the camera offers nothing that a picture can be made of (a mode of less
/// than 2 x 2 pixels counts as nothing). The caller leaves out modes that must not be used.
pub fn choose<'a>(modes: impl IntoIterator<Item = &'a ModeRange>, wanted: Wanted) -> Option<Choice> {
    let asked = Wanted { width: even(wanted.width).max(2), height: even(wanted.height).max(2), ..wanted };
    modes
        .into_iter()
        .filter(|range| range.format.is_usable())
        .filter_map(|range| {
            let (width, height) = fitting_size(range.sizes, asked);
            let mode = Mode { format: range.format, width, height, frame_rate: range.rates.nearest(asked.frame_rate) };
            (width >= 2 && height >= 2).then(|| picture(mode, asked))
        })
        // The first of equals, which the driver prefers.
        .min_by(|a, b| {
            let fulfilled = fulfilled(b, asked).cmp(&fulfilled(a, asked));
            fulfilled.then_with(|| cost(a, asked).total_cmp(&cost(b, asked)))
        })
}

/// The smallest size of a range from which the picture can be made without enlarging, in the picture's shape if the range
/// allows; else the largest.
fn fitting_size(sizes: Sizes, asked: Wanted) -> (u32, u32) {
    let Sizes::Grid { min, max, step } = sizes else { return sizes.largest() };
    let ratio = |part: u32, whole: u32| f64::from(part) / f64::from(whole);
    let enlarge = ratio(min.0, asked.width).max(ratio(min.1, asked.height)).max(1.0);
    let shrink = ratio(max.0, asked.width).min(ratio(max.1, asked.height)).min(1.0);
    let factor = if shrink < 1.0 { shrink } else { enlarge };
    let on_grid = |asked: u32, min: u32, max: u32, step: u32| {
        // Rounded first: 480 * (640 / 480) must not become 641 for want of a digit.
        let target = (f64::from(asked) * factor * 1024.0).round() / 1024.0;
        let steps = ((target - f64::from(min)).max(0.0) / f64::from(step.max(1))).ceil() as u32;
        let last = max.saturating_sub(min) / step.max(1);
        min + steps.min(last) * step
    };
    (on_grid(asked.width, min.0, max.0, step.0), on_grid(asked.height, min.1, max.1, step.1))
}

/// How the picture is made from a mode.
fn picture(mode: Mode, asked: Wanted) -> Choice {
    let (region_width, region_height) = region(mode, asked);
    let (left, right) = margins(mode.width, region_width);
    let (top, bottom) = margins(mode.height, region_height);
    Choice {
        mode,
        crop: Crop { left, right, top, bottom },
        width: region_width.min(asked.width),
        height: region_height.min(asked.height),
        too_small: region_width < asked.width || region_height < asked.height,
        too_slow: mode.frame_rate.is_some_and(|rate| !rate.reaches(asked.frame_rate)),
    }
}

/// The largest part of the mode's picture in the asked shape.
fn region(mode: Mode, asked: Wanted) -> (u32, u32) {
    let (width, height) = (u64::from(mode.width), u64::from(mode.height));
    let (asked_width, asked_height) = (u64::from(asked.width), u64::from(asked.height));
    // Rounded to the nearest even number, not down: 480/854 of 640 is 359.7 and means 360.
    let nearest_even =
        |numerator: u64, denominator: u64| (((numerator + denominator) / (2 * denominator)) as u32 * 2).max(2);
    let region = if width * asked_height > height * asked_width {
        (nearest_even(height * asked_width, asked_height).min(even(mode.width)), even(mode.height))
    } else {
        (even(mode.width), nearest_even(width * asked_height, asked_width).min(even(mode.height)))
    };
    // 426x240 is how 16:9 is written with even numbers: not worth a crop of two columns of 1920x1080, which copies the
    // picture. Nobody sees half a percent. Where cropping alone makes the picture, it is cheaper than scaling.
    let nearly_all = |part: u32, whole: u32| u64::from(whole - part) * 200 <= u64::from(whole);
    let whole = (even(mode.width), even(mode.height));
    if region != (asked.width, asked.height) && nearly_all(region.0, whole.0) && nearly_all(region.1, whole.1) {
        whole
    } else {
        region
    }
}

/// Pixels to cut off at either end, in even numbers so that chroma stays in step. An odd rest is cut off at the far end.
fn margins(whole: u32, part: u32) -> (u32, u32) {
    let near = even((whole - part) / 2);
    (near, whole - part - near)
}

fn even(size: u32) -> u32 {
    size & !1
}

/// The fulfilled share of the requested pixels per second, in thousandths. An unknown rate counts as the requested one.
fn fulfilled(choice: &Choice, asked: Wanted) -> u32 {
    let pixels =
        f64::from(choice.width) * f64::from(choice.height) / (f64::from(asked.width) * f64::from(asked.height));
    let rate = match choice.mode.frame_rate {
        Some(rate) if choice.too_slow => rate.as_f64() / asked.frame_rate.as_f64(),
        _ => 1.0,
    };
    (pixels.min(1.0) * rate * 1000.0).round() as u32
}

/// The cost of making the picture, in weighted pixels per second.
fn cost(choice: &Choice, asked: Wanted) -> f64 {
    // Losing part of the view weighs as much as eight times the work.
    const CROPPED: f64 = 8.0;
    let pixels = |(width, height): (u32, u32)| f64::from(width) * f64::from(height);
    let mode = pixels((choice.mode.width, choice.mode.height));
    let region = pixels(choice.region());
    let rate = choice.mode.frame_rate.unwrap_or(asked.frame_rate).as_f64();
    let scaled = if choice.region() == (choice.width, choice.height) { 0.0 } else { region };
    let lost = if region < mode * 0.95 { CROPPED } else { 1.0 };
    (mode * weight(choice, asked) + scaled) * rate * lost
}

/// The work for one pixel until an encoder can take it.
fn weight(choice: &Choice, asked: Wanted) -> f64 {
    use PixelFormat as P;
    match choice.mode.format {
        // Frames cannot be left out of a finished H.264 stream, so its rate must be the asked one.
        P::H264
            if choice.is_passthrough() && choice.mode.frame_rate.is_none_or(|rate| asked.frame_rate.reaches(rate)) =>
        {
            0.0
        }
        P::Nv12 | P::Nv21 | P::I420 | P::Yv12 => 1.0,
        P::Yuyv | P::Uyvy => 1.5,
        P::Rgb24 | P::Bgr24 => 2.5,
        P::Mjpeg => 6.0,
        // It is decoded only to be encoded again: a last resort.
        P::H264 | P::Other(_) => 30.0,
    }
}

#[cfg(test)]
mod tests;
