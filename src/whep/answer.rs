//! Answers a viewer's offer: finds what of it can be served, and prepares the session.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::change::SdpOffer;
use str0m::config::DtlsCert;
use str0m::format::Codec;
use str0m::media::{Mid, Pt};
use str0m::{Candidate, IceCreds, Rtc, RtcConfig, crypto};

/// H.264 profiles that browsers use, all in packetization mode 1: constrained baseline, baseline, main, high,
/// constrained high.
const PROFILES: [(u8, u8, u32); 5] =
    [(96, 97, 0x42_e01f), (98, 99, 0x42_001f), (100, 101, 0x4d_001f), (102, 103, 0x64_001f), (104, 105, 0x64_0c1f)];

/// The configuration common to all sessions.
#[derive(Debug)]
pub struct Template {
    certificate: DtlsCert,
    candidates: Vec<Candidate>,
}

/// A session that is agreed on but not running yet.
#[derive(Debug)]
pub struct Agreed {
    pub rtc: Rtc,
    /// Identifies the session in datagrams that come before its viewer's address is known.
    pub ufrag: String,
    pub video: Track,
    pub audio: Option<Track>,
}

/// The negotiated track of one kind of media.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    pub mid: Mid,
    pub pt: Pt,
}

/// Why an offer cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not SDP, or not from WebRTC.
    #[error("the offer cannot be read: {0}")]
    Malformed(String),
    /// The viewer accepts no video that can be sent.
    #[error("the offer does not ask for H.264 in packetization mode 1, the only form in which this stream can be sent")]
    NoH264,
}

impl Template {
    /// A template for a server at these addresses. Makes a certificate, which viewers know by its fingerprint in the
    /// answer.
    pub fn new(addresses: Vec<SocketAddr>) -> Result<Self, String> {
        let provider = crypto::from_feature_flags();
        let certificate =
            provider.dtls_provider.generate_certificate().ok_or("OpenSSL cannot make a certificate for WebRTC")?;
        provider.install_process_default();
        let candidates = addresses
            .into_iter()
            .map(|address| Candidate::host(address, "udp").map_err(|error| format!("{address}: {error}")))
            .collect::<Result<_, _>>()?;
        Ok(Self { certificate, candidates })
    }

    /// Answers `offer` for a stream with pictures of `profile`. Returns the session and the answer's text.
    pub fn answer(&self, text: &str, profile: u8, now: Instant) -> Result<(Agreed, String), Refused> {
        let sections = sections(text);
        let offer = SdpOffer::from_sdp_string(text).map_err(|error| Refused::Malformed(error.to_string()))?;
        let credentials = IceCreds::new();
        let ufrag = credentials.ufrag.clone();
        let mut rtc = self.config(credentials).build(now);
        for candidate in &self.candidates {
            rtc.add_local_candidate(candidate.clone());
        }
        let answer = rtc.sdp_api().accept_offer(offer).map_err(|error| Refused::Malformed(error.to_string()))?;
        let video = track(&rtc, &sections, "video", |format| h264_rank(format, profile)).ok_or(Refused::NoH264)?;
        let audio = track(&rtc, &sections, "audio", |format| (format.codec == Codec::Opus).then_some(0));
        Ok((Agreed { rtc, ufrag, video, audio }, of_a_sender(&answer.to_sdp_string(), text)))
    }

    fn config(&self, credentials: IceCreds) -> RtcConfig {
        let mut config = RtcConfig::new()
            .set_local_ice_credentials(credentials)
            .set_dtls_cert(self.certificate.clone())
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false);
        for (pt, resend, profile) in PROFILES {
            config.codec_config().add_h264(pt.into(), Some(resend.into()), true, profile);
        }
        config
    }
}

/// How well a payload type fits the profile; lower is better, `None` is unusable. Any H.264 is better than none:
/// browsers' decoders ignore what was negotiated, and decode more profiles than a browser's offer lists.
fn h264_rank(format: str0m::format::CodecSpec, profile: u8) -> Option<usize> {
    if format.codec != Codec::H264 || format.format.packetization_mode != Some(1) {
        return None;
    }
    let offered = (format.format.profile_level_id.unwrap_or(0x42_001f) >> 16) as u8;
    // After the profile itself come the more capable ones.
    Some(if offered == profile { 0 } else { usize::from(255 - offered) })
}

/// The first section of this kind that accepts media, and its payload type of the lowest rank.
fn track(
    rtc: &Rtc,
    sections: &[(&str, Mid)],
    kind: &str,
    rank: impl Fn(str0m::format::CodecSpec) -> Option<usize>,
) -> Option<Track> {
    sections.iter().filter(|(of, _)| *of == kind).find_map(|&(_, mid)| {
        let media = rtc.media(mid).filter(|media| media.direction().is_sending())?;
        let known = |pt: &Pt| rtc.codec_config().params().iter().find(|params| params.pt() == *pt);
        let ranked = media.remote_pts().iter().filter_map(|pt| Some((rank(known(pt)?.spec())?, *pt)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, pt)| Track { mid, pt })
    })
}

