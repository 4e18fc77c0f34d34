//! API keys and tokens: made here, stored as SHA-256 only, compared in constant time.
//!
//! A plain hash is enough because the secrets are 32 random bytes: nobody can guess them, so there is nothing to slow
//! down. A key that a person chooses for the configuration should be as long.

use std::fmt;
use std::sync::LazyLock;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};
use serde::{Deserialize, Deserializer, de};

use crate::protocol::Secret;

/// Length of a new secret, in bytes.
const FRESH: usize = 32;

/// The SHA-256 of an API key or token. Not printed either: a key that a person chose could be guessed from its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash([u8; digest::SHA256_OUTPUT_LEN]);

impl KeyHash {
    /// The hash of a secret's UTF-8 text.
    pub fn of(secret: &str) -> Self {
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
        Self(hash)
    }

    /// Parses 64 hexadecimal digits, as `sha256sum` prints them.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        if text.len() != 2 * hash.len() || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = [digits[0], digits[1]].map(|digit| char::from(digit).to_digit(16));
            *byte = (high? << 4 | low?) as u8;
        }
        Some(Self(hash))
    }

    /// As 64 hexadecimal digits, for the store.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Whether this is the hash of `secret`. The time it takes reveals nothing about either.
    pub fn matches(&self, secret: &str) -> bool {
        // Both sides are signed with a key that nobody knows, because `verify` is what ring promises to be constant in
        // time.
        static KEY: LazyLock<Option<hmac::Key>> =
            LazyLock::new(|| hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok());
        let Some(key) = &*KEY else { return false };
        let tag = hmac::sign(key, &self.0);
        hmac::verify(key, &Self::of(secret).0, tag.as_ref()).is_ok()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(***)")
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The error does not repeat the text: it may be the secret itself, put here by mistake.
        Self::from_hex(&text)
            .ok_or_else(|| de::Error::custom("a SHA-256 has 64 hexadecimal digits: printf %s KEY | sha256sum"))
    }
}

/// A new secret: 64 hexadecimal digits of the system's randomness. `None` if the system has none.
pub fn fresh() -> Option<Secret> {
    let mut bytes = [0; FRESH];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(Secret::new(hex(&bytes)))
}

/// `bytes` random bytes in hexadecimal digits, for ids and stream keys. Panics if the kernel gives no randomness: there
/// is no safe way to go on.
pub fn random(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).expect("the kernel has randomness");
    hex(&random)
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String does not fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_sha256sum_prints_and_matches_its_secret_only() {
        let hash = KeyHash::from_hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert!(hash.matches("abc") && !hash.matches("abd") && !hash.matches(""));
        assert_eq!(KeyHash::from_hex(&hash.to_hex()), Some(hash.clone()));
        assert!(!format!("{hash:?}").contains("ba78"));
        for wrong in ["", "ba78", &"g".repeat(64), &"é".repeat(32)] {
            assert!(KeyHash::from_hex(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn fresh_secrets_are_long_and_never_the_same() {
        let (one, other) = (fresh().unwrap(), fresh().unwrap());
        assert_eq!(one.expose().len(), 64);
        assert_ne!(one, other);
        assert!(KeyHash::of(one.expose()).matches(one.expose()));
    }
}
