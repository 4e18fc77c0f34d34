//! Limits how often an address may connect, with a token bucket per address. A refused key costs as much as 30
//! connections: that slows guessing, while a server with hundreds of apps' sessions may come back all at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::client_address::neighbourhood;

/// Capacity of a bucket: what an address that was quiet may spend at once.
const FULL: f64 = 600.0;
/// What a bucket regains per second.
const REFILL: f64 = 30.0;
/// The price of a connection.
const CONNECTION: f64 = 1.0;
/// The additional price of a refused key or token.
const REFUSAL: f64 = 30.0;
/// The most addresses remembered. Most buckets are full, and forgetting a full one loses nothing.
const ADDRESSES: usize = 16 * 1024;
/// Interval between searches for addresses to forget.
const SWEEP: Duration = Duration::from_secs(1);

/// The buckets of all addresses. `now` is the time since any fixed moment.
#[derive(Debug, Default)]
pub struct Admission {
    buckets: HashMap<IpAddr, Bucket>,
    /// The one bucket shared by all addresses for which there is no room.
    strangers: Option<Bucket>,
    next_sweep: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    filled: f64,
    at: Duration,
}

impl Bucket {
    fn now(self, now: Duration) -> Self {
        let gained = now.saturating_sub(self.at).as_secs_f64() * REFILL;
        Self { filled: (self.filled + gained).min(FULL), at: now }
    }
}

impl Admission {
    /// Whether a connection from this address may go on.
    pub fn connect(&mut self, from: IpAddr, now: Duration) -> bool {
        let bucket = self.bucket(from, now);
        let enough = bucket.filled >= CONNECTION;
        if enough {
            bucket.filled -= CONNECTION;
        }
        enough
    }

    /// A connection from this address had a wrong key.
    pub fn refused(&mut self, from: IpAddr, now: Duration) {
        let bucket = self.bucket(from, now);
        bucket.filled = (bucket.filled - REFUSAL).max(0.0);
    }

    fn bucket(&mut self, from: IpAddr, now: Duration) -> &mut Bucket {
        let from = neighbourhood(from);
        if self.buckets.len() >= ADDRESSES && !self.buckets.contains_key(&from) {
            // Not at every address of a flood: the search looks at all of them.
            if now >= self.next_sweep {
                self.next_sweep = now + SWEEP;
                self.buckets.retain(|_, bucket| bucket.now(now).filled < FULL);
            }
            if self.buckets.len() >= ADDRESSES {
                let bucket = self.strangers.get_or_insert(Bucket { filled: FULL, at: now });
                *bucket = bucket.now(now);
                return bucket;
            }
        }
        let bucket = self.buckets.entry(from).or_insert(Bucket { filled: FULL, at: now });
        *bucket = bucket.now(now);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admitted(admission: &mut Admission, from: &str, tries: usize) -> usize {
        (0..tries).filter(|_| admission.connect(address(from), START)).count()
    }

    #[test]
    fn a_flood_is_cut_off_and_touches_no_other_address() {
        let mut admission = Admission::default();
        assert_eq!(admitted(&mut admission, "192.0.2.1", 5000), 600);
        assert_eq!(admitted(&mut admission, "192.0.2.2", 10), 10);
        assert!(admission.connect(address("192.0.2.1"), START + Duration::from_secs(1)));
    }

    #[test]
    fn wrong_keys_soon_shut_an_address_out() {
        let mut admission = Admission::default();
        let mut guesses = 0;
        while admission.connect(address("192.0.2.1"), START) {
            admission.refused(address("192.0.2.1"), START);
            guesses += 1;
        }
        assert!((10..=20).contains(&guesses), "{guesses}");
    }

    #[test]
    fn one_network_cannot_pose_as_many_addresses_nor_fill_the_memory() {
        let mut admission = Admission::default();
        let admitted = (0..5000u32).filter(|n| admission.connect(address(&format!("2001:db8::{n:x}")), START)).count();
        assert_eq!(admitted, 600);
        for n in 0..100_000u32 {
            let _ = admission.connect(IpAddr::V4(n.into()), START);
        }
        assert!(admission.buckets.len() <= ADDRESSES);
        assert!(!admission.connect(address("198.51.100.1"), START), "those for whom there is no room share one bucket");
        assert!(admission.connect(address("198.51.100.1"), START + Duration::from_secs(30)));
    }
}
