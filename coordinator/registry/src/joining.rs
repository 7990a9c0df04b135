//! Who may become a node, and who is one no longer.
//!
//! Owns join tokens, admission and revocation. Refuses to give a number twice, in this life of the facts and the former ones, to bring
//! a revoked key back, and to let an expired or spent token make a new node.

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::breakers::Breakers;
use crate::facts::{Node, Token};
use crate::field::{Field, check_hex, check_id, check_line};
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Bounded, Refusal, Reply};
use crate::secret_hash;
use crate::{Command, NodeId, Role, TokenId};

/// A machine at the door.
pub(crate) struct Joiner<'a> {
    pub(crate) token: &'a TokenId,
    pub(crate) secret_hash: &'a [u8; 32],
    pub(crate) name: &'a str,
    pub(crate) public_key: &'a str,
    pub(crate) at_unix_ms: u64,
}

/// What becomes of a machine at the door.
enum Admission {
    /// It is the node that it was.
    Again(NodeId),
    Anew(NodeId, Role),
}

impl Registry {
    pub(crate) fn issue_token(&mut self, id: &TokenId, token: Token) -> Result<Reply, Refusal> {
        check_id(&id.0, Field::TokenId)?;
        if token.uses == Some(0) {
            return Err(Refusal::Malformed { what: Field::TokenUses });
        }
        if let Some(name) = &token.name {
            check_line(name, limits::NODE_NAME_BYTES_MAX, Field::TokenName)?;
        }
        if let Some(known) = self.tokens.get(id) {
            let same = Token { used: 0, ..known.clone() } == token;
            return if same {
                Ok(Reply::AlreadySo)
            } else {
                Err(Refusal::TokenIdTaken { token: id.clone() })
            };
        }
        while self.tokens.len() >= limits::TOKENS_MAX {
            let Some(least) = least_useful(&self.tokens) else { break };
            self.tokens.remove(&least);
        }
        self.tokens.insert(id.clone(), token);
        Ok(Reply::Done)
    }

    pub(crate) fn revoke_token(&mut self, id: &TokenId) -> Result<Reply, Refusal> {
        check_id(&id.0, Field::TokenId)?;
        let unknown = || Refusal::UnknownToken { token: id.clone() };
        let token = self.tokens.get_mut(id).ok_or_else(unknown)?;
        let before = core::mem::replace(&mut token.revoked, true);
        Ok(if before { Reply::AlreadySo } else { Reply::Done })
    }

    /// Decides in this order:
    /// 1. the token is known, its secret is right, and it was neither taken back nor has it expired;
    /// 2. a known key is the node it was before, without spending the token, so that a lost answer can be asked for
    ///    again; but a revoked key stays out, and a node never changes its role;
    /// 3. a new key spends the token and becomes the next node.
    pub(crate) fn admit(&mut self, joiner: &Joiner<'_>) -> Result<Reply, Refusal> {
        let (node, role) = match self.judge(joiner)? {
            Admission::Again(node) => return Ok(Reply::NodeAdmitted { node, again: true }), // 2
            Admission::Anew(node, role) => (node, role),
        };
        if let Some(token) = self.tokens.get_mut(joiner.token) {
            token.used = token.used.saturating_add(1);
        }
        self.last_node = node.0;
        let Joiner { name, public_key, at_unix_ms, .. } = *joiner;
        let entry = Node::admitted(name, role, public_key, joiner.token.clone(), at_unix_ms);
        self.nodes.insert(node, entry);
        Ok(Reply::NodeAdmitted { node, again: false })
    }

    /// Why [`Command::AdmitNode`] would be refused by these facts: what a stranger says is worth no entry in the log as long as it
    /// would be. `None` for any other command.
    pub fn refuses_to_admit(&self, command: &Command) -> Option<Refusal> {
        let Command::AdmitNode { token, secret_hash, name, public_key, at_unix_ms } = command else {
            return None;
        };
        self.judge(&Joiner { token, secret_hash, name, public_key, at_unix_ms: *at_unix_ms }).err()
    }

    fn judge(&self, joiner: &Joiner<'_>) -> Result<Admission, Refusal> {
        check_joiner(joiner)?;
        let token = self.shown_token(joiner)?; // 1
        if let Some((node, known)) = self.nodes.iter().find(|(_, node)| node.public_key == joiner.public_key)
        {
            return admit_again(*node, known, token.role); // 2
        }
        if token.spent() {
            return Err(Refusal::TokenSpent { token: joiner.token.clone() });
        }
        Ok(Admission::Anew(self.next_node()?, token.role)) // 3
    }

