//! Who a peer is: the role and the node number in its certificate.
//!
//! Owns the names that a certificate carries and their parsing. A leaf has a DNS name, so that ordinary certificate checks work
//! whatever address the Mac has, and a URI `spiffe://mlxc/<role>/<node>`, which is the identity itself. Refuses any leaf
//! without exactly one such URI: a certificate that is valid but says nothing is not an identity.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// The DNS name every coordinator's certificate carries and every agent checks.
pub const COORDINATOR_DNS: &str = "coordinator.mlxc.internal";

const URI_PREFIX: &str = "spiffe://mlxc/";

/// What a certificate entitles its holder to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Wraps the runtimes of one Mac.
    Agent,
    /// Serves the API and orders agents.
    Coordinator,
}

/// A peer after its certificate chain was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub role: Role,
    /// The node number the registry gave; never reused.
    pub node: u64,
}

/// Why a verified certificate is still no identity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    #[error("the peer presented no certificate")]
    Missing,
    #[error("the peer's certificate cannot be parsed")]
    Malformed,
    #[error("the peer's certificate names no single node of this cluster")]
    Unnamed,
}

/// A certificate counts from so long before it was signed, because the clocks of two Macs differ.
pub const BACKDATED: Duration = Duration::from_secs(3_600);

/// From when to when a certificate counts, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from_unix_ms: u64,
    pub until_unix_ms: u64,
}

impl Validity {
    /// Reads it out of a leaf in DER form.
    pub fn of_leaf(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, leaf) = parse_x509_certificate(der).map_err(|_| IdentityError::Malformed)?;
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000);
        let validity = leaf.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self { from_unix_ms: ms(from), until_unix_ms: ms(until) })
    }
}

/// The name of the authority that signed a leaf, in DER form; each authority of a cluster has another one.
pub fn issuer_of(der: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let (_, leaf) = parse_x509_certificate(der).map_err(|_| IdentityError::Malformed)?;
    Ok(leaf.issuer().as_raw().to_vec())
}

/// The public key that a leaf is for, as it is in the request that the leaf was signed from.
pub fn key_of(der: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let (_, leaf) = parse_x509_certificate(der).map_err(|_| IdentityError::Malformed)?;
    Ok(leaf.public_key().subject_public_key.data.to_vec())
}

impl Identity {
    /// Reads the identity out of a leaf certificate in DER form whose chain was already verified by the TLS layer.
    pub fn from_leaf(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, leaf) = parse_x509_certificate(der).map_err(|_| IdentityError::Malformed)?;
        let names = leaf
            .subject_alternative_name()
            .map_err(|_| IdentityError::Malformed)?
            .ok_or(IdentityError::Unnamed)?;
        let uri = |name: &GeneralName<'_>| {
            if let GeneralName::URI(uri) = name {
                uri.starts_with(URI_PREFIX).then(|| uri.parse())
            } else {
                None
            }
        };
        let mut found = names.value.general_names.iter().filter_map(uri);
        match (found.next(), found.next()) {
            (Some(identity), None) => identity,
            (None, _) | (Some(_), Some(_)) => Err(IdentityError::Unnamed),
        }
    }

    /// The DNS name that goes beside the URI in a leaf.
    pub fn dns_name(&self) -> String {
        match self.role {
            Role::Agent => format!("n{}.node.mlxc.internal", self.node),
            Role::Coordinator => COORDINATOR_DNS.to_owned(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{URI_PREFIX}{}/{}", self.role, self.node)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        let path = uri.strip_prefix(URI_PREFIX).ok_or(IdentityError::Unnamed)?;
        let (role, node) = path.split_once('/').ok_or(IdentityError::Unnamed)?;
        let role = match role {
            "agent" => Role::Agent,
            "coordinator" => Role::Coordinator,
            _ => return Err(IdentityError::Unnamed),
        };
        let node = node.parse().map_err(|_| IdentityError::Unnamed)?;
        Ok(Self { role, node })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Role::Agent => "agent",
            Role::Coordinator => "coordinator",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf_with(uris: &[&str]) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params =
            rcgen::CertificateParams::new(vec!["n7.node.mlxc.internal".to_owned()]).expect("names");
        for uri in uris {
            params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().expect("ia5")));
        }
        params.self_signed(&key).expect("a leaf").der().to_vec()
    }

    #[test]
    fn a_leaf_tells_role_and_node() {
        let identity = Identity::from_leaf(&leaf_with(&["spiffe://mlxc/agent/7"]));
        assert_eq!(identity, Ok(Identity { role: Role::Agent, node: 7 }));
    }

    #[test]
    fn a_leaf_without_exactly_one_identity_is_refused() {
        assert_eq!(Identity::from_leaf(&leaf_with(&[])), Err(IdentityError::Unnamed));
        let two = leaf_with(&["spiffe://mlxc/agent/7", "spiffe://mlxc/coordinator/1"]);
        assert_eq!(Identity::from_leaf(&two), Err(IdentityError::Unnamed));
    }

    #[test]
    fn a_foreign_role_or_number_is_refused() {
        for uri in [
            "spiffe://mlxc/operator/7",
            "spiffe://mlxc/agent/-1",
            "spiffe://mlxc/agent",
            "spiffe://other/agent/7",
        ] {
            assert_eq!(uri.parse::<Identity>(), Err(IdentityError::Unnamed), "{uri}");
        }
    }

    #[test]
    fn a_leaf_tells_from_when_to_when_it_counts() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(1970, 1, 2);
        params.not_after = rcgen::date_time_ymd(1970, 1, 9);
        let leaf = params.self_signed(&key).expect("a leaf");
        let day = 24 * 3_600_000;
        let week = Validity { from_unix_ms: day, until_unix_ms: 8 * day };
        assert_eq!(Validity::of_leaf(leaf.der()), Ok(week));
    }

    #[test]
    fn garbage_is_malformed_not_a_panic() {
        assert_eq!(Identity::from_leaf(b"not a certificate"), Err(IdentityError::Malformed));
        assert_eq!(Validity::of_leaf(b"not a certificate"), Err(IdentityError::Malformed));
    }

    #[test]
    fn the_printed_form_parses_back() {
        let identity = Identity { role: Role::Coordinator, node: 12 };
        assert_eq!(identity.to_string().parse(), Ok(identity));
    }
}
