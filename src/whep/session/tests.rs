//! A session with a real WebRTC client, on a simulated clock and network.

use bytes::Bytes;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::{Candidate, RtcConfig};

use super::*;
use crate::broadcast::VideoFormat;
use crate::whep::answer::Template;
use crate::whep::rtp;

const STEP: Duration = Duration::from_millis(2);
const FRAME: Duration = Duration::from_millis(33);

struct Pair {
    client: Rtc,
    video: Mid,
    session: Session,
    now: Instant,
    connected: bool,
    over: bool,
    /// RTP time in seconds, whether a key frame, and arrival.
    seen: Vec<(f64, bool, Instant)>,
    /// Whether the network to the client is cut.
    cut: bool,
}

fn server() -> SocketAddr {
    "192.0.2.1:8189".parse().unwrap()
}

fn viewer() -> SocketAddr {
    "192.0.2.2:5000".parse().unwrap()
}

impl Pair {
    fn agree() -> Self {
        let template = Template::new(vec![server()]).unwrap();
        let now = Instant::now();
        let mut client = RtcConfig::new().build(now);
        client.add_local_candidate(Candidate::host(viewer(), "udp").unwrap());
        let mut changes = client.sdp_api();
        let video = changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        let (agreed, answer) = template.answer(&offer.to_sdp_string(), 100, now).unwrap();
        let answer = str0m::change::SdpAnswer::from_sdp_string(&answer).unwrap();
        client.sdp_api().accept_answer(pending, answer).unwrap();
        let session = Session::new(agreed, 1, now);
        Self { client, video, session, now, connected: false, over: false, seen: Vec::new(), cut: false }
    }

    fn connect() -> Self {
        let mut pair = Self::agree();
        pair.run(Duration::from_secs(2));
        assert!(pair.connected && !pair.over);
        pair
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            let mut out = Outbox::default();
            let progress = self.session.advance(self.now, &mut out);
            self.connected |= progress.connected;
            self.over |= progress.over;
            for (destination, datagram) in out.take() {
                assert_eq!(destination, viewer());
                if !self.cut {
                    let received = Receive::new(Protocol::Udp, server(), viewer(), &datagram).unwrap();
                    self.client.handle_input(Input::Receive(self.now, received)).unwrap();
                }
            }
            self.client.handle_input(Input::Timeout(self.now)).unwrap();
            loop {
                match self.client.poll_output().unwrap() {
                    Output::Timeout(_) => break,
                    Output::Transmit(sent) if !self.cut => {
                        self.session.receive(viewer(), server(), &sent.contents, self.now);
                    }
                    Output::Event(Event::MediaData(data)) => {
                        self.seen.push((data.time.as_seconds(), data.is_keyframe(), self.now));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The `n`th picture, of `size` bytes, arriving now.
    fn picture(&self, n: u32, key: bool, size: usize) -> Arc<Picture> {
        let (sps, pps) = (Bytes::from_static(&[0x67, 0x64, 0, 31]), Bytes::from_static(&[0x68, 3]));
        let format = VideoFormat { record: Bytes::new(), sps, pps, width: 2, height: 2, reorder: 0 };
        let mut data = (size as u32).to_be_bytes().to_vec();
        data.push(if key { 0x65 } else { 0x41 });
        data.resize(4 + size, n as u8);
        let packets = rtp::packetize(&format, key, &data);
        Arc::new(Picture { time: FRAME * n, wallclock: self.now, key, packets })
    }
}

#[test]
fn a_joiner_is_owed_all_since_the_key_frame_at_once_and_in_order() {
    let mut pair = Pair::connect();
    // A second of 4 Mbit/s.
    let owed: Vec<_> = (0..30).map(|n| pair.picture(n, n == 0, if n == 0 { 100_000 } else { 13_000 })).collect();
    let begun = pair.now;
    pair.session.replay(&owed);
    pair.run(Duration::from_millis(300));
    assert_eq!(pair.seen.len(), 30);
    assert!(pair.seen[0].1);
    let (first, last) = (pair.seen[0].0, pair.seen[29].0);
    assert!(last - first < 0.04, "they are shown over {} s", last - first);
    assert!(pair.seen[29].2 - begun < Duration::from_millis(200), "took {:?}", pair.seen[29].2 - begun);
    // The next one comes at its own time.
    let next = pair.picture(30, false, 5000);
    pair.session.picture(&next);
    pair.run(FRAME);
    assert!((pair.seen[30].0 - last - 0.033).abs() < 0.001);
}

#[test]
fn after_a_lost_picture_nothing_is_sent_before_the_next_key_frame() {
    let mut pair = Pair::connect();
    let mut next = 0;
    let feed = |pair: &mut Pair, count: u32, n: &mut u32| {
        for _ in 0..count {
            let picture = pair.picture(*n, n.is_multiple_of(60), 3000);
            pair.session.picture(&picture);
            *n += 1;
            pair.run(FRAME);
        }
    };
    feed(&mut pair, 30, &mut next);
    assert_eq!(pair.seen.len(), 30);
    let video = pair.video;
    let mut direct = pair.client.direct_api();
    direct.stream_rx_by_mid(video, None).unwrap().request_keyframe(KeyframeRequestKind::Pli);
    feed(&mut pair, 60, &mut next);
    assert!(pair.seen[30..].len() < 35, "{} pictures after the request", pair.seen[30..].len());
    let resumed = pair.seen.windows(2).position(|two| two[1].0 - two[0].0 > 0.5).expect("no picture was left out");
    assert!(pair.seen[resumed + 1].1, "goes on in the middle of a group of pictures");
}

#[test]
fn a_viewer_that_never_comes_or_falls_silent_is_over() {
    let mut absent = Pair::agree();
    absent.cut = true;
    absent.run(CONNECT_LIMIT * 9 / 10);
    assert!(!absent.over);
    absent.run(Duration::from_secs(2));
    assert!(absent.over && !absent.connected);

    let mut silent = Pair::connect();
    silent.cut = true;
    silent.run(SILENCE_LIMIT / 2);
    silent.cut = false;
    silent.run(Duration::from_secs(6));
    assert!(!silent.over, "an outage of 5 s is no end");
    silent.cut = true;
    silent.run(SILENCE_LIMIT + Duration::from_secs(1));
    assert!(silent.over);
}
