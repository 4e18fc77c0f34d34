//! `GET /metrics`, and who may read it.
//!
//! The port faces the Internet. With a token (`metrics.token_file`), whoever has it may read. Without one only this
//! machine may, and only where no proxy could make others look like it: none is configured, and none has left its
//! header fields in the request. Everybody else gets 404.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::config::Config;
use super::credential::KeyHash;
use crate::metrics::CONTENT_TYPE;

/// A request to the cloud's task, which answers with the text.
pub(super) type Scrape = oneshot::Sender<String>;

/// Time limit for the task's answer, which takes microseconds.
const LIMIT: Duration = Duration::from_secs(2);

/// The header fields that proxies add.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

#[derive(Debug)]
struct Access {
    token: Option<KeyHash>,
    proxied: bool,
}

impl Access {
    fn is_granted(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> bool {
        match &self.token {
            Some(token) => bearer(headers).is_some_and(|given| token.matches(given)),
            None => {
                !self.proxied
                    && peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
                    && !FORWARDED.iter().any(|name| headers.contains_key(*name))
            }
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[derive(Clone)]
struct Service {
    access: Arc<Access>,
    scrapes: mpsc::Sender<Scrape>,
}

/// The route `/metrics`, and the receiver of its requests.
pub(super) fn router(config: &Config) -> (Router, mpsc::Receiver<Scrape>) {
    let (scrapes, asked) = mpsc::channel(1);
    let token = config.metrics.token.as_ref().map(|token| KeyHash::of(token.expose()));
    let access = Access { token, proxied: config.http.is_proxied() };
    let router =
        Router::new().route("/metrics", get(numbers)).with_state(Service { access: Arc::new(access), scrapes });
    (router, asked)
}

async fn numbers(State(service): State<Service>, request: Request) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    if !service.access.is_granted(peer, request.headers()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let (reply, answer) = oneshot::channel();
    let asked = async {
        service.scrapes.send(reply).await.ok()?;
        answer.await.ok()
    };
    match timeout(LIMIT, asked).await.ok().flatten() {
        Some(text) => {
            ([(header::CONTENT_TYPE, CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")], text).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(access: &Access, peer: &str, header: Option<(&'static str, &str)>) -> bool {
        let headers = header.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        access.is_granted(Some(peer.parse().unwrap()), &headers.into_iter().collect())
    }

    #[test]
    fn without_a_token_only_this_machine_reads_and_no_proxy_of_its_own_does_for_others() {
        let access = Access { token: None, proxied: false };
        assert!(granted(&access, "127.0.0.1:5", None) && granted(&access, "[::1]:5", None));
        assert!(granted(&access, "[::ffff:127.0.0.1]:5", None));
        assert!(!granted(&access, "192.0.2.1:5", None) && !granted(&access, "[2001:db8::1]:5", None));
        for name in FORWARDED {
            assert!(!granted(&access, "127.0.0.1:5", Some((name, "127.0.0.1"))), "{name}");
        }
        assert!(!access.is_granted(None, &HeaderMap::new()));
        assert!(!granted(&Access { token: None, proxied: true }, "127.0.0.1:5", None));
    }

    #[test]
    fn with_a_token_whoever_has_it_reads_and_nobody_else() {
        let access = Access { token: Some(KeyHash::of("s3cret")), proxied: true };
        assert!(granted(&access, "192.0.2.1:5", Some(("authorization", "Bearer s3cret"))));
        assert!(granted(&access, "192.0.2.1:5", Some(("authorization", "bearer  s3cret "))));
        for wrong in ["Bearer s3cre", "Bearer", "Basic s3cret", "s3cret", "Bearer "] {
            assert!(!granted(&access, "127.0.0.1:5", Some(("authorization", wrong))), "{wrong}");
        }
        assert!(!granted(&access, "127.0.0.1:5", None));
    }
}
