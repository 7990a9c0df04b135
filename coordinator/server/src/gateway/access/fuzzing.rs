//! The laws of API keys, as a client shows them.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};

use super::credential;
use super::secret::ShownKey;

/// Whatever stands in a header: what is found there is a part of it, a key is read in one way only, and it is never shown.
pub fn api_keys(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    for name in [AUTHORIZATION.as_str(), "x-api-key"] {
        let headers: HeaderMap = name.parse().into_iter().map(|name| (name, value.clone())).collect();
        let Some(shown) = credential::of(&headers) else { continue };
        assert!(!shown.is_empty() && shown.trim_ascii() == shown && bytes.ends_with_trimmed(shown));
        let Some(key) = ShownKey::parse(shown) else { continue };
        let secret = shown.get("mlx_".len() + key.id.0.len() + 1..).unwrap_or_default();
        let form = [b"mlx_", key.id.0.as_bytes(), b"_", secret].concat();
        assert_eq!(form, shown, "a key has two forms");
        let other = [&form, b"0".as_slice()].concat();
        assert_ne!(ShownKey::parse(&other).map(|other| other.hash()), Some(key.hash()));
        let debug = format!("{key:?}");
        let secret = String::from_utf8_lossy(secret);
        assert!(
            secret.len() < 8 || key.id.0.contains(&*secret) || !debug.contains(&*secret),
            "a secret is shown"
        );
    }
}

trait EndsWith {
    fn ends_with_trimmed(&self, end: &[u8]) -> bool;
}

impl EndsWith for [u8] {
    fn ends_with_trimmed(&self, end: &[u8]) -> bool {
        self.trim_ascii_end().ends_with(end)
    }
}