    pub(crate) fn revoke(&mut self, id: NodeId) -> Result<Reply, Refusal> {
        let node = self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode { node: id })?;
        if node.revoked {
            return Ok(Reply::AlreadySo);
        }
        node.revoked = true;
        node.wanted.clear();
        node.placed.clear();
        node.budget_bytes = None;
        node.draining = false;
        node.breakers = Breakers::default();
        self.forget_oldest_revoked();
        Ok(Reply::Done)
    }

    pub(crate) fn revoke_founder(&mut self, at_unix_ms: u64) -> Result<Reply, Refusal> {
        let cluster = self.cluster.as_mut().ok_or(Refusal::NotFounded)?;
        if cluster.founder_revoked_at_unix_ms.is_some() {
            return Ok(Reply::AlreadySo);
        }
        cluster.founder_revoked_at_unix_ms = Some(at_unix_ms);
        Ok(Reply::Done)
    }

    /// A member that runs models, the only kind of node that offers, holds, drains and breaks.
    pub(crate) fn live_agent(&mut self, id: NodeId) -> Result<&mut Node, Refusal> {
        let node = self.nodes.get_mut(&id).ok_or(Refusal::UnknownNode { node: id })?;
        if node.revoked {
            return Err(Refusal::NodeRevoked { node: id });
        }
        if node.role != Role::Agent {
            return Err(Refusal::NotAnAgent { node: id, is: node.role });
        }
        Ok(node)
    }

    /// A wrong secret and an unknown id are one refusal, so that ids cannot be collected by guessing.
    fn shown_token(&self, joiner: &Joiner<'_>) -> Result<&Token, Refusal> {
        let known = self.tokens.get(joiner.token);
        let token = known
            .filter(|token| secret_hash::same(&token.secret_hash, joiner.secret_hash))
            .ok_or_else(|| Refusal::UnknownToken { token: joiner.token.clone() })?;
        if token.revoked {
            return Err(Refusal::TokenRevoked { token: joiner.token.clone() });
        }
        if joiner.at_unix_ms >= token.expires_at_unix_ms {
            return Err(Refusal::TokenExpired { token: joiner.token.clone() });
        }
        Ok(token)
    }

    fn next_node(&self) -> Result<NodeId, Refusal> {
        let full = Refusal::TooMany { what: Bounded::LiveNodes, limit: limits::LIVE_NODES_MAX };
        let live = self.nodes.values().filter(|node| !node.revoked).count();
        if live >= limits::LIVE_NODES_MAX {
            return Err(full);
        }
        self.last_given().checked_add(1).map(NodeId).ok_or(full)
    }

    /// A snapshot edited by hand may have lost the counter; the nodes in it still count.
    fn last_given(&self) -> u64 {
        self.nodes.last_key_value().map_or(0, |(node, _)| node.0).max(self.last_node)
    }

    /// A number beyond all that the former life of the facts can have given, if another begins now, at this time of Unix in
    /// milliseconds: it went on giving numbers after the copy was made, each in more than a second, and their certificates last. The
    /// seconds are also beyond what a life gave that began from the same copy before.
    #[must_use]
    pub fn number_beyond(&self, at_unix_ms: u64) -> NodeId {
        NodeId(self.last_given().saturating_add(limits::NODES_BEYOND_COPY).max(at_unix_ms / 1_000))
    }

    /// The former life's numbers that are not among the facts are those of nodes whose membership is over.
    pub(crate) fn begin_numbers(&mut self, at_unix_ms: u64, founder: u64) {
        let beyond = self.number_beyond(at_unix_ms).0;
        let node = founder.checked_sub(1).filter(|node| *node > self.last_given()).map(NodeId);
        if let Some(node) = node {
            let token = TokenId(String::new());
            // No key has the fingerprint: a coordinator signs for itself.
            let entry = Node::admitted("restored", Role::Coordinator, "", token, at_unix_ms);
            self.nodes.insert(node, entry);
        }
        self.last_node = beyond.max(self.last_given());
    }

    fn forget_oldest_revoked(&mut self) {
        let revoked = || self.nodes.iter().filter(|(_, node)| node.revoked).map(|(node, _)| *node);
        let oldest = if revoked().count() > limits::REVOKED_NODES_MAX { revoked().next() } else { None };
        if let Some(node) = oldest {
            self.nodes.remove(&node);
        }
    }
}

fn admit_again(node: NodeId, known: &Node, token_gives: Role) -> Result<Admission, Refusal> {
    if known.revoked {
        return Err(Refusal::NodeRevoked { node });
    }
    if known.role != token_gives {
        return Err(Refusal::TokenRoleMismatch { node, is: known.role, token_gives });
    }
    Ok(Admission::Again(node))
}

/// Tokens that admit nobody any more go first, then the one that expires first.
fn least_useful(tokens: &BTreeMap<TokenId, Token>) -> Option<TokenId> {
    let rank = |token: &Token| (!token.spent() && !token.revoked, token.expires_at_unix_ms);
    tokens.iter().min_by_key(|(_, token)| rank(token)).map(|(id, _)| id.clone())
}

fn check_joiner(joiner: &Joiner<'_>) -> Result<(), Refusal> {
    // The refusals of a token repeat its id, so what a stranger sends must be formed like one.
    check_id(&joiner.token.0, Field::TokenId)?;
    check_line(joiner.name, limits::NODE_NAME_BYTES_MAX, Field::NodeName)?;
    check_hex(joiner.public_key, limits::FINGERPRINT_BYTES_MAX, Field::PublicKey)
}
