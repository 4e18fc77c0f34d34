//! Sound that is missing, late, lost or ending.

use super::*;

#[test]
fn a_stream_without_sound_has_no_audio_group() {
    let (packager, recorded) = play(&[Publication { sound: Sound::None, ..Publication::default() }]);
    let text = hls::multivariant(packager.presentation().unwrap());
    assert!(!text.contains("AUDIO") && !text.contains("mp4a"), "{text}");
    assert!(recorded.video.segments >= 10 && recorded.audio.segments == 0);
}

#[test]
fn sound_that_comes_later_begins_a_period_and_that_ends_is_silence() {
    let late = Publication { sound: Sound::Late(3000), ..Publication::default() };
    let (packager, recorded) = play(std::slice::from_ref(&late));
    assert!(hls::multivariant(packager.presentation().unwrap()).contains("AUDIO=\"audio\""));
    assert!(recorded.audio.segments >= 5, "{}", recorded.audio.segments);
    let early = Publication { sound: Sound::Early(3000), ..Publication::default() };
    let (_, recorded) = play(&[early, late]);
    assert_eq!(recorded.audio.segments, recorded.video.segments);
    for (video, audio) in recorded.segments[0].iter().zip(&recorded.segments[1]) {
        let (video, audio) = (fragments(&video.1)[0].0 as f64 / 90_000.0, fragments(&audio.1)[0].0 as f64 / 44_100.0);
        assert!((video - audio).abs() < 0.15, "{video} and {audio}");
    }
}

#[test]
fn sound_that_is_lost_for_a_moment_is_silence_in_its_place() {
    for (from, to) in [(2000, 2100), (2000, 2400), (2000, 4000), (0, 150)] {
        let (_, recorded) = play(&[Publication { sound: Sound::Lost(from, to), ..Publication::default() }]);
        let segments = || recorded.segments[1].iter().flat_map(|(_, data)| fragments(data));
        assert!(segments().zip(segments().skip(1)).all(|(part, next)| part.0 + part.1 == next.0), "no hole");
        let frames: Vec<usize> = recorded.segments[1].iter().flat_map(|(_, data)| sizes(data)).collect();
        let sent = frames.iter().map(|&size| size == 50);
        let at = |ms: u64| ms * 441 / 10 / 1024;
        let silent: Vec<u64> = (0..).zip(sent).filter(|(n, sent)| !sent && *n < at(9900)).map(|(n, _)| n).collect();
        let (first, last) = (silent[0], silent[silent.len() - 1]);
        assert!(first.abs_diff(at(from)) <= 2 && last.abs_diff(at(to)) <= 2, "{from} to {to}: {first} to {last}");
        assert_eq!(silent.len() as u64, last - first + 1, "{from} to {to}");
    }
}

/// The sizes of all samples.
fn sizes(mut data: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let size = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
        if &data[4..8] == b"moof" {
            let moof = Moof::decode_body(&mut &data[8..size]).unwrap();
            found.extend(moof.traf[0].trun[0].samples.iter().map(|sample| sample.size.unwrap() as usize));
        }
        data = &data[size..];
    }
    found
}
