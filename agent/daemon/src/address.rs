//! Where a coordinator is reached.
//!
//! Owns taking `host:port` apart and putting it together again. Refuses what names no host or no port, and says what was expected.

use std::fmt;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// `host:port`, taken apart: the token streams are on the same host. Written down, it is one word again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Address {
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("{text:?} is no coordinator's address: expected host:port");
        let (host, port) = text.rsplit_once(':').with_context(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).with_context(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = !bare.is_empty() && (bare == host) != bare.contains(':');
        anyhow::ensure!(plain && !bare.contains(['/', '@', ' ']), wrong());
        Ok(Self { host: bare.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for Address {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_put_together() {
        for (text, host) in
            [("mini-01.local:7443", "mini-01.local"), ("127.0.0.1:1", "127.0.0.1"), ("[::1]:9", "::1")]
        {
            let address = Address::parse(text).expect("an address");
            assert_eq!((address.host.as_str(), address.to_string().as_str()), (host, text));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in
            ["mini-01", ":7443", "mini:0", "mini:99999", "::1:7443", "https://mini:7443", "a b:1", "[mini]:1"]
        {
            let words = Address::parse(text).expect_err(text).to_string();
            assert!(words.contains("host:port"), "{words}");
        }
    }

    #[test]
    fn an_address_is_written_down_as_one_word_and_read_with_the_same_care() {
        let address = Address::parse("[::1]:9").expect("an address");
        let text = serde_json::to_string(&address).expect("written");
        assert_eq!(text, "\"[::1]:9\"");
        assert_eq!(serde_json::from_str::<Address>(&text).expect("read"), address);
        assert!(serde_json::from_str::<Address>("\"mini-01\"").is_err());
    }
}