/// Changes the answer so that it asks for no media, and rejects media that was not agreed on as RFC 3264 section 6
/// demands: port 0, a payload type of the offer, no part in the bundle (RFC 9143 section 7.3.3). str0m gives no payload
/// type there, which no browser can read.
fn of_a_sender(answer: &str, offer: &str) -> String {
    let offered: Vec<&str> = offer.lines().filter(|line| line.starts_with("m=")).collect();
    let mut lines: Vec<String> = Vec::new();
    let (mut media, mut refused, mut without) = (0, None, Vec::new());
    for line in answer.lines() {
        if let Some(of) = line.strip_prefix("m=") {
            let fields: Vec<&str> = of.split_whitespace().collect();
            let payload_type = offered.get(media).and_then(|line| line.split_whitespace().nth(3)).unwrap_or("0");
            refused = (fields.len() == 3).then_some(payload_type);
            lines.push(refused.map_or(line.to_owned(), |pt| format!("m={} 0 {} {pt}", fields[0], fields[2])));
            media += 1;
            continue;
        }
        let line = match line {
            "a=recvonly" => "a=inactive",
            "a=sendrecv" => "a=sendonly",
            line => line,
        };
        lines.push(line.to_owned());
        if let (Some(mid), Some(payload_type)) = (line.strip_prefix("a=mid:"), refused) {
            without.push(mid);
            let described = format!("a=rtpmap:{payload_type} ");
            lines.extend(offer.lines().find(|line| line.starts_with(&described)).map(str::to_owned));
        }
    }
    if let Some(group) = lines.iter_mut().find(|line| line.starts_with("a=group:BUNDLE")) {
        let kept: Vec<&str> = group.split(' ').filter(|mid| !without.contains(mid)).collect();
        *group = kept.join(" ");
    }
    lines.push(String::new());
    lines.join("\r\n")
}

/// The kind and `a=mid` of each media section, which str0m gives only once the session is connected.
fn sections(sdp: &str) -> Vec<(&str, Mid)> {
    let mut kind = "";
    let mut found = Vec::new();
    for line in sdp.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            kind = media.split(' ').next().unwrap_or_default();
        } else if let Some(mid) = line.strip_prefix("a=mid:")
            && !kind.is_empty()
        {
            found.push((kind, Mid::from(mid)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An offer like Firefox's, without the lines that do not matter here.
    fn offer(codecs: &[(u8, &str)]) -> String {
        let types: Vec<String> = codecs.iter().map(|(pt, _)| pt.to_string()).collect();
        let mut sdp = format!(
            "v=0\r\no=- 1 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=fingerprint:sha-256 {}\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\na=mid:0\r\na=rtcp-mux\r\na=setup:actpass\r\n\
             a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef01234567\r\n",
            ["AB"; 32].join(":"),
            types.join(" ")
        );
        for (pt, parameters) in codecs {
            let described = format!(
                "a=rtpmap:{pt} H264/90000\r\na=rtcp-fb:{pt} nack pli\r\na=fmtp:{pt} {parameters};level-asymmetry-allowed=1\r\n"
            );
            sdp.push_str(&described);
        }
        sdp
    }

    fn chosen(codecs: &[(u8, &str)], profile: u8) -> Result<u8, Refused> {
        let template = Template::new(vec!["192.0.2.1:8189".parse().unwrap()]).unwrap();
        let (agreed, answer) = template.answer(&offer(codecs), profile, Instant::now())?;
        assert!(answer.contains("a=ice-lite") && answer.contains("a=sendonly"), "{answer}");
        assert!(answer.contains("192.0.2.1 8189 typ host"), "{answer}");
        Ok(*agreed.video.pt)
    }

    #[test]
    fn sends_the_payload_type_that_fits_the_stream_best() {
        let baseline = (126, "profile-level-id=42e01f;packetization-mode=1");
        let single = (97, "profile-level-id=42e01f;packetization-mode=0");
        let high = (112, "profile-level-id=640c1f;packetization-mode=1");
        assert_eq!(chosen(&[baseline, single, high], 100), Ok(112));
        assert_eq!(chosen(&[baseline, single, high], 66), Ok(126));
        // High profile to a browser that lists only baseline: it can decode high all the same.
        assert_eq!(chosen(&[single, baseline], 100), Ok(126));
        assert_eq!(chosen(&[single], 66), Err(Refused::NoH264));
    }

    #[test]
    fn refuses_sound_that_it_does_not_speak_and_sends_the_pictures() {
        let template = Template::new(vec!["192.0.2.1:8189".parse().unwrap()]).unwrap();
        let sound = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\na=mid:1\r\na=rtcp-mux\r\n\
                     a=setup:actpass\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef01234567\r\na=rtpmap:0 PCMU/8000\r\n";
        let offer =
            offer(&[(126, "profile-level-id=42e01f;packetization-mode=1")]).replace("BUNDLE 0", "BUNDLE 0 1") + sound;
        let (agreed, answer) = template.answer(&offer, 66, Instant::now()).unwrap();
        assert!(agreed.audio.is_none());
        assert!(answer.contains("\r\nm=audio 0 UDP/TLS/RTP/SAVPF 0\r\n"), "{answer}");
        assert!(answer.contains("\r\na=group:BUNDLE 0\r\n"), "{answer}");
        str0m::change::SdpAnswer::from_sdp_string(&answer).unwrap();
        let offer =
            offer.replace("a=recvonly\r\na=mid:1", "a=sendonly\r\na=mid:1").replace("0 PCMU/8000", "0 opus/48000/2");
        let (_, answer) = template.answer(&offer, 66, Instant::now()).unwrap();
        assert!(
            answer.contains("a=inactive") && !answer.contains("a=recvonly"),
            "a viewer has nothing to send: {answer}"
        );
    }
}
