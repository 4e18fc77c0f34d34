//! The HTTP requests of viewers. Segments, parts and initialization segments never change and may be cached for long;
//! playlists may be cached for a second, and a 404 not at all.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Deserialize;
use tower_http::cors::{Any, CorsLayer};

use super::hls::{finished, newest};
use super::presentation::{Kind, Presentation};
use super::service::{Playback, Served, Stream, Text};
use super::viewers::client;
use crate::metrics::Counter;

const FOREVER: &str = "public, max-age=86400, immutable";
const SHORTLY: &str = "public, max-age=1";
const NEVER: &str = "no-store";

impl Playback {
    /// `/hls/{id}/…` and `/dash/{id}/manifest.mpd`, for any origin. Viewers are distinguished by address if this is
    /// served with `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn router(&self) -> Router {
        let cors = CorsLayer::new()
            .allow_origin(Any)
            .allow_methods([Method::GET, Method::HEAD])
            .allow_headers([header::RANGE])
            .expose_headers([header::DATE, header::AGE, header::CONTENT_LENGTH, header::CONTENT_RANGE])
            .max_age(Duration::from_hours(24));
        Router::new()
            .route("/hls/{id}/{file}", get(hls_file))
            .route("/dash/{id}/manifest.mpd", get(manifest))
            .layer(cors)
            .with_state(self.clone())
    }
}

impl Playback {
    fn viewer(&self, request: &Request) -> u64 {
        client(request.headers(), request.extensions(), self.is_behind_proxy())
    }

    fn count(&self, response: &Response, file: impl FnOnce(&Served) -> &Counter) {
        file(self.served()).increment();
        self.served().bytes.add(response.body().size_hint().lower());
    }
}

/// The delivery directives of RFC 8216bis, 6.2.5.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Directives {
    #[serde(rename = "_HLS_msn")]
    pub number: Option<u64>,
    #[serde(rename = "_HLS_part")]
    pub part: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum File {
    Multivariant,
    Playlist(Kind),
    Segment(Kind, u64),
    /// By epoch and start time in ticks, as DASH names it.
    SegmentAt(Kind, u64, u64),
    Part(Kind, u64),
    Init(Kind, u64),
}

impl File {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "index.m3u8" => return Some(Self::Multivariant),
            "video.m3u8" => return Some(Self::Playlist(Kind::Video)),
            "audio.m3u8" => return Some(Self::Playlist(Kind::Audio)),
            _ => {}
        }
        let (kind, rest) = match name.strip_prefix('v') {
            Some(rest) => (Kind::Video, rest),
            None => (Kind::Audio, name.strip_prefix('a')?),
        };
        if let Some(number) = rest.strip_prefix('i') {
            return Some(Self::Init(kind, number.strip_suffix(".mp4")?.parse().ok()?));
        }
        let number = rest.strip_suffix(".m4s")?;
        if let Some((epoch, time)) = number.strip_prefix('t').and_then(|at| at.split_once('-')) {
            return Some(Self::SegmentAt(kind, epoch.parse().ok()?, time.parse().ok()?));
        }
        match number.strip_prefix('p') {
            Some(number) => Some(Self::Part(kind, number.parse().ok()?)),
            None => Some(Self::Segment(kind, number.parse().ok()?)),
        }
    }
}

async fn hls_file(
    State(playback): State<Playback>,
    Path((id, name)): Path<(String, String)>,
    directives: Result<Query<Directives>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let Some((stream, file)) = playback.stream(&id).zip(File::parse(&name)) else { return not_found() };
    let viewer = playback.viewer(&request);
    let response = match file {
        File::Multivariant => playlist(stream.text(Text::Multivariant, &id), SHORTLY),
        File::Playlist(kind) => match directives {
            Ok(Query(directives)) => media_playlist(&stream, &id, kind, directives).await,
            Err(_) => StatusCode::BAD_REQUEST.into_response(),
        },
        File::Segment(kind, number) => {
            let data = stream.read(|now| now.track(kind)?.segment(number).map(|segment| segment.data.clone()));
            media(data, kind, request.headers())
        }
        File::SegmentAt(kind, epoch, time) => {
            let data = stream.read(|now| now.track(kind)?.segment_at(epoch, time).map(|segment| segment.data.clone()));
            media(data, kind, request.headers())
        }
        File::Init(kind, number) => {
            media(stream.read(|now| now.init(kind, number).map(|init| init.data.clone())), kind, request.headers())
        }
        File::Part(kind, number) => part(&stream, kind, number, request.headers()).await,
    };
    if response.status().is_success() {
        stream.saw(viewer);
        playback.count(&response, |served| match file {
            File::Multivariant | File::Playlist(_) => &served.playlists,
            File::Segment(..) | File::SegmentAt(..) => &served.segments,
            File::Part(..) => &served.parts,
            File::Init(..) => &served.initializations,
        });
    }
    response
}

async fn manifest(State(playback): State<Playback>, Path(id): Path<String>, request: Request) -> Response {
    let Some(stream) = playback.stream(&id) else { return not_found() };
    let Some(text) = stream.text(Text::Manifest, &id) else { return not_found() };
    stream.saw(playback.viewer(&request));
    let headers = [(header::CONTENT_TYPE, "application/dash+xml"), (header::CACHE_CONTROL, SHORTLY)];
    let response = (headers, text).into_response();
    playback.count(&response, |served| &served.manifests);
    response
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, NEVER)]).into_response()
}

fn playlist(text: Option<Bytes>, cache: &'static str) -> Response {
    let Some(text) = text else { return not_found() };
    ([(header::CONTENT_TYPE, "application/vnd.apple.mpegurl"), (header::CACHE_CONTROL, cache)], text).into_response()
}

