//! Playlists keep the rules, whatever publishers do.

use proptest::prelude::*;

use super::*;

#[test]
fn a_stream_with_an_early_key_frame_is_playable_after_half_a_second() {
    let mut packager = Packager::new(settings());
    let frames = Publication::default().frames(1, 0);
    let playable = frames.into_iter().find(|frame| {
        packager.push(&Arc::new(frame.clone()));
        packager.presentation().is_some_and(Presentation::is_playable)
    });
    let at = playable.unwrap().dts;
    assert!(at <= Duration::from_millis(530), "{at:?}");
}

#[test]
fn parts_are_whole_frames_and_the_live_edge_is_near() {
    let (packager, recorded) = play(&[Publication { frames: 900, ..Publication::default() }]);
    // 2 segments of half a second, then one per second, each with five parts.
    assert_eq!((recorded.video.segments, recorded.audio.segments), (31, 31));
    let now = packager.presentation().unwrap();
    assert!(now.video.listed().all(|segment| segment.parts.len() == 5));
    assert!(now.video.listed().all(|segment| segment.parts[0].independent && segment.parts[0].samples_are(200)));
    let text = hls::multivariant(now);
    assert!(text.contains("RESOLUTION=1280x720,FRAME-RATE=30.000,AUDIO=\"audio\""), "{text}");
    assert!(text.contains("CODECS=\"avc1.64001f,mp4a.40.2\""), "{text}");
}

trait Lasts {
    fn samples_are(&self, ms: u64) -> bool;
}

impl Lasts for crate::playback::track::Part {
    fn samples_are(&self, ms: u64) -> bool {
        self.duration.abs_diff(ms * 90) <= 180
    }
}

#[test]
fn a_picture_that_stands_still_is_no_hole() {
    for still in [100, 250, 500, 700, 950] {
        for gop in [0, 250] {
            let (_, recorded) = play(&[Publication { gop, still, ..Publication::default() }]);
            let parts: Vec<_> = recorded.segments[0].iter().flat_map(|(_, data)| fragments(data)).collect();
            let whole = parts.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0);
            assert!(whole, "{still} ms at a GOP of {gop}: {parts:?}");
            assert!(parts.iter().any(|part| part.1 >= still * 90), "it lasts as long as it did: {parts:?}");
        }
    }
}

#[test]
fn what_is_left_of_a_lost_publication_is_there_before_the_next() {
    let mut packager = Packager::new(settings());
    let mut rules = [Rules::default(), Rules::default()];
    let mut check = |now: &Presentation| {
        for (rules, kind) in rules.iter_mut().zip([Kind::Video, Kind::Audio]) {
            rules.check(&hls::media(now, kind).unwrap());
        }
    };
    let lost = Publication { frames: 73, ..Publication::default() };
    lost.frames(1, 0).into_iter().for_each(|frame| packager.push(&Arc::new(frame)));
    check(packager.presentation().unwrap());
    packager.finish(1);
    packager.finish(1);
    let now = packager.presentation().unwrap();
    check(now);
    for track in [&now.video, now.audio.as_ref().unwrap()] {
        let whole: u64 = track.listed().map(|segment| segment.duration).sum();
        assert!(track.time(whole) > Duration::from_millis(2400), "DASH plays it to its end");
        let closed = track.followed().map(|segment| segment.duration).sum();
        assert!(track.time(closed) < Duration::from_millis(2100), "HLS has the rest in parts");
    }
    check_manifest(now);
    Publication::default().frames(2, 9000).into_iter().take(60).for_each(|frame| packager.push(&Arc::new(frame)));
    let now = packager.presentation().unwrap();
    check(now);
    assert_eq!(now.epochs.len(), 2);
}

#[test]
fn rare_key_frames_break_no_promise() {
    let (_, recorded) = play(&[Publication { frames: 900, gop: 250, ..Publication::default() }]);
    assert!(recorded.video.segments >= 12);
}

fn publication() -> impl Strategy<Value = Publication> {
    let sound = prop_oneof![
        4 => Just(Sound::All),
        1 => Just(Sound::None),
        1 => (0..5000u64).prop_map(Sound::Late),
        1 => (0..5000u64).prop_map(Sound::Early),
        1 => (0..5000u64, 0..5000u64).prop_map(|(from, to)| Sound::Lost(from, from + to)),
    ];
    let fps = prop::sample::select(vec![10u64, 15, 24, 25, 30, 50, 60]);
    let gop = prop_oneof![Just(0u64), 8..300u64];
    // With the frame that ends it and the jitter less than a second, after which an epoch ends and waits for a key
    // frame.
    let still = prop_oneof![2 => Just(0u64), 1 => 0..890u64];
    (0..4000u64, 1..400u64, fps, gop, 0..8u64, any::<bool>(), sound, any::<bool>(), still).prop_map(
        |(gap, frames, fps, gop, jitter, reordered, sound, other, still)| Publication {
            gap,
            frames,
            fps,
            gop,
            jitter,
            reordered,
            sound,
            other,
            still,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn playlists_keep_the_rules_whatever_the_publishers_do(
        mut publications in prop::collection::vec(publication(), 1..5),
    ) {
        // The first publication's pictures determine the part target; another rate has a test of its own.
        let fps = publications[0].fps;
        for publication in &mut publications {
            publication.fps = fps;
        }
        let (_, recorded) = play(&publications);
        let mut samples = 0;
        for (kind, segments) in recorded.segments.iter().enumerate() {
            let mut end = 0;
            for (start, duration, count) in segments.iter().flat_map(|(_, data)| fragments(data)) {
                prop_assert!(start >= end, "{start} overlaps {end}");
                end = start + duration;
                samples += if kind == 0 { count } else { 0 };
            }
        }
        let sent = publications.iter().flat_map(|publication| publication.frames(1, 0)).filter(Frame::is_video).count();
        prop_assert_eq!(samples, sent as u64);
    }

    #[test]
    fn a_publisher_with_another_frame_rate_breaks_no_upper_limit(first in publication(), second in publication()) {
        let mut packager = Packager::new(settings());
        for frame in first.frames(1, 0).into_iter().chain(second.frames(2, 60_000)) {
            packager.push(&Arc::new(frame));
        }
        packager.end();
        let track = &packager.presentation().unwrap().video;
        for segment in track.listed() {
            prop_assert!(segment.parts.iter().all(|part| part.duration <= track.part_target));
            prop_assert!((track.time(segment.duration).as_secs_f64()).round() <= 2.0);
        }
    }
}
