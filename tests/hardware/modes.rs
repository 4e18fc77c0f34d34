//! The cameras that the daemon lists, and their modes, beside what `v4l2-ctl` makes of the same drivers.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Guest, GuestDaemon};

/// Several modes of a format, sizes and rates of their own; its name is cut off after 31 bytes, within a character.
const WEBCAM: &str = "--name 'xBürokamera für Körper ÄÖÜ größer' --mode yuyv:640x480@30,15 --mode yuyv:320x240@60,5 \
                      --mode mjpeg:1280x720@30 --mode h264:320x240@24";
/// A camera, an HDMI input, and a camera whose planes are buffers of their own.
const VIVID: &str = "vivid n_devs=3 node_types=0x1,0x1,0x1 input_types=0x0,0x3,0x0 multiplanar=1,1,2";

#[test]
fn each_camera_is_listed_with_the_modes_that_v4l2_ctl_finds() {
    let guest = Guest::boot();
    guest.hardware("encoder");
    let webcam = guest.webcam("0001", WEBCAM);
    guest.hardware(VIVID);
    let daemon = GuestDaemon::start(&guest, "");
    let reply = daemon.control().granted(&json!({"cmd": "camera_list"}));
    let listed = reply["cameras"].as_array().expect("a list");
    // `v4l2-ctl` tells no rates of a grid of sizes.
    let without_rate = |mode: String| match (mode.split_once(" at "), mode.contains(" to ")) {
        (Some((sizes, _)), true) => format!("{sizes} {}", mode.rsplit(' ').next().expect("a format")),
        _ => mode,
    };
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();

    let mut cameras = 0;
    for device in listed {
        let (node, kind) = (text(&device["node"]), text(&device["kind"]));
        let modes = device["modes"].as_array().expect("a list").iter();
        let modes: BTreeSet<String> = modes.map(|mode| without_rate(text(mode))).collect();
        if kind.starts_with("camera, ") {
            cameras += 1;
            let offered = offered(&guest.shell(&format!("v4l2-ctl -d {node} --list-formats-ext")));
            assert!(!offered.is_empty(), "{device}");
            assert_eq!(modes, offered, "{device}");
        } else {
            assert_eq!(modes, BTreeSet::new(), "{device}");
        }
        if node == webcam.node() {
            assert_eq!(device["name"], "xBürokamera für Körper ÄÖ\u{fffd}", "{device}");
        }
    }
    assert_eq!(cameras, 4, "{reply}");
    let count = |kind: &str| listed.iter().filter(|device| text(&device["kind"]).starts_with(kind)).count();
    assert_eq!((count("encoder for H264"), count("metadata")), (1, 1), "{reply}");
    daemon.finish();
}

/// What `v4l2-ctl --list-formats-ext` says, in the words of `camera_list`: the fastest rate of each format and size.
fn offered(said: &str) -> BTreeSet<String> {
    let mut format = String::new();
    let mut modes: Vec<(String, String, Option<f64>)> = Vec::new();
    for line in said.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [index, code, ..] if index.starts_with('[') => format = shown(code),
            ["Size:", "Discrete", size] => modes.push((size.to_owned(), format.clone(), None)),
            ["Size:", "Stepwise", smallest, "-", largest, ..] => {
                modes.push((format!("{smallest} to {largest}"), format.clone(), None));
            }
            ["Interval:", "Discrete", _, rate, "fps)"] => {
                let rate = rate.trim_start_matches('(').parse().expect("a rate");
                let (.., fastest) = modes.last_mut().expect("a rate follows its size");
                *fastest = Some(fastest.unwrap_or(0.0).max(rate));
            }
            _ => assert!(!line.contains("Interval") && !line.contains("Size:"), "not understood: {line}"),
        }
    }
    let in_words = |(size, format, fastest): (String, String, Option<f64>)| match fastest {
        Some(rate) => format!("{size} at {rate} fps {format}"),
        None => format!("{size} {format}"),
    };
    modes.into_iter().map(in_words).collect()
}

/// The code of a format as it is listed: that of the format with all planes in one buffer, and without the byte order.
fn shown(code: &str) -> String {
    match code.trim_matches('\'').trim_end_matches("-BE") {
        "NM12" => "NV12",
        "NM21" => "NV21",
        "YM12" => "YU12",
        "YM21" => "YV12",
        "JPEG" => "MJPG",
        other => other,
    }
    .to_owned()
}
