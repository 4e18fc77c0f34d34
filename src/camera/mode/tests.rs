use proptest::prelude::*;
use v4l::FourCC;
use v4l::{frameinterval, framesize};

use super::*;

fn fps(rate: u32) -> FrameRate {
    FrameRate::new(rate, 1).unwrap()
}

fn one(format: PixelFormat, width: u32, height: u32, rates: &[u32]) -> ModeRange {
    ModeRange {
        format,
        sizes: Sizes::One(width, height),
        rates: Rates::List(rates.iter().map(|rate| fps(*rate)).collect()),
    }
}

fn grid(min: (u32, u32), max: (u32, u32), step: (u32, u32)) -> ModeRange {
    ModeRange { format: PixelFormat::Nv12, sizes: Sizes::Grid { min, max, step }, rates: Rates::Range(fps(1), fps(90)) }
}

fn wanted(width: u32, height: u32, rate: u32) -> Wanted {
    Wanted { width, height, frame_rate: fps(rate) }
}

/// The choice in words: the mode, what is cropped, what comes out.
fn chosen(modes: &[ModeRange], wanted: Wanted) -> String {
    let choice = choose(modes, wanted).unwrap();
    let Crop { left, right, top, bottom } = choice.crop;
    let crop =
        if choice.crop == Crop::default() { String::new() } else { format!(" crop {left},{right},{top},{bottom}") };
    let size = if choice.is_untouched() { String::new() } else { format!(" -> {}x{}", choice.width, choice.height) };
    let short = if choice.too_small { " too small" } else { "" };
    let slow = if choice.too_slow { " too slow" } else { "" };
    format!("{}{crop}{size}{short}{slow}", choice.mode)
}

use PixelFormat::{H264, I420, Mjpeg, Nv12, Yuyv};

#[test]
fn of_the_same_picture_the_cheapest_format_is_taken() {
    let mut modes: Vec<_> = [Mjpeg, Yuyv, I420, H264].map(|format| one(format, 1280, 720, &[30])).into();
    for expected in [H264, I420, Yuyv, Mjpeg] {
        let choice = choose(&modes, wanted(1280, 720, 30)).unwrap();
        assert_eq!((choice.mode.format, choice.is_passthrough()), (expected, expected == H264));
        modes.retain(|range| range.format != expected);
    }
    assert_eq!(choose(&modes, wanted(1280, 720, 30)), None);
}

#[test]
fn h264_is_passed_through_only_when_it_is_exactly_what_was_asked() {
    let modes = [one(H264, 1280, 720, &[30]), one(Mjpeg, 1280, 720, &[30, 15])];
    assert_eq!(chosen(&modes, wanted(1280, 720, 30)), "1280x720 at 30 fps H264");
    assert_eq!(chosen(&modes, wanted(1280, 720, 15)), "1280x720 at 15 fps MJPG");
    assert_eq!(chosen(&modes, wanted(640, 360, 30)), "1280x720 at 30 fps MJPG -> 640x360");
    // With nothing else there, it has to do.
    let choice = choose(&modes[..1], wanted(640, 360, 30)).unwrap();
    assert!(choice.mode.format == H264 && !choice.is_passthrough());
}

#[test]
fn a_usual_webcam_gives_its_raw_picture_while_that_is_fast_enough() {
    let modes = [
        one(Yuyv, 640, 480, &[30, 15]),
        one(Yuyv, 1280, 720, &[10, 5]),
        one(Mjpeg, 640, 480, &[30]),
        one(Mjpeg, 1280, 720, &[30]),
        one(Mjpeg, 1920, 1080, &[30]),
    ];
    assert_eq!(chosen(&modes, wanted(640, 480, 30)), "640x480 at 30 fps YUYV");
    assert_eq!(chosen(&modes, wanted(1280, 720, 30)), "1280x720 at 30 fps MJPG");
    assert_eq!(chosen(&modes, wanted(1280, 720, 10)), "1280x720 at 10 fps YUYV");
    assert_eq!(chosen(&modes, wanted(1920, 1080, 30)), "1920x1080 at 30 fps MJPG");
}

