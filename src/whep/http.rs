//! The HTTP requests of WHEP. Any page may make them: whoever knows a stream's id may watch it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use ring::rand::SecureRandom;
use tokio::sync::oneshot;

use super::Shared;
use super::answer::Refused;
use super::registry::{Stream, Unwatchable};
use super::task::{Command, Join};

const SDP: &str = "application/sdp";
const TRICKLE: &str = "application/trickle-ice-sdpfrag";

/// The longest body. A browser's offer has 5 kB.
const BODY_LIMIT: usize = 64 << 10;

/// Time limit for the answer of the sessions' task, which takes microseconds.
const TASK_LIMIT: Duration = Duration::from_secs(2);

/// Seconds after which a refused viewer may try again.
const RETRY_AFTER: &str = "1";

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/whep/{id}", post(offer).options(options))
        .route("/whep/{id}/{session}", delete(leave).patch(trickle).options(options))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::map_response(for_any_origin))
        .with_state(shared)
}

/// A refusal in the form of RFC 9457.
struct Problem(StatusCode, String);

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(status, detail.into())
    }

    fn no_stream() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such stream")
    }

    fn no_session() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such session")
    }

    fn overloaded(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        let body =
            serde_json::json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

impl From<Unwatchable> for Problem {
    fn from(reason: Unwatchable) -> Self {
        match reason {
            Unwatchable::NotStarted => Self::new(StatusCode::CONFLICT, "the stream has no picture yet"),
            Unwatchable::Ended => Self::new(StatusCode::GONE, "the stream has ended"),
            Unwatchable::BFrames => Self::new(
                StatusCode::NOT_ACCEPTABLE,
                "the stream has B-frames, which WebRTC cannot carry; HLS and DASH can",
            ),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Malformed(_) => StatusCode::BAD_REQUEST,
            Refused::NoH264 => StatusCode::NOT_ACCEPTABLE,
        };
        Self::new(status, refused.to_string())
    }
}

async fn offer(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let answer = agree(&shared, &id, &uri, &headers, &body).await;
    let sessions = &shared.sessions;
    let outcome = if answer.is_ok() { &sessions.agreed } else { &sessions.refused };
    outcome.increment();
    answer
}

async fn agree(shared: &Shared, id: &str, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Response, Problem> {
    let stream = shared.registry.find(id).ok_or_else(Problem::no_stream)?;
    require_type(headers, SDP)?;
    let offer =
        std::str::from_utf8(body).map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the offer is not text"))?;
    let profile = stream.watchable()?;
    let (agreed, answer) = shared.rtc.answer(offer, profile, Instant::now())?;
    let tag = entity_tag(&agreed.ufrag);
    let name = session_name()?;
    let location = format!("{}/{name}", uri.path().trim_end_matches('/'));
    let (reply, room) = oneshot::channel();
    let join = Command::Join(Box::new(Join { agreed, stream, name, reply }));
    if !ask(shared, join, room).await? {
        return Err(Problem::overloaded("this server has its maximum number of viewers"));
    }
    let headers = [(header::CONTENT_TYPE, SDP), (header::LOCATION, &location), (header::ETAG, &tag)];
    Ok((StatusCode::CREATED, headers, answer).into_response())
}

async fn leave(
    State(shared): State<Arc<Shared>>,
    Path((id, name)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let stream = stream(&shared, &id)?.number;
    let (reply, found) = oneshot::channel();
    if ask(&shared, Command::Leave { stream, name, reply }, found).await? {
        Ok(StatusCode::OK)
    } else {
        Err(Problem::no_session())
    }
}

/// Accepts a viewer's candidates. They are not needed, as the viewer sends first, but it expects an acknowledgement.
async fn trickle(
    State(shared): State<Arc<Shared>>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
    fragment: String,
) -> Result<StatusCode, Problem> {
    let stream = stream(&shared, &id)?.number;
    require_type(&headers, TRICKLE)?;
    let (reply, found) = oneshot::channel();
    let ufrag = ask(&shared, Command::Find { stream, name, reply }, found).await?.ok_or_else(Problem::no_session)?;
    let meant = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok());
    if meant == Some("*") || fragment.contains("a=ice-options:restart") {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "ICE restarts are not supported; start a new session",
        ));
    }
    if meant.is_some_and(|meant| meant != entity_tag(&ufrag)) {
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "the session's ICE has changed"));
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn options() -> impl IntoResponse {
    let headers = [
        (HeaderName::from_static("accept-post"), SDP),
        (HeaderName::from_static("accept-patch"), TRICKLE),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, PATCH, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, if-match"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers)
}

async fn for_any_origin(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("accept-patch, accept-post, etag, location, retry-after"),
    );
    response
}

fn stream(shared: &Shared, id: &str) -> Result<Arc<Stream>, Problem> {
    shared.registry.find(id).ok_or_else(Problem::no_stream)
}

fn require_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim();
    if given.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("only {wanted} is accepted here")))
}

async fn ask<T>(shared: &Shared, command: Command, answered: oneshot::Receiver<T>) -> Result<T, Problem> {
    let asked = async {
        shared.commands.send(command).await.ok()?;
        answered.await.ok()
    };
    let answer = tokio::time::timeout(TASK_LIMIT, asked).await.ok().flatten();
    answer.ok_or_else(|| Problem::overloaded("the server is too busy or shutting down"))
}

fn entity_tag(ufrag: &str) -> String {
    format!("\"{ufrag}\"")
}

/// 128 random bits, since whoever knows a session's name can end it.
fn session_name() -> Result<String, Problem> {
    let mut random = [0; 16];
    let filled = ring::rand::SystemRandom::new().fill(&mut random);
    filled.map_err(|_| Problem::overloaded("the system has no random bytes"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(random)))
}
