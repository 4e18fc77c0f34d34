//! Tests the harness itself on other publishers and servers: what it cannot see, no test built on it can.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Certificate, Namespace, Nginx, Process, Recordings, monotonic, probe};

const SOON: Duration = Duration::from_secs(15);

/// ffmpeg with a small picture, each frame stamped with number 42.
fn publisher(url: &str) -> Process {
    let stamp = "h264_metadata=sei_user_data=6c656e73636173742d7365712d6e6f21+000000000000002a00000000000f4240";
    let mut command = Command::new("ffmpeg");
    command.args([
        "-v",
        "error",
        "-re",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x240:rate=30",
        "-f",
        "lavfi",
        "-i",
        "sine",
    ]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30", "-b:v", "1000k"]);
    command.args(["-bsf:v", stamp, "-c:a", "aac", "-f", "flv", url]);
    Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

#[test]
fn a_server_killed_and_started_again_gives_two_recordings_with_stamps() {
    let mut nginx = Nginx::start();
    let recordings = nginx.recordings();
    for life in 0..2 {
        let _publisher = publisher(&nginx.url("live", "key"));
        let first = recordings.wait_first_frame(life, SOON);
        assert!(first.key && first.stamp.is_some_and(|s| s.sequence == 42 && s.encoded_us == 1_000_000));
        recordings.wait_frames(life, 30, SOON);
        nginx.kill();
        if life == 0 {
            nginx.launch();
        }
    }
    let all = recordings.finish();
    assert_eq!(all.len(), 2);
    for recording in all {
        let probe = probe::probe(&recording.path);
        assert_eq!(probe.codecs, ["h264", "aac"]);
        assert_eq!(probe.size, (320, 240));
        assert_eq!(probe.frames, recording.frames().len() as u64);
        assert!(!recording.sound_ms().is_empty());
    }
}

#[test]
fn a_cut_network_stops_arrivals_and_a_mended_one_brings_them_back() {
    let namespace = Namespace::new();
    let nginx = Nginx::start_in(&namespace);
    let recordings = nginx.recordings();
    let _publisher = publisher(&nginx.url("live", "key"));
    recordings.wait_frames(0, 30, SOON);
    namespace.cut();
    let cut = monotonic();
    std::thread::sleep(Duration::from_millis(700));
    namespace.mend();
    let mended = monotonic();
    recordings.wait("frames after the cut", SOON, |all| {
        let frames = all[0].frames();
        let pause = frames.windows(2).find(|w| w[1].at.saturating_sub(w[0].at) > Duration::from_millis(600))?;
        assert!(pause[0].at < cut + Duration::from_millis(100) && pause[1].at > mended);
        Some(())
    });
}

#[test]
fn a_slow_network_carries_what_it_is_told_to() {
    let namespace = Namespace::new();
    let nginx = Nginx::start_in(&namespace);
    namespace.limit(400);
    let recordings = nginx.recordings();
    let _publisher = publisher(&nginx.url("live", "key"));
    let count = recordings.wait("eight seconds of a slow stream", Duration::from_secs(30), |all| {
        let frames = all.first()?.frames();
        let (first, last) = (frames.first()?, frames.last()?);
        (last.at.saturating_sub(first.at) > Duration::from_secs(8)).then_some(frames.len())
    });
    assert!(
        (40..200).contains(&count),
        "{count} frames in 8 s through 400 kbit/s of a stream of 1 Mbit/s at 30 a second"
    );
}

#[test]
fn the_keyed_application_takes_its_key_only() {
    let nginx = Nginx::start();
    let recordings = nginx.recordings();
    let mut refused = publisher(&nginx.url("keyed", "wrong-key"));
    assert!(!refused.wait(SOON).success());
    assert_eq!(recordings.count(), 0);
    let _taken = publisher(&nginx.url("keyed", crate::support::nginx::GOOD_KEY));
    recordings.wait_first_frame(0, SOON);
    Recordings::wait_next_name();
    let mut second = publisher(&nginx.url("keyed", crate::support::nginx::GOOD_KEY));
    assert!(!second.wait(SOON).success(), "a second publisher of the same key is refused");
}

#[test]
fn only_the_signed_certificate_is_good_for_a_client_that_checks() {
    for (certificate, good) in [(Certificate::signed(), true), (Certificate::self_signed(), false)] {
        let nginx = Nginx::start_with(&certificate);
        let url = nginx.secure_url("127.0.0.1", "live", "key");
        let address = url.trim_start_matches("rtmps://").trim_end_matches("/live/key");
        let mut client = Command::new("openssl");
        client.args(["s_client", "-verify_return_error", "-verify_ip", "127.0.0.1", "-connect", address]);
        if good {
            client.arg("-CAfile").arg(certificate.authority());
        }
        let output = client.stdin(Stdio::null()).output().expect("openssl is installed");
        assert_eq!(output.status.success(), good, "{}", String::from_utf8_lossy(&output.stderr));
    }
}
