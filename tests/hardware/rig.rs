//! Tests the rig without the daemon: what it cannot do, no test built on it can show.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::support::{Guest, Process, guest, heavy, poll_until};

const SOON: Duration = Duration::from_secs(10);

/// Frames that `v4l2-ctl` gets from a camera, and its output if it gets none.
fn stream(guest: &Guest, node: &str, size: &str, format: &str, count: u32) -> String {
    let (width, height) = size.split_once('x').expect("a size");
    guest.shell(&format!(
        "timeout 20 v4l2-ctl -d {node} --set-fmt-video=width={width},height={height},pixelformat={format} \
         --set-parm=30 --stream-mmap=4 --stream-count={count} --stream-to=/host/{format} 2>&1"
    ))
}

#[test]
fn a_webcam_delivers_what_it_offers_in_each_format() {
    let guest = Guest::boot();
    let modes = "--mode yuyv:640x480@30,15 --mode mjpeg:1280x720@30 --mode h264:320x240@30";
    let webcam = guest.webcam("77", modes);
    let offers = guest.shell(&format!("v4l2-ctl -d {} --list-formats-ext", webcam.node()));
    assert_eq!(offers.matches("Interval").count(), 4, "{offers}");
    assert_eq!(guest.shell("cat /sys/bus/usb/devices/*/serial | grep -c '^77$'"), "1\n");

    let size_of = |format: &str| guest.shared().join(format).metadata().map_or(0, |file| file.len());
    stream(&guest, webcam.node(), "640x480", "YUYV", 30);
    assert_eq!(size_of("YUYV"), 30 * 640 * 480 * 2);
    for (format, size, probe_as) in [("MJPG", (1280, 720), "mjpeg"), ("H264", (320, 240), "h264")] {
        stream(&guest, webcam.node(), &format!("{}x{}", size.0, size.1), format, 30);
        let file = guest.shared().join(format);
        assert_eq!(decoded(probe_as, &file), format!("{},{},30", size.0, size.1), "{format}");
    }
}

