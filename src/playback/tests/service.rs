use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Publication;
use crate::broadcast::{Bounds, Broadcast, Frame};
use crate::playback::{Options, Playback};

/// Far longer than anything here takes: a hang becomes a failure.
const SOON: Duration = Duration::from_secs(10);
const ID: &str = "some-id";

struct Served {
    playback: Playback,
    broadcast: Broadcast,
    address: SocketAddr,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(header))
    }
}

impl Served {
    async fn start(options: Options) -> Self {
        let playback = Playback::default();
        let router = playback.router();
        Self::serve(playback, router, options).await
    }

    async fn serve(playback: Playback, router: Router, options: Options) -> Self {
        let broadcast = Broadcast::new(Bounds::default());
        playback.open(ID, &broadcast, options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { playback, broadcast, address }
    }

    async fn ask(&self, path: &str, headers: &str) -> Answer {
        ask(self.address, path, headers).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(path, "").await
    }

    /// Publishes the daemon's frames from `from` to `to` ms, all at once.
    async fn publish(&self, from: u64, to: u64) {
        for frame in (Publication { frames: 600, ..Publication::default() }).frames(1, 0) {
            let ms = frame.dts.as_millis() as u64;
            if (from..to).contains(&ms) {
                self.broadcast.push(frame);
            }
        }
        tokio::task::yield_now().await;
    }

    async fn playable(&self) {
        let mut state = self.playback.state(ID).unwrap();
        timeout(SOON, state.wait_for(|state| state.playable)).await.expect("never playable").unwrap();
    }

    /// The playlist, once it contains `what`.
    async fn playlist_with(&self, what: &str) -> String {
        let until = async {
            loop {
                let answer = self.get("/hls/some-id/video.m3u8").await;
                if answer.status == 200 && answer.text().contains(what) {
                    return answer.text().to_owned();
                }
            }
        };
        timeout(SOON, until).await.unwrap_or_else(|_| panic!("never {what}"))
    }
}

async fn ask(address: SocketAddr, path: &str, headers: &str) -> Answer {
    let asked = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let mut answer = timeout(SOON, asked).await.expect("no answer");
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap();
    Answer { status: head[9..12].parse().unwrap(), head, body }
}

/// The file that the last line beginning with `line` names.
fn uri<'a>(playlist: &'a str, line: &str) -> &'a str {
    let line = playlist.lines().rfind(|found| found.starts_with(line)).unwrap();
    line.split_once("URI=\"").unwrap().1.split_once('"').unwrap().0
}

fn sequence(playlist: &str) -> u64 {
    playlist.lines().find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn nothing_is_there_until_it_can_be_played_and_then_all_of_it() {
    let served = Served::start(Options::default()).await;
    let paths =
        ["/hls/some-id/index.m3u8", "/hls/some-id/video.m3u8", "/hls/some-id/audio.m3u8", "/dash/some-id/manifest.mpd"];
    for path in paths {
        let answer = served.get(path).await;
        assert!(answer.status == 404 && answer.has("cache-control: no-store"), "{path} {answer:?}");
    }
    served.publish(0, 600).await;
    served.playable().await;
    for path in paths {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.has("cache-control: public, max-age=1") && answer.has("access-control-allow-origin: *"),
            "{answer:?}"
        );
    }
    let playlist = served.get(paths[1]).await;
    assert!(playlist.has("content-type: application/vnd.apple.mpegurl"));
    for name in [uri(playlist.text(), "#EXT-X-MAP"), uri(playlist.text(), "#EXT-X-PART:")] {
        let path = format!("/hls/some-id/{name}");
        let answer = served.get(&path).await;
        assert!(answer.status == 200 && answer.has("content-type: video/mp4"), "{answer:?}");
        assert!(answer.has("cache-control: public, max-age=86400, immutable"), "{answer:?}");
        let part = served.ask(&path, "Range: bytes=4-7\r\n").await;
        assert_eq!((part.status, &part.body[..]), (206, &answer.body[4..8]), "{path}");
    }
    for path in ["/hls/other/index.m3u8", "/dash/other/manifest.mpd", "/hls/some-id/v1.m4s", "/hls/some-id/x"] {
        assert_eq!(served.get(path).await.status, 404, "{path}");
    }
    served.playback.shutdown().await;
    assert_eq!(served.get(paths[0]).await.status, 404);
}

