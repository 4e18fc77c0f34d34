//! A stream as the control socket and viewers' pages describe it.

use super::control::{OutputInfo, Refusal, Start, StreamInfo};
use super::watch_page::{LiveState, WatchState};
use crate::policy::orchestration::Overview;
use crate::protocol::app::{self, AppRequest, ManagedRequest, Output};
use crate::protocol::{Cause, StreamKind};

/// A person's request in the form of an app's.
pub(super) fn request(start: &Start) -> Result<ManagedRequest, Refusal> {
    let quality = start.lines.map(|lines| format!("{lines}p"));
    let destinations: Vec<_> =
        start.restream.iter().map(|to| serde_json::json!({"url": to.url, "name": to.name})).collect();
    let message = serde_json::json!({
        "type": "managed_stream_request", "quality": quality, "restreamDestinations": destinations
    });
    match app::parse(&message.to_string()) {
        Ok(AppRequest::StartManaged(request)) => Ok(request),
        Ok(_) => Err(refusal(Cause::Internal, "the request was not understood")),
        Err(refused) => Err(refusal(Cause::InvalidRequest, refused.to_string())),
    }
}

/// A refusal that names nobody who stands in the way.
pub(super) fn refusal(cause: Cause, message: impl Into<String>) -> Refusal {
    Refusal { cause, message: message.into(), owner: None }
}

/// A stream for the control socket.
pub(super) fn stream(user: &str, overview: Overview, viewers: u64) -> StreamInfo {
    let Overview { stream, message, apps, outputs, .. } = overview;
    let urls = stream.urls;
    StreamInfo {
        stream_id: stream.stream_id,
        user: user.to_owned(),
        kind: if urls.is_some() { StreamKind::Managed } else { StreamKind::Unmanaged },
        status: stream.status,
        message,
        apps,
        viewers: u32::try_from(viewers).unwrap_or(u32::MAX),
        since: stream.created_at,
        watch_url: urls.as_ref().map(|urls| urls.preview_url.clone()),
        hls_url: urls.as_ref().map(|urls| urls.hls_url.clone()),
        dash_url: urls.as_ref().map(|urls| urls.dash_url.clone()),
        webrtc_url: urls.and_then(|urls| urls.webrtc_url),
        outputs: outputs.into_iter().map(output).collect(),
    }
}

fn output(output: Output) -> OutputInfo {
    let name = output.name.unwrap_or_else(|| output.url.url.to_string());
    OutputInfo { name, status: output.status.word().into(), error: output.error }
}

/// A stream for its viewers' page.
pub(super) fn page(overview: &Overview) -> WatchState {
    let state = match overview.stream.status.as_str() {
        "active" => LiveState::Live,
        "initializing" => LiveState::Connecting,
        "stopping" => LiveState::Ended,
        _ => LiveState::Reconnecting,
    };
    let urls = overview.stream.urls.as_ref();
    let begun = state != LiveState::Connecting;
    WatchState {
        state,
        hls: urls.filter(|_| begun).map(|urls| urls.hls_url.clone()),
        dash: urls.filter(|_| begun).map(|urls| urls.dash_url.clone()),
        whep: urls.filter(|_| begun).and_then(|urls| urls.webrtc_url.clone()),
    }
}
