use std::os::fd::AsRawFd;
use std::path::Path;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use tokio::task::JoinHandle;

use super::*;

/// Far longer than anything here takes: a hang becomes a failure.
const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_hours(1);
/// Never impatient, so that each test shortens only what it tests.
const PATIENT: Timing =
    Timing { silence: NEVER, retry_first: Duration::from_millis(1), retry_most: Duration::from_millis(20), ..TIMING };

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(SOON, wait).await.expect("it hangs")
}

/// The phone's end of a line: the master of a pseudo-terminal.
struct Phone {
    port: Port,
    receiver: Receiver,
    /// Kept open: without it the master cannot be read before the link has opened its end.
    slave: std::os::fd::OwnedFd,
}

impl Phone {
    fn plug(device: &Path) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        // Raw from the beginning: a serial line has no echo.
        let mut settings = tcgetattr(&slave).unwrap();
        cfmakeraw(&mut settings);
        tcsetattr(&slave, SetArg::TCSANOW, &settings).unwrap();
        let name = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
        let _ = std::fs::remove_file(device);
        std::os::unix::fs::symlink(name, device).unwrap();
        Self { port: Port::of(master.into()).unwrap(), receiver: Receiver::default(), slave }
    }

    async fn send(&self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = soon(self.port.write(rest)).await.unwrap();
            rest = &rest[count..];
        }
    }

    async fn say(&self, text: &str) {
        self.send(&frames(text)).await;
    }

    async fn hear(&mut self) -> String {
        loop {
            let mut byte = [0];
            assert_eq!(soon(self.port.read(&mut byte)).await.unwrap(), 1);
            match self.receiver.push(byte[0], Duration::ZERO) {
                Some(Received::Message { text, .. }) => return text,
                Some(Received::Piece) | None => {}
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    fn unplug(self) {
        drop((self.port, self.slave));
    }
}

fn frames(text: &str) -> Vec<u8> {
    k900::pack(text, "-1_1_1", Toward::Glasses, LengthOrder::Little).unwrap().concat()
}

/// The glasses' end.
struct Glasses {
    events: mpsc::Receiver<LinkEvent>,
    outgoing: mpsc::Sender<Outgoing>,
    shutdown: watch::Sender<bool>,
    ran: JoinHandle<()>,
}

impl Glasses {
    fn start(device: &Path, timing: Timing) -> Self {
        let config = UartConfig { device: device.to_owned(), baud: 460_800, length_order: LengthOrder::Big };
        let (to_device, events) = mpsc::channel(1);
        let (outgoing, to_send) = mpsc::channel(8);
        let (shutdown, ordered) = watch::channel(false);
        let link = SerialLink { config, timing, events: to_device, outgoing: to_send, shutdown: ordered, sequence: 0 };
        Self { events, outgoing, shutdown, ran: tokio::spawn(link.run()) }
    }

    async fn event(&mut self) -> LinkEvent {
        soon(self.events.recv()).await.unwrap()
    }

    async fn send(&self, text: &str) {
        soon(self.outgoing.send(Outgoing::Text(text.into()))).await.unwrap();
    }
}

fn message(text: &str) -> LinkEvent {
    LinkEvent::Message(text.into())
}

const PING: &str = r#"{"type":"ping"}"#;

fn line() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("ttyS1");
    (folder, device)
}

#[tokio::test]
async fn it_is_up_from_the_first_message_and_messages_go_both_ways_amid_noise() {
    let (_folder, device) = line();
    let mut phone = Phone::plug(&device);
    let mut glasses = Glasses::start(&device, PATIENT);
    let long = format!(r#"{{"type":"start_stream","streamId":"{}"}}"#, "$$##".repeat(200));
    phone.send(b"\x00##0\xff\x01noise$$\x03\x1a\x11\x13\r\n##0\x00").await;
    phone.send(&frames("{\"type\":\"lost\"}")[..20]).await;
    phone.say(PING).await;
    phone.say(&long).await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    assert_eq!(glasses.event().await, message(PING));
    assert_eq!(glasses.event().await, message(&long));
    glasses.send(&long).await;
    glasses.send(r#"{"type":"pong"}"#).await;
    assert_eq!(phone.hear().await, long);
    assert_eq!(phone.hear().await, r#"{"type":"pong"}"#);
}

#[tokio::test]
async fn what_is_sent_before_a_phone_was_heard_is_thrown_away() {
    let (_folder, device) = line();
    let mut phone = Phone::plug(&device);
    let mut glasses = Glasses::start(&device, PATIENT);
    for _ in 0..20 {
        glasses.send(r#"{"type":"stale"}"#).await;
    }
    // A word from the chip does not prove that a phone is there.
    phone.send(b"##0\x15\x00{\"C\":\"cs_batv\",\"V\":1}$$").await;
    phone.say(PING).await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    assert_eq!(glasses.event().await, message(PING));
    glasses.send(r#"{"type":"fresh"}"#).await;
    assert_eq!(phone.hear().await, r#"{"type":"fresh"}"#);
}

#[tokio::test]
async fn a_device_that_vanishes_is_opened_again() {
    let (_folder, device) = line();
    let mut glasses = Glasses::start(&device, PATIENT);
    for _ in 0..3 {
        let phone = Phone::plug(&device);
        phone.say(PING).await;
        // Data sent before the device was opened may be lost with its buffers.
        while !matches!(timeout(Duration::from_millis(200), glasses.events.recv()).await, Ok(Some(LinkEvent::Up))) {
            phone.say(PING).await;
        }
        phone.unplug();
        while glasses.event().await != LinkEvent::Down {}
    }
}

#[tokio::test]
async fn a_phone_that_says_nothing_more_is_lost_and_comes_back_with_its_next_word() {
    let (_folder, device) = line();
    let phone = Phone::plug(&device);
    let mut glasses = Glasses::start(&device, Timing { silence: Duration::from_millis(50), ..PATIENT });
    for _ in 0..2 {
        phone.say(PING).await;
        assert_eq!(glasses.event().await, LinkEvent::Up);
        assert_eq!(glasses.event().await, message(PING));
        assert_eq!(glasses.event().await, LinkEvent::Down);
    }
}

#[tokio::test]
async fn who_does_not_read_is_given_up() {
    let (_folder, device) = line();
    let phone = Phone::plug(&device);
    let mut glasses = Glasses::start(&device, Timing { write: Duration::from_millis(50), ..PATIENT });
    phone.say(PING).await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    assert_eq!(glasses.event().await, message(PING));
    let text = format!(r#"{{"type":"{}"}}"#, "x".repeat(4000));
    let send = async {
        loop {
            glasses.outgoing.send(Outgoing::Text(text.clone())).await.unwrap();
        }
    };
    let down = soon(async {
        tokio::select! { () = send => unreachable!(), event = glasses.events.recv() => event }
    });
    assert_eq!(down.await, Some(LinkEvent::Down));
}

#[tokio::test]
async fn the_last_words_are_sent_at_shutdown() {
    let (_folder, device) = line();
    let mut phone = Phone::plug(&device);
    let mut glasses = Glasses::start(&device, PATIENT);
    phone.say(PING).await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    assert_eq!(glasses.event().await, message(PING));
    glasses.send(r#"{"type":"last"}"#).await;
    glasses.shutdown.send(true).unwrap();
    soon(glasses.ran).await.unwrap();
    assert_eq!(phone.hear().await, r#"{"type":"last"}"#);
}
