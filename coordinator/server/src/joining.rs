//! How a new Mac becomes a node: token in, certificate out.
//!
//! Owns the check of the join token against the registry and the signature. Refuses by the registry's word; says no more to
//! the caller than what to do next.

use consensus::Consensus;
use proto::identity::Identity;
use proto::token::JoinToken;
use proto::v1::{JoinReply, JoinRequest};
use registry::{Command, NodeId, Refusal, Reply, Role, TokenId};
use std::sync::Arc;
use tonic::Status;

use crate::authority::{self, Authority, Signed};
use crate::clock::unix_ms;
use crate::founding::Founded;
use crate::seal::CANNOT_SIGN;
use crate::{renewing, versions};

/// Longest name a machine may give itself, in characters.
const NAME_CHARS_MAX: usize = 64;

#[derive(Clone)]
pub(crate) struct Joining {
    pub(crate) consensus: Consensus,
    pub(crate) authority: Arc<Authority>,
    pub(crate) cluster: String,
}

impl Joining {
    pub(crate) fn new(consensus: &Consensus, founded: &Founded) -> Self {
        let (authority, cluster) = (founded.authority.clone(), founded.cluster.clone());
        Self { consensus: consensus.clone(), authority, cluster }
    }

    pub(crate) async fn join(&self, request: JoinRequest) -> Result<JoinReply, Status> {
        // Before a use of the token is spent.
        if !self.authority.can_sign() {
            return Err(Status::unavailable(CANNOT_SIGN));
        }
        let csr = Authority::read_request(&request.csr_pem)
            .map_err(|_| Status::invalid_argument("the certificate signing request cannot be read"))?;
        let token = TokenId(request.token_id);
        let facts = self.consensus.local();
        // Before a use of the token is spent; what an agent speaks is between it and the coordinators.
        if facts.token(&token).is_some_and(|token| token.role == Role::Coordinator) {
            versions::check(facts.cluster_version(), request.speaks)?;
        }
        let admit = Command::AdmitNode {
            token,
            secret_hash: JoinToken::secret_hash(&request.secret),
            name: display_name(&request.name),
            public_key: authority::key_fingerprint(&csr),
            at_unix_ms: unix_ms(),
        };
        if let Some(refusal) = self.refused(&admit).await? {
            return Err(Status::permission_denied(refusal.to_string()));
        }
        let reply =
            self.consensus.propose(admit).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let node = match reply {
            Reply::NodeAdmitted { node, .. } => node,
            Reply::Refused(refusal) => return Err(Status::permission_denied(refusal.to_string())),
            Reply::Done | Reply::AlreadySo => {
                return Err(Status::internal("the registry gave no node number"));
            }
        };
        let identity = self.identity(node)?;
        let signed = self.authority.sign(&csr, identity);
        let Signed { certificate_pem, ca_certificate_pem } =
            signed.map_err(|_| Status::internal("the certificate could not be signed"))?;
        tracing::info!(node = node.0, "a node joined");
        Ok(JoinReply { node: node.0, certificate_pem, ca_certificate_pem, cluster: self.cluster.clone() })
    }

    /// By the facts here, and where they may not know of a token yet, by the newest. A stranger's words are never written down to be
    /// refused.
    async fn refused(&self, admit: &Command) -> Result<Option<Refusal>, Status> {
        match self.consensus.local().refuses_to_admit(admit) {
            Some(Refusal::UnknownToken { .. } | Refusal::TooMany { .. }) => {
                let newest = self.consensus.read(|facts| facts.refuses_to_admit(admit)).await;
                newest.map_err(|error| Status::unavailable(error.to_string()))
            }
            refusal => Ok(refusal),
        }
    }

    /// The role is what the token gave, and the registry remembers it; the joiner has no say.
    fn identity(&self, node: NodeId) -> Result<Identity, Status> {
        let registry = self.consensus.local();
        registry.node(node).and_then(|known| renewing::identity(node, known)).ok_or_else(|| {
            Status::permission_denied("this token invites no agent and no coordinator: ask for one that does")
        })
    }
}

/// What people call the machine, without what could garble a terminal or a page.
fn display_name(name: &str) -> String {
    let kept: String = name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect();
    if kept.trim().is_empty() { "unnamed".to_owned() } else { kept.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::display_name;

    #[test]
    fn a_name_cannot_garble_a_terminal() {
        assert_eq!(display_name("mini\u{1b}[2J-07\n"), "mini[2J-07");
        assert_eq!(display_name(" \u{7} "), "unnamed");
        assert_eq!(display_name(&"x".repeat(500)).len(), super::NAME_CHARS_MAX);
    }
}
