//! Many WebRTC viewers in one thread, with str0m as the client: they receive RTP and decode nothing.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::net::UdpSocket;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::load_hls::Tally;

/// A picture counts as late if its delay exceeds that of the viewer's fastest picture by this much, in seconds.
const LATE: f64 = 0.25;

#[derive(Default)]
struct Shared {
    counts: RefCell<bool>,
    ready: RefCell<usize>,
    tally: RefCell<Tally>,
}

struct Viewer {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    shared: Rc<Shared>,
    seen: bool,
    began: Instant,
    video: Option<Video>,
    session: String,
}

struct Video {
    first: u64,
    last: u64,
    received: u64,
    fastest: f64,
    delays: Vec<f64>,
}

/// Runs `count` viewers. `ready` is called when all receive pictures. In the tally, items are video packets and `late`
/// are the packets that never came; `failures` includes the pictures that came late.
pub fn run(url: &str, count: usize, time: Duration, ready: impl FnOnce()) -> Tally {
    str0m::crypto::from_feature_flags().install_process_default();
    let _ = rustls::crypto::ring::default_provider().install_default(); // reqwest wants one even for http://
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let shared = Rc::new(Shared::default());
    LocalSet::new().block_on(&runtime, async {
        let client = reqwest::Client::new();
        let (end, ended) = tokio::sync::watch::channel(false);
        let mut viewers = tokio::task::JoinSet::new();
        for _ in 0..count {
            let viewer = Viewer::join(&client, url, Rc::clone(&shared)).await;
            viewers.spawn_local(viewer.watch(ended.clone()));
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while *shared.ready.borrow() < count && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        shared.tally.borrow_mut().left_out = (count - *shared.ready.borrow()) as u64;
        // New viewers are sent a second of video at once.
        sleep(Duration::from_secs(2)).await;
        ready();
        *shared.counts.borrow_mut() = true;
        sleep(time).await;
        *shared.counts.borrow_mut() = false;
        end.send_replace(true);
        // The server sends for another 10 s to viewers that just vanish, which would disturb the next load.
        for session in viewers.join_all().await {
            let _ = client.delete(session).send().await; // it is over either way
        }
    });
    shared.tally.take()
}

impl Viewer {
    async fn join(client: &reqwest::Client, url: &str, shared: Rc<Shared>) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let local = socket.local_addr().expect("its address");
        let config = RtcConfig::new().set_rtp_mode(true).clear_codecs().enable_opus(true, false).enable_h264(true);
        let mut rtc = config.build(Instant::now());
        rtc.add_local_candidate(Candidate::host(local, "udp").expect("an address"));
        let mut changes = rtc.sdp_api();
        changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        let (offer, pending) = changes.apply().expect("an offer");
        let request = client.post(url).header("content-type", "application/sdp").body(offer.to_sdp_string());
        let answer = request.send().await.expect("the cloud answers");
        assert_eq!(answer.status(), 201);
        let location = answer.headers()["location"].to_str().expect("a path");
        let session = format!("http://{}{location}", crate::http_client::split(url).0);
        let answer = SdpAnswer::from_sdp_string(&answer.text().await.expect("text")).expect("an answer");
        rtc.sdp_api().accept_answer(pending, answer).expect("an answer to the offer");
        Self { rtc, socket, local, shared, seen: false, began: Instant::now(), video: None, session }
    }

    async fn watch(mut self, mut ended: tokio::sync::watch::Receiver<bool>) -> String {
        let mut buffer = [0; 2048];
        while self.rtc.is_alive() {
            let wake = loop {
                match self.rtc.poll_output().expect("a session") {
                    Output::Timeout(at) => break at,
                    // As always with UDP, a datagram that cannot be sent is lost.
                    Output::Transmit(out) => drop(self.socket.try_send_to(&out.contents, out.destination)),
                    Output::Event(Event::RtpPacket(packet)) => self.take(&packet),
                    Output::Event(_) => {}
                }
            };
            tokio::select! {
                _ = ended.changed() => break,
                () = tokio::time::sleep_until(wake.into()) => {
                    self.rtc.handle_input(Input::Timeout(Instant::now())).expect("a session");
                }
                _ = self.socket.readable() => self.receive(&mut buffer),
            }
        }
        let Some(video) = self.video else { return self.session };
        let mut tally = self.shared.tally.borrow_mut();
        let expected = video.last - video.first + 1;
        tally.items += expected;
        tally.late += expected.saturating_sub(video.received);
        for delay in video.delays {
            let late = delay - video.fastest;
            tally.failures += u64::from(late > LATE);
            tally.delays.push((late * 1000.0) as f32);
        }
        self.session
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        for _ in 0..16 {
            let Ok((length, source)) = self.socket.try_recv_from(buffer) else { return };
            let Ok(received) = Receive::new(Protocol::Udp, source, self.local, &buffer[..length]) else { continue };
            self.rtc.handle_input(Input::Receive(Instant::now(), received)).expect("a session");
            // All output is taken before the next input.
            loop {
                match self.rtc.poll_output().expect("a session") {
                    Output::Timeout(_) => break,
                    Output::Transmit(out) => drop(self.socket.try_send_to(&out.contents, out.destination)),
                    Output::Event(Event::RtpPacket(packet)) => self.take(&packet),
                    Output::Event(_) => {}
                }
            }
        }
    }

    fn take(&mut self, packet: &RtpPacket) {
        if !std::mem::replace(&mut self.seen, true) {
            *self.shared.ready.borrow_mut() += 1;
        }
        if !*self.shared.counts.borrow() {
            return;
        }
        self.shared.tally.borrow_mut().bytes += packet.payload.len() as u64;
        // Sound has a clock of 48 kHz.
        if packet.time.frequency().get() != 90_000 {
            return;
        }
        let number = *packet.seq_no;
        let video = self.video.get_or_insert_with(|| Video {
            first: number,
            last: number,
            received: 0,
            fastest: f64::INFINITY,
            delays: Vec::new(),
        });
        video.last = video.last.max(number);
        video.received += u64::from(number >= video.first);
        if packet.header.marker {
            let delay = self.began.elapsed().as_secs_f64() - packet.time.as_seconds();
            video.fastest = video.fastest.min(delay);
            video.delays.push(delay);
        }
    }
}
