//! New certificates for nodes that are members already, and when a coordinator makes one for itself.
//!
//! Owns who gets one: the node whose key the registry knows, for that key, under the identity that the registry gave it. The request
//! is signed with the key, but nothing hangs on that: what is handed out is worth nothing to whoever lacks the key. So a Mac that
//! was away for longer than its certificate lasts, and has none to show, may ask as well. Refuses a key that is not known, one that
//! was revoked, and a caller whose certificate is another node's.

use std::time::{Duration, SystemTime};

use consensus::Consensus;
use proto::identity::{Identity, Role};
use proto::standing;
use proto::v1::{RenewReply, RenewRequest};
use registry::{Node, NodeId};
use tonic::Status;

use crate::authority::{self, Authority, Signed};
use crate::entrance::REVOKED;
use crate::members;
use crate::seal::CANNOT_SIGN;

/// The answer to a node that asks, under the certificate it has or, when that has expired, under none.
pub(crate) fn renew(
    consensus: &Consensus,
    authority: &Authority,
    caller: Option<Identity>,
    request: &RenewRequest,
) -> Result<RenewReply, Status> {
    let csr = Authority::read_request(&request.csr_pem)
        .map_err(|_| Status::invalid_argument("the certificate signing request cannot be read"))?;
    let key = authority::key_fingerprint(&csr);
    let registry = consensus.local();
    let known = registry.nodes().find(|(_, node)| node.public_key == key);
    let identity = known.and_then(|(id, node)| identity(id, node)).ok_or_else(|| {
        Status::permission_denied("this cluster does not know the key: join again with a new token")
    })?;
    if members::is_revoked(&registry, identity) {
        return Err(standing::revoked(REVOKED));
    }
    if caller.is_some_and(|caller| caller != identity) {
        return Err(Status::permission_denied("a node renews no certificate but its own"));
    }
    if !authority.can_sign() {
        return Err(Status::unavailable(CANNOT_SIGN));
    }
    let Signed { certificate_pem, ca_certificate_pem } = authority
        .sign(&csr, identity)
        .map_err(|_| Status::internal("the certificate could not be signed"))?;
    tracing::info!(%identity, "a certificate was renewed");
    Ok(RenewReply { certificate_pem, ca_certificate_pem })
}

/// What a node's certificate says it is; a client of the API has none.
pub(crate) fn identity(id: NodeId, node: &Node) -> Option<Identity> {
    match node.role {
        registry::Role::Agent => Some(Identity { role: Role::Agent, node: id.0 }),
        registry::Role::Coordinator => {
            Some(Identity { role: Role::Coordinator, node: members::replica_of(id).0 })
        }
        registry::Role::Client => None,
    }
}

/// Time until a certificate is to be renewed; none: it is now. A clock that was set back is no reason to wait longer.
pub(crate) fn left(signed: SystemTime, now: SystemTime, life: Duration) -> Option<Duration> {
    let age = now.duration_since(signed).ok()?;
    (life * 2 / 3).checked_sub(age).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_renews_when_two_thirds_are_over_or_its_clock_was_set_back() {
        let (signed, life) = (SystemTime::UNIX_EPOCH + Duration::from_secs(100), Duration::from_secs(9));
        let at = |second| left(signed, SystemTime::UNIX_EPOCH + Duration::from_secs(second), life);
        assert_eq!(at(100), Some(Duration::from_secs(6)));
        assert_eq!(at(105), Some(Duration::from_secs(1)));
        assert_eq!((at(106), at(200), at(99)), (None, None, None));
    }
}
