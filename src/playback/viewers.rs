//! Counts the people watching, by their recent requests.
//!
//! A client is an address and a User-Agent. All clients use the same URLs, so that any cache can answer them: a session
//! id in the URL would count better behind one NAT, but defeat that. A proxy on this machine is always believed about
//! whose request it forwards (the last `X-Forwarded-For`), another one only if it is configured.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, header};

use crate::client_address::forwarded_for;

/// The most clients that are distinguished.
const MOST: usize = 100_000;

/// The clients that asked recently.
#[derive(Debug, Default)]
pub struct Viewers(HashMap<u64, Instant>);

impl Viewers {
    /// Notes a request of `client`. Returns whether the client is new.
    pub fn saw(&mut self, client: u64, now: Instant) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&client) {
            return false;
        }
        self.0.insert(client, now).is_none()
    }

    /// Forgets clients without a request since `since`. Returns how many are left.
    pub fn forget_before(&mut self, since: Instant) -> usize {
        self.0.retain(|_, seen| *seen >= since);
        self.0.len()
    }

    /// The number of clients.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// The time without a request after which a viewer is gone. Players read playlists at least once per target duration.
pub fn expiry(target_duration: u64) -> Duration {
    Duration::from_millis(2500) * target_duration as u32
}

/// The client of a request. `behind_proxy`: all connections come from a proxy.
pub fn client(headers: &HeaderMap, extensions: &Extensions, behind_proxy: bool) -> u64 {
    // On an IPv6 socket, connections by IPv4 come from `::ffff:a.b.c.d`.
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    let is_believed = behind_proxy || peer.is_none_or(|peer| peer.is_loopback());
    let told = is_believed.then(|| forwarded_for(headers)).flatten();
    let mut hasher = DefaultHasher::new();
    told.or(peer).hash(&mut hasher);
    headers.get(header::USER_AGENT).map(header::HeaderValue::as_bytes).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(peer: &str, forwarded_for: &str, behind_proxy: bool) -> u64 {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", forwarded_for.parse().unwrap());
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
        client(&headers, &extensions, behind_proxy)
    }

    #[test]
    fn a_proxy_is_believed_on_this_machine_or_where_there_is_to_be_one() {
        let believed = |peer: &str, behind_proxy: bool| {
            client_of(peer, "6.6.6.6, 192.0.2.1", behind_proxy) != client_of(peer, "6.6.6.6, 192.0.2.2", behind_proxy)
        };
        for peer in ["127.0.0.1:5", "[::1]:5", "[::ffff:127.0.0.1]:5"] {
            assert!(believed(peer, false) && believed(peer, true), "{peer}");
        }
        for peer in ["10.0.0.5:5", "[2001:db8::5]:5", "[::ffff:10.0.0.5]:5"] {
            assert!(!believed(peer, false) && believed(peer, true), "{peer}");
        }
        let first = client_of("10.0.0.5:5", "6.6.6.6, 192.0.2.1", true);
        assert_eq!(first, client_of("10.0.0.6:7", "7.7.7.7, 192.0.2.1", true), "only the last one cannot be forged");
    }
}