#[test]
fn sixteen_to_nine_is_made_from_the_next_larger_size_without_stretching() {
    // MentraOS issue 2571: 854x480 and 1024x576 from a sensor that has neither.
    let modes = [one(Nv12, 640, 480, &[30]), one(Nv12, 1280, 960, &[30]), one(Nv12, 1920, 1440, &[30])];
    assert_eq!(chosen(&modes, wanted(854, 480, 30)), "1280x960 at 30 fps NV12 crop 0,0,120,120 -> 854x480");
    assert_eq!(chosen(&modes, wanted(1024, 576, 30)), "1280x960 at 30 fps NV12 crop 0,0,120,120 -> 1024x576");
}

#[test]
fn what_rounding_to_even_numbers_leaves_is_not_cropped() {
    let hd = [one(Nv12, 1920, 1080, &[30])];
    for (width, height) in [(426, 240), (854, 480), (1366, 768)] {
        let expected = format!("1920x1080 at 30 fps NV12 -> {width}x{height}");
        assert_eq!(chosen(&hd, wanted(width, height, 30)), expected);
    }
    let small = [one(Nv12, 640, 360, &[30])];
    assert_eq!(chosen(&small, wanted(854, 480, 30)), "640x360 at 30 fps NV12 too small");
}

#[test]
fn a_crop_alone_is_cheaper_than_scaling() {
    let modes = [one(Nv12, 1280, 720, &[30]), one(Nv12, 864, 480, &[30])];
    assert_eq!(chosen(&modes, wanted(854, 480, 30)), "864x480 at 30 fps NV12 crop 4,6,0,0 -> 854x480");
}

#[test]
fn the_same_shape_is_preferred_but_not_at_any_price() {
    let small = one(Yuyv, 640, 480, &[30]);
    let cropped = "640x480 at 30 fps YUYV crop 0,0,60,60 -> 640x360";
    let modes = [small.clone(), one(Yuyv, 1280, 720, &[30])];
    assert_eq!(chosen(&modes, wanted(640, 360, 30)), "1280x720 at 30 fps YUYV -> 640x360");
    let modes = [small.clone(), one(Mjpeg, 640, 360, &[30])];
    assert_eq!(chosen(&modes, wanted(640, 360, 30)), "640x360 at 30 fps MJPG");
    let modes = [small, one(Mjpeg, 1920, 1080, &[30])];
    assert_eq!(chosen(&modes, wanted(640, 360, 30)), cropped);
}

#[test]
fn the_slowest_rate_that_does_is_taken_else_the_fastest() {
    let modes = [one(Yuyv, 640, 480, &[60, 30, 15, 10])];
    assert_eq!(chosen(&modes, wanted(640, 480, 20)), "640x480 at 30 fps YUYV");
    assert_eq!(chosen(&modes, wanted(640, 480, 1)), "640x480 at 10 fps YUYV");
    assert_eq!(chosen(&modes, wanted(640, 480, 120)), "640x480 at 60 fps YUYV too slow");
    let ntsc = Rates::List(vec![FrameRate::new(30000, 1001).unwrap(), fps(60)]);
    let modes = [ModeRange { rates: ntsc, ..modes[0].clone() }];
    assert_eq!(chosen(&modes, wanted(640, 480, 30)), "640x480 at 29.97 fps YUYV");
}

#[test]
fn where_nothing_is_large_enough_the_most_is_given_and_said() {
    let modes = [one(Yuyv, 320, 240, &[30]), one(Yuyv, 640, 480, &[30]), one(Yuyv, 640, 480, &[5])];
    assert_eq!(chosen(&modes, wanted(1920, 1080, 30)), "640x480 at 30 fps YUYV crop 0,0,60,60 -> 640x360 too small");
    // Short in one direction, never over in the other.
    let modes = [one(Nv12, 998, 502, &[30])];
    assert_eq!(chosen(&modes, wanted(1000, 500, 30)), "998x502 at 30 fps NV12 -> 998x500 too small");
    // Few frames a second are a loss like few pixels are.
    let modes = [one(Yuyv, 1280, 720, &[2]), one(Yuyv, 640, 480, &[30])];
    assert_eq!(chosen(&modes, wanted(1280, 720, 30)), "640x480 at 30 fps YUYV crop 0,0,60,60 -> 640x360 too small");
}

