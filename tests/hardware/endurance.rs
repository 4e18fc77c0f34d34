//! The same cycle again and again: nothing may grow.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::live::{LIVE, Live, SIZE};
use crate::support::{Guest, poll_until};

/// Number of cycles; `make soak-hw` sets more.
fn cycles() -> usize {
    std::env::var("LENSCAST_CYCLES").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

/// A guest that lives as long as the cycles may take.
fn guest() -> Guest {
    Guest::boot_for(Duration::from_mins(2) + cycles() as u32 * Duration::from_secs(10))
}

/// The daemon's open files, threads, open video devices, and resident kilobytes.
fn resources(guest: &Guest, pid: u32) -> [u64; 4] {
    let read = guest.shell(&format!(
        "ls /proc/{pid}/fd | wc -l; ls /proc/{pid}/task | wc -l; \
         ls -l /proc/{pid}/fd | grep -c '/dev/video' || true; awk '/VmRSS/ {{ print $2 }}' /proc/{pid}/status"
    ));
    let numbers: Vec<u64> = read.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    numbers.try_into().expect("four of them")
}

/// Runs the cycles; files, threads and devices must return to their numbers after the first, and memory must not
/// climb.
fn nothing_grows(guest: &Guest, live: &mut Live, mut cycle: impl FnMut(&mut Live)) {
    let pid = live.daemon.program().pid();
    cycle(live);
    let first = resources(guest, pid);
    let mut memory = Vec::new();
    let mut grown = None;
    for number in 2..=cycles() {
        cycle(live);
        let now = resources(guest, pid);
        // A device that is still being closed may count here; only the end is asserted.
        if grown.is_none() && now[2] > first[2] {
            grown = Some((number, now));
        }
        memory.push(now[3]);
    }
    let mut now = first;
    let deadline = Instant::now() + LIVE;
    while Instant::now() < deadline {
        now = resources(guest, pid);
        if (0..3).all(|kind| now[kind] <= first[kind]) {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let files = guest
        .shell(&format!("ls -l /proc/{pid}/fd | sed 's/.*-> //'; cat /proc/{pid}/task/*/comm 2> /dev/null || true"));
    assert!(
        (0..3).all(|kind| now[kind] <= first[kind]),
        "files, threads, devices, kB were {first:?} after the first cycle and are {now:?}; devices first grew in cycle \
         {grown:?}: {files}"
    );
    let slope = slope(&memory[8..]); // the first of them is after the second cycle
    println!(
        "files, threads, devices, kB: {first:?} after the first cycle, {now:?} after {}; {slope:.1} kB a cycle after the tenth",
        cycles()
    );
    assert!(slope < 50.0, "memory grows by {slope:.0} kB a cycle: {memory:?}");
}

/// The average rise from one value to the next: the slope of the least-squares line, since an allocator's steps make
/// single values meaningless.
fn slope(values: &[u64]) -> f64 {
    let middle = (values.len() - 1) as f64 / 2.0;
    let (mut rise, mut run) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let from_middle = index as f64 - middle;
        rise += from_middle * *value as f64;
        run += from_middle * from_middle;
    }
    rise / run
}

#[test]
fn twenty_unplugs_leave_nothing_behind() {
    let guest = guest();
    let webcam = guest.webcam("0001", "--mode yuyv:320x240@30");
    let mut live = Live::begin(&guest, "", SIZE, 300_000);
    nothing_grows(&guest, &mut live, |live| {
        webcam.unplug();
        live.watch.wait_state("reconnecting", LIVE);
        // The simulator has one plug: it must be unplugged before it is plugged in again.
        poll_until("the node to go", LIVE, || (guest.shell("ls /dev").matches("video").count() == 0).then_some(()));
        webcam.plug();
        live.watch.wait_state("streaming", LIVE);
    });
    live.finish();
}

#[test]
fn twenty_streams_leave_nothing_behind() {
    let guest = guest();
    guest.hardware("encoder");
    guest.webcam("0001", "--mode yuyv:320x240@30");
    let mut live = Live::prepare(&guest, "");
    nothing_grows(&guest, &mut live, |live| {
        live.daemon.control().granted(&live.request(SIZE, 300_000));
        live.watch.wait_state("streaming", LIVE);
        live.daemon.control().granted(&json!({"cmd": "stop"}));
        live.watch.wait_state("stopped", LIVE);
    });
    let devices = format!("ls -l /proc/{}/fd | grep -c /dev/video || true", live.daemon.program().pid());
    poll_until("camera and encoder to be closed", LIVE, || (guest.shell(&devices).trim() == "0").then_some(()));
    live.daemon.finish();
}