#[tokio::test]
async fn a_segment_is_its_parts() {
    let served = Served::start(Options::default()).await;
    served.publish(0, 2500).await;
    let playlist = served.playlist_with("#EXTINF:1.0").await;
    let (mut parts, mut segments) = (Vec::new(), Vec::new());
    for line in playlist.lines() {
        if line.starts_with("#EXT-X-PART:") {
            parts.extend(served.get(&format!("/hls/some-id/{}", uri(line, "#EXT-X-PART:"))).await.body);
        } else if !line.starts_with('#') {
            segments.extend(served.get(&format!("/hls/some-id/{line}")).await.body);
        }
    }
    assert!(segments.len() > 10_000);
    assert_eq!(parts[..segments.len()], segments[..]);
}

#[tokio::test]
async fn a_reload_waits_for_what_it_asks_for() {
    let served = Served::start(Options { target_duration: 1, ..Options::default() }).await;
    served.publish(0, 1300).await;
    served.playable().await;
    let now = served.playlist_with("#EXT-X-PART").await;
    let first = sequence(&now);
    let at = |query: &str| format!("/hls/some-id/video.m3u8?{query}");
    // Already there: the first segment, a part of it, and a part number after its last one, which means the next
    // segment's first.
    for query in
        [format!("_HLS_msn={first}"), format!("_HLS_msn={first}&_HLS_part=0"), format!("_HLS_msn={first}&_HLS_part=9")]
    {
        assert_eq!(served.get(&at(&query)).await.status, 200, "{query}");
    }
    for query in [
        format!("_HLS_msn={}", first + 9),
        format!("_HLS_msn={}&_HLS_part=40", first + 2),
        "_HLS_part=1".into(),
        "_HLS_msn=x".into(),
    ] {
        assert_eq!(served.get(&at(&query)).await.status, 400, "{query}");
    }
    // The third segment began at 1 s and has one part. Its second part and the announced one come with more frames.
    let (part, hint) =
        (at(&format!("_HLS_msn={}&_HLS_part=1", first + 2)), uri(&now, "#EXT-X-PRELOAD-HINT").to_owned());
    let announced = format!("/hls/some-id/{hint}");
    let (playlist, part, ()) = tokio::join!(served.get(&part), served.get(&announced), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        served.publish(1300, 1600).await;
    });
    assert_eq!((playlist.status, part.status), (200, 200));
    assert!(playlist.text().contains(&hint) && !now.contains(&format!("DURATION=0.20000,URI=\"{hint}\"")));
    // Nothing more comes: before a player gives up, it gets the playlist unchanged and not to be cached.
    let late = served.get(&at(&format!("_HLS_msn={}", first + 3))).await;
    assert!(late.status == 200 && late.has("cache-control: no-store"), "{late:?}");
}

#[tokio::test]
async fn the_end_is_said_and_stays_for_a_while() {
    let linger = Duration::from_millis(700);
    let served = Served::start(Options { linger, ..Options::default() }).await;
    served.publish(0, 1700).await;
    served.playable().await;
    let number = sequence(&served.playlist_with("#EXTM3U").await);
    let ahead = format!("/hls/some-id/video.m3u8?_HLS_msn={}", number + 3);
    let (waiting, ()) = tokio::join!(served.get(&ahead), async { served.playback.close(ID) });
    assert!(waiting.status == 200 && waiting.text().ends_with("#EXT-X-ENDLIST\n"), "{waiting:?}");
    assert!(served.get("/dash/some-id/manifest.mpd").await.text().contains("type=\"static\""));
    let mut state = served.playback.state(ID).unwrap();
    assert!(state.borrow_and_update().ended);
    let gone = async { while state.changed().await.is_ok() {} };
    timeout(SOON, gone).await.expect("it stays");
    assert_eq!(served.get("/hls/some-id/video.m3u8").await.status, 404);
}