/// How long a playlist request may block, in target durations. By the specification a server blocks until the requested
/// part exists, and answers 503 after three of them (6.2.5.2). hls.js counts an error after 0.8, and gives up after
/// three errors. So the playlist is sent unchanged before that, and players wait as long as a publisher takes to
/// reconnect.
const PLAYLIST_PATIENCE: f64 = 0.7;
/// How long a request for the announced part may block, in target durations.
const PART_PATIENCE: f64 = 3.0;

/// Answers as soon as the requested part exists, or before the player would give up.
async fn media_playlist(stream: &Stream, id: &str, kind: Kind, directives: Directives) -> Response {
    let text = match kind {
        Kind::Video => Text::Video,
        Kind::Audio => Text::Audio,
    };
    let Some(number) = directives.number else {
        if directives.part.is_some() {
            return StatusCode::BAD_REQUEST.into_response();
        }
        return playlist(stream.text(text, id), SHORTLY);
    };
    if stream.text(text, id).is_none() {
        return not_found();
    }
    if stream.read(|now| too_far(now, kind, number, directives.part)).is_some() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let there = stream.wait(PLAYLIST_PATIENCE, |now| reached(now, kind, number, directives.part).then_some(())).await;
    playlist(stream.text(text, id), if there.is_some() { SHORTLY } else { NEVER })
}

/// `Some` if no player can have read a playlist that leads it to ask for this.
pub(super) fn too_far(now: &Presentation, kind: Kind, number: u64, part: Option<u64>) -> Option<()> {
    // The limit for parts of less than a second (6.2.5.2).
    const ADVANCE_PART_LIMIT: u64 = 3;
    let track = now.track(kind)?;
    let (last, last_part) = newest(track).unwrap_or((track.open_number(), 0));
    let part_too_far =
        number == last && track.open().is_some() && part.is_some_and(|part| part > last_part + ADVANCE_PART_LIMIT);
    (!now.ended && (number > last + 2 || part_too_far)).then_some(())
}

/// Whether the playlist has this segment or part.
pub(super) fn reached(now: &Presentation, kind: Kind, number: u64, part: Option<u64>) -> bool {
    let Some(track) = now.track(kind) else { return true };
    let open = track.open_number();
    let parts = track.open().map_or(0, |open| open.parts.len() as u64);
    now.ended
        || match part {
            _ if number > open => false,
            None => number < finished(now, track),
            Some(part) if number == open => part < parts,
            // A part number after a segment's last part means the first part of the next segment (6.2.5.2).
            Some(part) if number + 1 == open => {
                parts > 0 || track.segment(number).is_none_or(|segment| part < segment.parts.len() as u64)
            }
            Some(_) => true,
        }
}

/// Serves a part; waits for it if it is the announced one.
async fn part(stream: &Stream, kind: Kind, number: u64, headers: &HeaderMap) -> Response {
    let announced = stream.read(|now| now.track(kind).map(|track| !now.ended && number == track.next_part()));
    let find = |now: &Presentation| now.track(kind)?.part(number).map(|part| part.data.clone());
    if announced != Some(true) {
        return media(stream.read(find), kind, headers);
    }
    let found = stream.wait(PART_PATIENCE, |now| find(now).map(Some).or(now.ended.then_some(None))).await;
    match found {
        Some(data) => media(data, kind, headers),
        None => (StatusCode::SERVICE_UNAVAILABLE, [(header::CACHE_CONTROL, NEVER)]).into_response(),
    }
}

fn media(data: Option<Bytes>, kind: Kind, headers: &HeaderMap) -> Response {
    let Some(data) = data else { return not_found() };
    let content_type = match kind {
        Kind::Video => "video/mp4",
        Kind::Audio => "audio/mp4",
    };
    let common = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(FOREVER)),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    ];
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return (common, Body::from(data)).into_response();
    };
    let size = data.len();
    match parse_range(range, size) {
        Range::All => (common, Body::from(data)).into_response(),
        Range::Part(from, to) => {
            let content_range = [(header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", to - 1))];
            (StatusCode::PARTIAL_CONTENT, common, content_range, Body::from(data.slice(from..to))).into_response()
        }
        Range::Beyond => {
            (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{size}"))]).into_response()
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    All,
    Part(usize, usize),
    Beyond,
}

/// Parses one range of bytes (RFC 9110, 14.1.2). Anything else is ignored, which is allowed.
pub(super) fn parse_range(text: &str, size: usize) -> Range {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Range::All;
    };
    match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), _) if from >= size => Range::Beyond,
        (Ok(from), Ok(to)) if to >= from => Range::Part(from, size.min(to.saturating_add(1))),
        (Ok(from), _) if to.is_empty() => Range::Part(from, size),
        (Err(_), Ok(0)) if from.is_empty() => Range::Beyond,
        (Err(_), Ok(last)) if from.is_empty() => Range::Part(size.saturating_sub(last), size),
        _ => Range::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_ranges() {
        let cases = [
            ("bytes=0-0", Range::Part(0, 1)),
            ("bytes=2-", Range::Part(2, 10)),
            ("bytes=2-99", Range::Part(2, 10)),
            ("bytes=-3", Range::Part(7, 10)),
            ("bytes=-30", Range::Part(0, 10)),
            ("bytes=10-", Range::Beyond),
            ("bytes=-0", Range::Beyond),
            ("bytes=3-2", Range::All),
            ("bytes=0-1,3-4", Range::All),
            ("lines=0-1", Range::All),
        ];
        for (text, range) in cases {
            assert_eq!(parse_range(text, 10), range, "{text}");
        }
    }
}
