//! A WebRTC viewer without a browser: str0m as the client, which reports exactly what arrived.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Once;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::net::UdpSocket;

/// One picture that arrived completely.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub at: Instant,
    /// The RTP time in seconds.
    pub time: f64,
    pub key: bool,
}

/// What a viewer received.
#[derive(Debug, Default)]
pub struct Watched {
    pub pictures: Vec<Seen>,
    pub sounds: usize,
    pub connected: Option<Instant>,
    /// Whether the server said goodbye.
    pub ended: bool,
    pub session: String,
}

pub struct Viewer {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    pub watched: Watched,
}

/// An offer of a client that can decode `codec`, and the client.
pub async fn offer(codec: Codec) -> (Rtc, UdpSocket, SdpOffer, SdpPendingOffer) {
    static CRYPTO: Once = Once::new();
    CRYPTO.call_once(|| str0m::crypto::from_feature_flags().install_process_default());
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = RtcConfig::new().clear_codecs().enable_opus(true, false);
    let config = if codec == Codec::H264 { config.enable_h264(true) } else { config.enable_vp8(true) };
    let mut rtc = config.build(Instant::now());
    rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
    let mut changes = rtc.sdp_api();
    changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
    let (offer, pending) = changes.apply().unwrap();
    (rtc, socket, offer, pending)
}

/// An HTTP client. reqwest needs a crypto provider even for `http://`.
pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default(); // by another test, perhaps
    reqwest::Client::new()
}

/// `POST`s an offer unchanged.
pub async fn post(url: &str, kind: &str, body: String) -> reqwest::Response {
    http().post(url).header("content-type", kind).body(body).send().await.unwrap()
}

impl Viewer {
    /// Joins at `base` + `/whep/{id}`.
    pub async fn join(base: &str, id: &str) -> Self {
        Self::try_join(base, id).await.unwrap()
    }

    /// The same for a server that may be away or refuse.
    pub async fn try_join(base: &str, id: &str) -> Result<Self, String> {
        let (mut rtc, socket, offer, pending) = offer(Codec::H264).await;
        let request = http().post(format!("{base}/whep/{id}")).header("content-type", "application/sdp");
        let answer = request.body(offer.to_sdp_string()).send().await.map_err(|error| error.to_string())?;
        if answer.status() != 201 {
            return Err(answer.status().to_string());
        }
        let session = format!("{base}{}", answer.headers()["location"].to_str().unwrap());
        let answer = answer.text().await.map_err(|error| error.to_string())?;
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        rtc.sdp_api().accept_answer(pending, answer).unwrap();
        let local = socket.local_addr().unwrap();
        Ok(Self { rtc, socket, local, watched: Watched { session, ..Watched::default() } })
    }

    /// Watches until `enough` returns true, or the session ends. Panics after `limit`.
    pub async fn watch(&mut self, limit: Duration, enough: impl Fn(&Watched) -> bool) {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 2048];
        while !enough(&self.watched) && !self.watched.ended {
            assert!(Instant::now() < deadline, "not enough within {limit:?}: {:?}", self.watched);
            let wake = loop {
                match self.rtc.poll_output().unwrap() {
                    Output::Timeout(at) => break at.min(Instant::now() + Duration::from_millis(100)),
                    Output::Transmit(out) => drop(self.socket.send_to(&out.contents, out.destination).await.unwrap()),
                    Output::Event(event) => self.react(event),
                }
            };
            self.watched.ended |= !self.rtc.is_alive();
            let received = tokio::time::timeout_at(wake.into(), self.socket.recv_from(&mut buffer)).await;
            let now = Instant::now();
            let input = match received.map(Result::unwrap) {
                Ok((length, source)) => {
                    let received = Receive::new(Protocol::Udp, source, self.local, &buffer[..length]).unwrap();
                    Input::Receive(now, received)
                }
                Err(_) => Input::Timeout(now),
            };
            self.rtc.handle_input(input).unwrap();
        }
    }

    /// Leaves by WHEP's `DELETE`.
    pub async fn leave(&self) -> reqwest::StatusCode {
        self.try_leave().await.unwrap()
    }

    /// The same for a server that may be away.
    pub async fn try_leave(&self) -> reqwest::Result<reqwest::StatusCode> {
        Ok(http().delete(&self.watched.session).send().await?.status())
    }

    fn react(&mut self, event: Event) {
        match event {
            Event::Connected => self.watched.connected = Some(Instant::now()),
            Event::Closed => self.watched.ended = true,
            Event::MediaData(data) if data.params.spec().codec == Codec::Opus => self.watched.sounds += 1,
            Event::MediaData(data) => {
                let time = data.time.as_seconds();
                self.watched.pictures.push(Seen { at: Instant::now(), time, key: data.is_keyframe() });
            }
            _ => {}
        }
    }
}
