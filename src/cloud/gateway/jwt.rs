//! The token of a phone with the `MentraOS` app: a JWT (RFC 7519), HS256, whose claim `email` is the user
//! (docs/protocol.md#phones-and-glasses-at-the-cloud). No other part of JWT is supported.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde::Deserialize;

use crate::cloud::accounts::valid_user;
use crate::protocol::Secret;

/// The tolerated difference between clocks.
const LEEWAY: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    email: String,
    /// Seconds since 1970; tokens of `MentraOS` may have none.
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// The user of a token that is signed with `secret` and valid at `now`.
pub fn user(token: &str, secret: &Secret, now: SystemTime) -> Option<String> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    hmac::verify(&key, signed.as_bytes(), &base64url(signature)?).ok()?;
    let header: Header = serde_json::from_slice(&base64url(header)?).ok()?;
    let claims: Claims = serde_json::from_slice(&base64url(claims)?).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    let leeway = LEEWAY.as_secs_f64();
    let in_time =
        claims.exp.is_none_or(|end| now < end + leeway) && claims.nbf.is_none_or(|start| now > start - leeway);
    (header.alg == "HS256" && in_time && valid_user(&claims.email)).then_some(claims.email)
}

/// Decodes base64url without padding (RFC 7515, 2).
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for digit in text.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // A single leftover digit holds no byte.
    (held < 6).then_some(bytes)
}

/// Makes tokens, as the cloud does that phones log in to.
#[cfg(any(test, fuzzing))]
pub(crate) mod signed {
    use ring::hmac;

    pub fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for place in 0..=chunk.len() {
                text.push(char::from(DIGITS[(word >> (18 - 6 * place) & 63) as usize]));
            }
        }
        text
    }

    pub fn token(header: &str, claims: &str, secret: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = encode(hmac::sign(&key, signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }
}

#[cfg(test)]
mod tests {
    use super::signed::{encode, token};
    use super::*;

    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    #[test]
    fn the_published_example_verifies() {
        // The secret of RFC 7515, A.1 has another form. This is jwt.io's classic example, with an e-mail added.
        let secret = Secret::new("your-256-bit-secret");
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let good = token(HS256, r#"{"email":"u@e.com","iat":1516239022}"#, secret.expose());
        assert_eq!(user(&good, &secret, now).as_deref(), Some("u@e.com"));
        assert_eq!(base64url("SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c").unwrap().len(), 32);
    }

    #[test]
    fn forged_expired_and_foreign_tokens_are_nobodys() {
        let secret = Secret::new("s");
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let claims = r#"{"email":"u@e.com","exp":1000100}"#;
        let good = token(HS256, claims, "s");
        assert!(user(&good, &secret, now).is_some());
        let parts: Vec<_> = good.split('.').collect();
        let none = format!("{}.{}.", encode(br#"{"alg":"none"}"#), parts[1]);
        for wrong in [
            String::new(),
            ".".into(),
            "..".into(),
            none,
            token(HS256, claims, "other"),
            token(r#"{"alg":"HS512"}"#, claims, "s"),
            token(HS256, r#"{"email":"u@e.com","exp":900000}"#, "s"),
            token(HS256, r#"{"email":"u@e.com","nbf":1100000}"#, "s"),
            token(HS256, r#"{"sub":"u@e.com"}"#, "s"),
            token(HS256, r#"{"email":""}"#, "s"),
            format!("{}.{}.{}", parts[0], encode(br#"{"email":"v@e.com"}"#), parts[2]),
            good[..good.len() - 1].into(),
        ] {
            assert_eq!(user(&wrong, &secret, now), None, "{wrong}");
        }
    }
}