fn decoded(format: &str, file: &Path) -> String {
    let shown = "stream=width,height,nb_read_frames";
    let arguments = ["-v", "error", "-f", format, "-count_frames", "-show_entries", shown, "-of", "csv=p=0"];
    let file = file.to_str().expect("a path in UTF-8");
    let output = crate::support::process::run("ffprobe", &[&arguments[..], &[file]].concat());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_webcam_can_be_unplugged_plugged_in_and_stalled() {
    let guest = Guest::boot();
    let webcam = guest.webcam("0001", "--mode yuyv:320x240@30");
    let there = || guest.shell("ls /dev/ | grep -c '^video' || true").trim() != "0";
    assert!(there());
    webcam.unplug();
    poll_until("the node to go", SOON, || (!there()).then_some(()));
    webcam.plug();
    poll_until("the node to come back", SOON, || there().then_some(()));
    assert!(stream(&guest, webcam.node(), "320x240", "YUYV", 10).contains('<'));

    webcam.stall();
    let frozen = guest.start(&["v4l2-ctl", "-d", webcam.node(), "--stream-mmap=4", "--stream-count=10"], &[]);
    poll_until("the stalled camera to be asked for frames", SOON, || {
        (webcam.log().matches("streaming").count() == 2).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(frozen.exited(), None, "{}", frozen.output());
    webcam.resume();
    assert_eq!(frozen.wait(SOON), 0);
}

#[test]
fn an_encoder_can_be_busy_fail_and_hang() {
    let guest = Guest::boot();
    let node = guest.hardware("encoder max_instances=1").remove(0);
    let encode = |frames: u32| {
        let line = format!(
            "exec v4l2-ctl -d {node} --set-fmt-video-out=width=320,height=240,pixelformat=NV12 --stream-mmap \
             --stream-out-mmap --stream-from=/dev/zero --stream-count={frames} --stream-to=/host/h264 2>&1"
        );
        guest.start(&["bash", "-c", &line], &[])
    };
    assert_eq!(encode(10).wait(SOON), 0);
    assert_eq!(decoded("h264", &guest.shared().join("h264")), "320,240,10");

    guest.set_encoder("hang", "1");
    let hanging = encode(10);
    // Whoever opens the device to ask may take its only place before it is taken.
    let opened = "/sys/module/vh264enc/parameters/opened";
    poll_until("the encoder to be in use", SOON, || (guest.read(opened) == "1\n").then_some(()));
    let busy = guest.start(&["v4l2-ctl", "-d", &node, "--info"], &[]);
    assert_ne!(busy.wait(SOON), 0, "it has one place");
    assert!(busy.output().contains("busy"), "{}", busy.output());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(hanging.exited(), None);
    hanging.signal(nix::sys::signal::Signal::SIGTERM);
    assert_ne!(hanging.wait(SOON), 0, "whoever stops it does not hang with it");
    guest.set_encoder("hang", "0");

    guest.set_encoder("fail_frames", "1");
    let failing = encode(10);
    failing.wait(SOON);
    assert_eq!(guest.read("/sys/module/vh264enc/parameters/fail_frames"), "0\n", "one frame failed");
}

#[test]
fn vivid_has_an_hdmi_input_of_720p() {
    let guest = Guest::boot();
    let node = guest.hardware("vivid n_devs=1 node_types=0x1 input_types=0x3").remove(0);
    guest.shell(&format!("v4l2-ctl -d {node} --set-dv-bt-timings cvt,width=1280,height=720,fps=60"));
    stream(&guest, &node, "1280x720", "YUYV", 30);
    let size = guest.shared().join("YUYV").metadata().map_or(0, |file| file.len());
    assert_eq!(size, 30 * 1280 * 720 * 2);
}

#[test]
fn sound_played_into_the_card_is_heard() {
    let guest = Guest::boot();
    guest.hardware("sound");
    let sine = "sine=frequency=1000:sample_rate=48000:duration=20";
    let play = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", sine, "-ac", "2", "-f", "alsa", "hw:0,0"];
    let player = guest.start(&play, &[]);
    // The loudness of what remains within 40 Hz of its pitch.
    let heard = guest.shell(
        "timeout 30 ffmpeg -hide_banner -f alsa -ac 2 -i hw:0,1 -t 2 -af bandpass=f=1000:w=40,volumedetect -f null - 2>&1",
    );
    let volume = heard.split("mean_volume: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(volume.is_some_and(|volume| volume > -40.0), "{heard}; {}", player.output());
}

/// Runs `run-guest.py` with a script of these lines.
fn script(lines: &str, options: &[&str]) -> (Process, NamedTempFile, NamedTempFile) {
    guest::prepare();
    let file = NamedTempFile::new().expect("a file for the script");
    std::fs::write(&file, format!("#!/bin/bash\n{lines}\n")).expect("the script can be written");
    let output = NamedTempFile::new().expect("a file for its output");
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hw-fixtures/run-guest.py"));
    command.args(options).arg("bash").arg(file.path()).stdin(Stdio::null());
    let both = output.reopen().expect("it is there");
    command.stdout(both.try_clone().expect("a descriptor to spare")).stderr(both);
    (Process::spawn(&mut command), file, output)
}

#[test]
fn scripts_run_side_by_side_and_leave_nothing() {
    let _turn = heavy::turn();
    let networks = || {
        let names = std::fs::read_dir("/sys/class/net").expect("sysfs is there").flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).collect::<HashSet<_>>()
    };
    let mut guests = [3, 4].map(|status| script(&format!("echo $address\nexit {status}"), &[]));
    let codes = guests.each_mut().map(|(process, ..)| process.wait(Duration::from_mins(1)).code());
    let said = guests.each_ref().map(|(.., output)| std::fs::read_to_string(output.path()).expect("UTF-8"));
    assert_eq!(codes, [Some(3), Some(4)], "{said:?}");
    assert!(said[0].starts_with("10.214.") && said[0] != said[1], "{said:?}");
    for address in &said {
        let parts: Vec<u32> = address.trim().split(['.', '/']).filter_map(|part| part.parse().ok()).collect();
        let tap = format!("lcg{}", (parts[2] * 256 + parts[3]) / 4);
        poll_until("the TAP device to go", SOON, || (!networks().contains(&tap)).then_some(()));
    }
}

#[test]
fn a_script_that_takes_too_long_is_ended() {
    let _turn = heavy::turn();
    let (mut process, _script, output) = script("echo begun; sleep 60", &["--limit", "2"]);
    assert_eq!(process.wait(Duration::from_mins(1)).code(), Some(124));
    let said = std::fs::read_to_string(output.path()).expect("UTF-8");
    assert!(said.contains("begun") && said.contains("time is over"), "{said}");
}