#[test]
fn a_driver_that_does_not_tell_its_rates_is_not_asked_for_one() {
    let modes = [ModeRange { format: Nv12, sizes: Sizes::One(1280, 720), rates: Rates::Unknown }];
    assert_eq!(chosen(&modes, wanted(1280, 720, 30)), "1280x720 NV12");
}

#[test]
fn a_grid_gives_the_very_size_or_the_next_in_its_shape() {
    assert_eq!(chosen(&[grid((32, 32), (2592, 1944), (2, 2))], wanted(854, 480, 30)), "854x480 at 30 fps NV12");
    let coarse = [grid((64, 64), (1920, 1088), (64, 16))];
    assert_eq!(chosen(&coarse, wanted(854, 480, 30)), "896x480 at 30 fps NV12 crop 20,22,0,0 -> 854x480");
    // Below the least size: enlarged in its shape, then scaled down.
    let large = [grid((640, 480), (1920, 1440), (1, 1))];
    assert_eq!(chosen(&large, wanted(320, 180, 30)), "854x480 at 30 fps NV12 -> 320x180");
    // Above the largest.
    let small = [grid((32, 32), (1600, 1200), (2, 2))];
    assert_eq!(chosen(&small, wanted(1920, 1080, 30)), "1600x900 at 30 fps NV12 too small");
}

#[test]
fn odd_sizes_become_even() {
    assert_eq!(chosen(&[one(Yuyv, 640, 480, &[30])], wanted(641, 481, 30)), "640x480 at 30 fps YUYV");
    let odd = [one(Yuyv, 641, 481, &[30])];
    assert_eq!(chosen(&odd, wanted(640, 480, 30)), "641x481 at 30 fps YUYV crop 0,1,0,1 -> 640x480");
}

#[test]
fn what_no_picture_can_be_made_of_is_not_chosen() {
    let bayer = PixelFormat::from_fourcc(FourCC::new(b"RG10"));
    assert_eq!(choose(&[one(bayer, 1920, 1080, &[30]), one(Nv12, 0, 0, &[30])], wanted(640, 480, 30)), None);
}

#[test]
fn sizes_are_those_that_a_driver_enumerates() {
    let vga = framesize::Discrete { width: 640, height: 480 };
    assert_eq!(Sizes::from(FrameSizeEnum::Discrete(vga)), Sizes::One(640, 480));
    // A step of 0 stands in a grid of one size.
    let grid = framesize::Stepwise {
        min_width: 16,
        max_width: 1920,
        step_width: 8,
        min_height: 90,
        max_height: 90,
        step_height: 0,
    };
    let expected = Sizes::Grid { min: (16, 90), max: (1920, 90), step: (8, 1) };
    assert_eq!(Sizes::from(FrameSizeEnum::Stepwise(grid)), expected);
}

#[test]
fn rates_are_one_over_the_intervals_that_a_driver_enumerates() {
    let one = |seconds, frames| FrameIntervalEnum::Discrete(Fraction::new(seconds, frames));
    let range = |min, max| {
        let step = Fraction::new(1, 1);
        FrameIntervalEnum::Stepwise(frameinterval::Stepwise { min, max, step })
    };
    let rates = Rates::from_intervals(&[one(1, 30), one(1001, 30000), one(2, 60), one(0, 1)]);
    assert_eq!(rates, Rates::List(vec![FrameRate::new(30000, 1001).unwrap(), fps(30)]));
    let (short, long) = (Fraction::new(1, 90), Fraction::new(1, 5));
    assert_eq!(Rates::from_intervals(&[range(short, long)]), Rates::Range(fps(5), fps(90)));
    assert_eq!(Rates::from_intervals(&[range(long, short)]), Rates::Unknown, "the wrong way round");
    assert_eq!(Rates::from_intervals(&[one(1, 30), range(short, long)]), Rates::List(vec![fps(30), fps(90)]));
    assert_eq!(Rates::from_intervals(&[]), Rates::Unknown);
}

#[test]
fn rates_are_fractions() {
    assert_eq!(FrameRate::new(30, 0), None);
    assert_eq!(FrameRate::new(60, 2), FrameRate::new(30, 1));
    assert!(FrameRate::new(30000, 1001).unwrap() < fps(30));
    assert_eq!(FrameRate::new(15, 2).unwrap().to_string(), "7.5 fps");
    assert_eq!(fps(100).to_string(), "100 fps");
}

