//! How many people watch, by who asked lately.
//!
//! A client is an address and a User-Agent, so that segments and playlists have the same address for everybody and any
//! cache can answer them: a session in the address would count better behind one NAT and defeat that. A proxy on this
//! machine is believed when it says for whom it asks (the last `X-Forwarded-For`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, header};

/// More are not told apart.
const MOST: usize = 100_000;

/// Who asked lately.
#[derive(Debug, Default)]
pub struct Viewers(HashMap<u64, Instant>);

impl Viewers {
    /// `client` asked. Gives whether it is a new one.
    pub fn saw(&mut self, client: u64, now: Instant) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&client) {
            return false;
        }
        self.0.insert(client, now).is_none()
    }

    /// Forgets those that did not ask since `since`. Gives how many are left.
    pub fn forget_before(&mut self, since: Instant) -> usize {
        self.0.retain(|_, seen| *seen >= since);
        self.0.len()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// After how long without a request a viewer is gone: players read playlists once a target duration or oftener.
pub fn expiry(target_duration: u64) -> Duration {
    Duration::from_millis(2500) * target_duration as u32
}

/// Who asks.
pub fn client(headers: &HeaderMap, extensions: &Extensions) -> u64 {
    let address = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let told = address.is_none_or(|address| address.is_loopback()).then(|| forwarded_for(headers)).flatten();
    let mut hasher = DefaultHasher::new();
    told.or(address).hash(&mut hasher);
    headers.get(header::USER_AGENT).map(header::HeaderValue::as_bytes).hash(&mut hasher);
    hasher.finish()
}

fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let value = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next()?.trim().parse().ok()
}