#[tokio::test]
async fn the_same_id_again_takes_other_numbers() {
    let served = Served::start(Options::default()).await;
    served.publish(0, 5700).await;
    let first = served.playlist_with("#EXTINF:1.0").await;
    served.playback.open(ID, &served.broadcast, Options::default());
    served.publish(5700, 9000).await;
    served.playable().await;
    let second = served.playlist_with("#EXTINF").await;
    let segments = first.lines().filter(|line| line.starts_with("#EXTINF")).count() as u64;
    assert!(sequence(&second) > sequence(&first) + segments, "{first}\n{second}");
    served.playback.shutdown().await;
}

#[tokio::test]
async fn viewers_are_those_who_asked_lately() {
    let served = Served::start(Options { target_duration: 1, ..Options::default() }).await;
    served.publish(0, 1700).await;
    served.playable().await;
    let mut state = served.playback.state(ID).unwrap();
    let everything = ["/hls/some-id/index.m3u8", "/hls/some-id/video.m3u8", "/hls/some-id/audio.m3u8"];
    for agent in ["User-Agent: a\r\n", "User-Agent: b\r\n", "User-Agent: b\r\nX-Forwarded-For: 6.6.6.6, 10.0.0.1\r\n"] {
        for path in everything {
            assert_eq!(served.ask(path, agent).await.status, 200);
        }
    }
    assert_eq!(state.borrow_and_update().viewers, 3);
    timeout(SOON, state.wait_for(|state| state.viewers == 0)).await.expect("nobody leaves").unwrap();
}

#[tokio::test]
async fn viewers_behind_a_proxy_elsewhere_are_told_apart_if_there_is_to_be_one() {
    for (behind_proxy, viewers) in [(false, 1), (true, 2)] {
        let playback = Playback::new(behind_proxy);
        let proxy = ConnectInfo(SocketAddr::from(([10, 0, 0, 5], 4000)));
        let router = playback.router().layer(Extension(proxy));
        let served = Served::serve(playback, router, Options::default()).await;
        served.publish(0, 1700).await;
        served.playable().await;
        for viewer in ["X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 192.0.2.2\r\n"] {
            assert_eq!(served.ask("/hls/some-id/video.m3u8", viewer).await.status, 200);
        }
        assert_eq!(served.playback.state(ID).unwrap().borrow().viewers, viewers);
    }
}

#[test]
fn memory_suffices_for_the_window_and_what_has_just_left_it() {
    for seconds in [10, 60, 3600] {
        let options = Options::with_window(Duration::from_secs(seconds));
        assert_eq!(options.window, Duration::from_secs(seconds));
        assert!(options.bytes as u64 >= 2 * seconds * 8_000_000 / 8, "{options:?}");
    }
    assert_eq!(Options::with_window(Duration::from_secs(1)).bytes, Options::default().bytes);
}

#[tokio::test]
async fn frames_of_a_stream_are_held_by_nobody_after_it() {
    let served = Served::start(Options { linger: Duration::ZERO, ..Options::default() }).await;
    let frames: Vec<Frame> = Publication::default().frames(1, 0);
    for frame in frames {
        served.broadcast.push(frame);
    }
    served.playable().await;
    served.broadcast.end();
    let mut state = served.playback.state(ID).unwrap();
    timeout(SOON, async { while state.changed().await.is_ok() {} }).await.expect("the task does not end");
    assert!(served.playback.state(ID).is_none());
}