fn any_range() -> impl Strategy<Value = ModeRange> {
    let format = prop::sample::select(vec![Nv12, Yuyv, Mjpeg, H264]);
    let size = (0u32..5000, 0u32..5000);
    let sizes = prop_oneof![
        size.clone().prop_map(|(width, height)| Sizes::One(width, height)),
        (size.clone(), size, (1u32..65, 1u32..65)).prop_map(|(a, b, step)| Sizes::Grid {
            min: (a.0.min(b.0), a.1.min(b.1)),
            max: (a.0.max(b.0), a.1.max(b.1)),
            step
        }),
    ];
    let rates = prop_oneof![
        prop::collection::vec(1u32..121, 0..4).prop_map(|rates| Rates::List(rates.into_iter().map(fps).collect())),
        (1u32..121, 1u32..121).prop_map(|(a, b)| Rates::Range(fps(a.min(b)), fps(a.max(b)))),
        Just(Rates::Unknown),
    ];
    (format, sizes, rates).prop_map(|(format, sizes, rates)| ModeRange { format, sizes, rates })
}

fn offers(range: &ModeRange, mode: Mode) -> bool {
    let size = match range.sizes {
        Sizes::One(width, height) => (width, height) == (mode.width, mode.height),
        Sizes::Grid { min, max, step } => {
            let on = |value: u32, min: u32, max: u32, step: u32| {
                (min..=max).contains(&value) && (value - min).is_multiple_of(step)
            };
            on(mode.width, min.0, max.0, step.0) && on(mode.height, min.1, max.1, step.1)
        }
    };
    let rate = match (&range.rates, mode.frame_rate) {
        (Rates::List(rates), Some(rate)) => rates.contains(&rate),
        (Rates::List(rates), None) => rates.is_empty(),
        (Rates::Range(slowest, fastest), Some(rate)) => (*slowest..=*fastest).contains(&rate),
        (Rates::Unknown, rate) => rate.is_none(),
        (Rates::Range(..), None) => false,
    };
    range.format == mode.format && size && rate
}

proptest! {
    #[test]
    fn the_picture_is_offered_never_enlarged_and_never_stretched(
        modes in prop::collection::vec(any_range(), 1..8),
        width in 2u32..4000, height in 2u32..4000, rate in 1u32..121,
    ) {
        let Some(choice) = choose(&modes, wanted(width, height, rate)) else {
            let tiny = |sizes: Sizes| match sizes {
                Sizes::One(width, height) => width < 2 || height < 2,
                // A grid from 0 in steps beyond its end has nothing but its beginning.
                Sizes::Grid { min, .. } => min.0 < 2 || min.1 < 2,
            };
            prop_assert!(modes.iter().all(|range| tiny(range.sizes)), "nothing chosen");
            return Ok(());
        };
        prop_assert!(modes.iter().any(|range| offers(range, choice.mode)), "{:?}", choice.mode);
        let (region_width, region_height) = choice.region();
        prop_assert!(choice.width <= region_width && choice.height <= region_height, "enlarged: {choice:?}");
        prop_assert!(choice.width <= even(width).max(2) && choice.height <= even(height).max(2));
        prop_assert!(choice.width.is_multiple_of(2) && choice.height.is_multiple_of(2));
        prop_assert!(choice.crop.left.is_multiple_of(2) && choice.crop.top.is_multiple_of(2));
        // Half a percent, and what rounding to even numbers makes of small pictures.
        let stretch = f64::from(region_width) * f64::from(choice.height)
            / (f64::from(region_height) * f64::from(choice.width));
        let rounding = 2.0 / f64::from(choice.width.min(choice.height));
        prop_assert!((stretch - 1.0).abs() <= 0.0052 + rounding, "stretched by {stretch}: {choice:?}");
    }

    #[test]
    fn more_to_choose_from_never_makes_it_worse(
        modes in prop::collection::vec(any_range(), 1..6), more in any_range(),
        width in 2u32..4000, height in 2u32..4000, rate in 1u32..121,
    ) {
        let asked = wanted(even(width), even(height), rate);
        if let Some(before) = choose(&modes, asked) {
            let after = choose(modes.iter().chain([&more]), asked).unwrap();
            prop_assert!(fulfilled(&after, asked) >= fulfilled(&before, asked));
        }
    }
}
