//! How far back viewers can go, and how much memory that takes.

use super::*;

#[test]
fn numbers_never_come_again_and_what_left_the_playlist_stays_for_a_while() {
    let (packager, recorded) = play(&[Publication { frames: 3000, ..Publication::default() }]);
    let track = &packager.presentation().unwrap().video;
    let first = track.listed().next().unwrap().number;
    assert!(track.segment(first - 10).is_some(), "listed a moment ago");
    assert!(track.segment(FIRST).is_none(), "not for ever");
    assert_eq!(recorded.segments[0].first().unwrap().0, FIRST);
    let open = track.segment(first).unwrap();
    assert_eq!(track.part(open.first_part).unwrap().data, open.parts[0].data);
}

#[test]
fn memory_is_bounded_by_bytes() {
    let mut packager = Packager::new(Settings { bytes: 200_000, ..settings() });
    for frame in (Publication { frames: 3000, ..Publication::default() }).frames(1, 0) {
        packager.push(&Arc::new(frame));
    }
    let track = &packager.presentation().unwrap().video;
    assert!(track.bytes() < 250_000, "{}", track.bytes());
    assert!(track.listed().len() >= 3);
}

#[test]
fn what_memory_does_not_suffice_for_is_not_announced_and_what_left_the_playlist_stays_all_the_same() {
    let mut packager = Packager::new(Settings { bytes: 320_000, ..settings() });
    for frame in (Publication { frames: 3000, ..Publication::default() }).frames(1, 0) {
        packager.push(&Arc::new(frame));
    }
    let now = packager.presentation().unwrap();
    let track = &now.video;
    let (first, listed) = (track.listed().next().unwrap(), track.listed().len() as u64);
    assert!(track.segment(first.number + 1 - listed).is_some(), "{listed} are listed, fewer stay after that");
    let text = dash::manifest(now, "", SystemTime::now());
    let depth = text.split_once(" timeShiftBufferDepth=\"PT").unwrap().1.split_once('S').unwrap().0;
    let (depth, held): (f64, _) = (depth.parse().unwrap(), track.time(track.end() - first.start).as_secs_f64());
    assert!(depth > 3.0 && depth <= held, "{depth} of {held}");
}

#[test]
fn the_window_is_announced_from_the_beginning() {
    for frames in [60, 900] {
        let mut packager = Packager::new(settings());
        for frame in (Publication { frames, ..Publication::default() }).frames(1, 0) {
            packager.push(&Arc::new(frame));
        }
        let text = dash::manifest(packager.presentation().unwrap(), "", SystemTime::now());
        assert!(text.contains(" timeShiftBufferDepth=\"PT12.000000S\""), "{text}");
    }
}

#[test]
fn memory_before_a_segment_is_closed_is_bounded_by_bytes_whatever_timestamps_say() {
    for begun in [0, 60] {
        let mut packager = Packager::new(Settings { bytes: 200_000, unclosed: 100_000, ..settings() });
        let (video, audio) = (video_format(HIGH), audio_format());
        let before = (Publication { frames: begun, ..Publication::default() }).frames(1, 0);
        let flood = (2000..3500).flat_map(|ms: u64| {
            let picture = Media::Video { format: video.clone(), pts: Duration::from_millis(ms), key: true };
            let sound = ms.is_multiple_of(10).then(|| Media::Audio { format: audio.clone() });
            sound.into_iter().chain([picture]).map(move |media| frame(1, ms, media, vec![0; 5000]))
        });
        let mut sent: Vec<Arc<Frame>> = Vec::new();
        for frame in before.into_iter().chain(flood) {
            let frame = Arc::new(frame);
            packager.push(&frame);
            sent.push(frame);
            let kept = sent.iter().filter(|frame| Arc::strong_count(frame) > 1 || !frame.data.is_unique());
            let kept: usize = kept.map(|frame| frame.data.len()).sum();
            let closed: usize = packager.presentation().map_or(0, |now| now.tracks().map(Track::bytes).sum());
            assert!(kept + closed < 1_000_000, "{kept} and {closed} bytes of {} frames", sent.len());
        }
        for frame in Publication::default().frames(2, 60_000) {
            packager.push(&Arc::new(frame));
        }
        assert_eq!(packager.presentation().unwrap().publication(), 2, "who publishes then is seen");
    }
}

#[test]
fn ten_megabits_a_second_with_rare_key_frames_are_not_too_much() {
    let mut packager = Packager::new(settings());
    for frame in (Publication { gop: 250, ..Publication::default() }).frames(1, 0) {
        let data = if frame.is_video() { Bytes::from(vec![0; 10_000_000 / 8 / 30]) } else { frame.data.clone() };
        packager.push(&Arc::new(Frame { data, ..frame }));
    }
    assert_eq!(packager.presentation().unwrap().epochs.len(), 1);
}
