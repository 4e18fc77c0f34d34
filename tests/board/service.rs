//! The service as systemd runs it on the board, in its full sandbox: goes live on the phone's request, and recovers
//! from whatever happens to its process or its camera.

use std::time::{Duration, Instant};

use crate::scene::{BACK, LIVE, SERVICE, Servers, UP, WATCHDOG, WEBCAM, brightness, configure, control, disk};
use crate::support::{Board, board};

/// Limit for stopping: three times the promised 3 s.
const STOPPED: Duration = Duration::from_secs(9);
/// Limit for noticing: three times the promised 3 s.
const NOTICED: Duration = Duration::from_secs(9);
/// Limit for what systemd does at once, on a slow board.
const SOON: Duration = Duration::from_secs(20);
const STREAM: &str = "stream-1";

/// Asserts that the daemon's sandbox holds, also for a program put into its mounts or its control group.
fn sandboxed(board: &Board, pid: &str) {
    let score = board.shell("systemd-analyze security lenscastd | tail -n 1");
    println!("{}", score.trim());
    let exposure =
        score.split("lenscastd.service: ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(exposure.is_some_and(|exposure| exposure <= 1.5), "{score}");

    let status = board.read(&format!("/proc/{pid}/status"));
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    // systemd silently omits a sandbox that the kernel does not support; these two work.
    let touch = format!("nsenter --target {pid} --mount touch /usr/lib/x 2>&1 || true");
    assert!(board.shell(&touch).contains("Read-only file system"), "ProtectSystem= holds");
    let group = format!("/sys/fs/cgroup{}/cgroup.procs", board.property(SERVICE, "ControlGroup"));
    let read = format!("(echo $BASHPID > {group}; head -c 1 /dev/kmsg 2>&1 || true)");
    assert!(board.shell(&read).contains("Operation not permitted"), "DevicePolicy= holds");
}

/// Applies a fault to the service, and waits for frames in a new publication; prints how long that took.
fn comes_back(servers: &Servers, within: Duration, what: &str, fault: impl FnOnce()) {
    let before = servers.recordings.count();
    let begun = Instant::now();
    fault();
    servers.recordings.wait_frames(before, 1, within);
    println!("live again {:.1} s after {what}", begun.elapsed().as_secs_f64());
    servers.recordings.wait_frames(before, 15, BACK);
}

#[test]
fn the_service_goes_live_and_comes_back() {
    let (_folder, disk) = disk();
    let board = Board::boot(&disk);
    // Up without a camera or anything else that it may need.
    board.wait_service(SERVICE, "active", UP);
    assert_eq!(board.property(SERVICE, "Type"), "notify");
    assert_eq!(board.property(SERVICE, "NRestarts"), "0");
    println!("{}", board.property(SERVICE, "StatusText"));
    assert_ne!(board.property(SERVICE, "StatusText"), "", "a line of how it stands");

    let mut servers = Servers::start(&board);
    board.hardware("encoder");
    board.hardware("led privacy");
    board.hardware("sound");
    // Flashing takes longer than a phone's patience, and the phone is absent while the link is being handed over.
    let more = "[audio]\ndevice = \"auto\"\n[privacy_led]\nname = \"privacy\"\nrequire = true\n[stream]\n\
                keep_alive_timeout_s = 300\n";
    configure(&board, &format!("{}{more}", servers.phone.config()));
    servers.phone.wait_connected(UP);
    let webcam = board.webcam("0001", WEBCAM);
    // The node exists before udev has given it to its group.
    board.shell("udevadm settle");
    let begun = Instant::now();
    servers.ask(STREAM, "live", "key");
    servers.wait_status(STREAM, "streaming", LIVE);
    println!("live {:.1} s after the phone's word", begun.elapsed().as_secs_f64());
    servers.wait_publication(0, LIVE);
    assert_eq!(control(&board).status()["camera"]["encoder"], "v4l2");
    assert_ne!(brightness(&board), 0, "the light shines");

    let share = servers.share_of_frames();
    println!("{:.0} % of the frames arrived", share * 100.0);
    assert!(share >= 0.8, "{share}");
    servers.recordings.wait("sound", SOON, |all| (all.last()?.sound_ms().len() > 100).then_some(()));
    let pid = board.property(SERVICE, "MainPID");
    sandboxed(&board, &pid);
    let fields = board.shell(&format!("journalctl --quiet --output=cat STREAM_ID={STREAM} | wc -l"));
    assert_ne!(fields.trim(), "0", "the journal has the stream's id as a field");

    // kill -9: its light goes off, and the next process resumes the stream.
    servers.keep_alive(STREAM);
    let lit = board.shell("wc -l < /run/led-privacy.log");
    comes_back(&servers, BACK, "kill -9", || {
        board.shell(&format!("kill -KILL {pid}"));
    });
    let changes =
        board.shell(&format!("tail -n +{} /run/led-privacy.log", lit.trim().parse::<u32>().expect("a count") + 1));
    let levels: Vec<&str> = changes.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!(levels.first() == Some(&"0") && levels.last() == Some(&"255"), "off, then on again: {changes}");

    servers.wait_outage(STREAM, "daemon_restarted", SOON);

    // The watchdog kills a process that hangs.
    servers.keep_alive(STREAM);
    comes_back(&servers, WATCHDOG + BACK, "SIGSTOP", || {
        board.shell(&format!("kill -STOP {}", board.property(SERVICE, "MainPID")));
    });
    let told = board.shell("journalctl --quiet --unit=lenscastd --grep='watchdog' --output=cat | wc -l");
    assert_ne!(told.trim(), "0", "systemd's watchdog ended it");
    servers.wait_outage(STREAM, "daemon_restarted", SOON);
    servers.keep_alive(STREAM);

    // The camera goes and comes back, on the same connection.
    let before = servers.recordings.count();
    webcam.unplug();
    servers.wait_outage(STREAM, "camera_lost", NOTICED);
    webcam.plug();
    servers.wait_status(STREAM, "reconnected", BACK);
    servers.wait_more_frames(BACK);
    assert_eq!(servers.recordings.count(), before, "the server saw one publication");
    let causes = board.shell(&format!("journalctl --quiet --output=cat STREAM_ID={STREAM} CAUSE=camera_lost | wc -l"));
    assert_ne!(causes.trim(), "0", "the journal has the cause as a field");

    // Another version while live.
    servers.keep_alive(STREAM);
    comes_back(&servers, UP, "the beginning of an upgrade", || {
        let (status, said) = board.flash("root", &board::package());
        assert_eq!(status, 0, "{said}");
    });
    assert_eq!(control(&board).status()["stream"]["stream_id"], STREAM);

    let begun = Instant::now();
    board.shell("systemctl stop lenscastd.socket lenscastd");
    let took = begun.elapsed();
    println!("stopped in {:.1} s", took.as_secs_f64());
    assert!(took < STOPPED, "it took {took:?} to stop");
    assert_eq!(board.property(SERVICE, "Result"), "success");
    assert_eq!(brightness(&board), 0, "the light is off");
    let end = servers.recordings.count() - 1;
    servers.recordings.wait_closed(end, SOON);
}
