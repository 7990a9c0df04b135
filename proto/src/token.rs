//! The join token: what an operator carries from a coordinator to a new Mac.
//!
//! `mlxc1.<hash of the cluster's CA>.<token id>.<secret>`. The hash lets the new Mac recognise the true cluster before it
//! trusts anything; the id finds the token in the registry; the secret, of which the registry keeps a hash only, proves that the
//! holder was invited. Refuses tokens of any other shape with words that say what a token looks like.

use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const VERSION: &str = "mlxc1";
/// Secret bits enough that guessing is hopeless even offline: 24 bytes.
pub const SECRET_BYTES: usize = 24;

/// A parsed token. `Debug` hides the secret, so that no log can leak it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// BLAKE3 of the CA certificate in DER form.
    pub ca_hash: [u8; 32],
    pub id: String,
    pub secret: Vec<u8>,
}

/// The text is no join token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "not a join token: expected mlxc1.<cluster hash>.<id>.<secret>, as `mlx-serving coordinator` prints it"
)]
pub struct TokenError;

impl JoinToken {
    /// The form of the secret that the registry stores.
    pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
        blake3::derive_key("mlx-serving 2026 join token secret", secret)
    }

    /// What a token says of its cluster's CA certificate (DER).
    pub fn hash_of(ca_der: &[u8]) -> [u8; 32] {
        *blake3::hash(ca_der).as_bytes()
    }

    /// Does this CA certificate (DER) belong to the cluster that issued the token?
    pub fn pins(&self, ca_der: &[u8]) -> bool {
        blake3::hash(ca_der) == blake3::Hash::from_bytes(self.ca_hash)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = URL_SAFE_NO_PAD.encode(self.ca_hash);
        write!(out, "{VERSION}.{hash}.{}.{}", self.id, URL_SAFE_NO_PAD.encode(&self.secret))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('.');
        let (version, hash, id, secret) = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(VERSION), Some(hash), Some(id), Some(secret), None) =
            (version, hash, id, secret, parts.next())
        else {
            return Err(TokenError);
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError);
        let ca_hash = decode(hash)?.try_into().map_err(|_| TokenError)?;
        let secret = decode(secret)?;
        if id.is_empty() || secret.len() != SECRET_BYTES {
            return Err(TokenError);
        }
        Ok(Self { ca_hash, id: id.to_owned(), secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_printed_token_parses_back(ca_hash: [u8; 32], secret: [u8; SECRET_BYTES], id in "[a-z0-9]{1,16}") {
            let token = JoinToken { ca_hash, id, secret: secret.to_vec() };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn no_text_panics_the_parser(text in ".{0,200}") {
            let _ = text.parse::<JoinToken>();
        }
    }

    #[test]
    fn the_debug_form_hides_the_secret() {
        let token = JoinToken { ca_hash: [1; 32], id: "a1".to_owned(), secret: vec![0xAB; SECRET_BYTES] };
        let shown = format!("{token:?}");
        assert!(!shown.contains(&URL_SAFE_NO_PAD.encode(&token.secret)) && !shown.contains("171"), "{shown}");
    }

    #[test]
    fn a_token_pins_its_own_cluster_only() {
        let token =
            JoinToken { ca_hash: *blake3::hash(b"ours").as_bytes(), id: "a".to_owned(), secret: vec![0; 24] };
        assert!(token.pins(b"ours"));
        assert!(!token.pins(b"theirs"));
    }
}
