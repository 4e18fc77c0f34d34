//! Fuzz target (see [`crate::fuzz`]): a phone's token.

use std::time::{Duration, UNIX_EPOCH};

use super::jwt;
use crate::cloud::accounts::valid_user;
use crate::protocol::Secret;

/// Reads the input as an unsigned token; then its lines as header and claims of a signed one.
pub fn jwt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let secret = Secret::new("a secret of at least 32 characters");
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
    assert_eq!(jwt::user(text, &secret, now), None, "forged");
    let (header, claims) = text.split_once('\n').unwrap_or((text, ""));
    let token = jwt::signed::token(header, claims, secret.expose());
    assert_eq!(jwt::user(&token, &Secret::new("another"), now), None);
    if let Some(user) = jwt::user(&token, &secret, now) {
        assert!(valid_user(&user) && header.contains("HS256"));
    }
}
