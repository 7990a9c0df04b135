//! The naive registry's idea of who is a node.

use registry::{Command, NodeId, Refusal, Reply, Role, TokenId};

use crate::oracle::{Oracle, done_if};

impl Oracle {
    pub(crate) fn issue(&mut self, id: &TokenId, command: &Command) -> Result<Reply, Refusal> {
        let same_id =
            |known: &&Command| matches!(known, Command::IssueJoinToken { id: other, .. } if other == id);
        match self.tokens.iter().find(same_id) {
            Some(known) if known == command && !self.taken_back.contains(id) => Ok(Reply::AlreadySo),
            Some(_) => Err(Refusal::TokenIdTaken { token: id.clone() }),
            None => {
                self.tokens.push(command.clone());
                Ok(Reply::Done)
            }
        }
    }

    pub(crate) fn revoke_token(&mut self, id: &TokenId) -> Result<Reply, Refusal> {
        let issued =
            |token: &Command| matches!(token, Command::IssueJoinToken { id: other, .. } if other == id);
        if !self.tokens.iter().any(issued) {
            return Err(Refusal::UnknownToken { token: id.clone() });
        }
        let before = self.taken_back.contains(id);
        self.taken_back.push(id.clone());
        Ok(done_if(!before))
    }

    pub(crate) fn admit(
        &mut self,
        shown: &TokenId,
        secret: &[u8; 32],
        key: &str,
        at: u64,
    ) -> Result<Reply, Refusal> {
        let good = self.tokens.iter().find_map(|token| {
            let Command::IssueJoinToken { id, secret_hash, role, expires_at_unix_ms, uses, name: _ } = token
            else {
                return None;
            };
            ((id, secret_hash) == (shown, secret)).then_some((*role, *expires_at_unix_ms, *uses))
        });
        let token = shown.clone();
        let Some((role, expires, uses)) = good else {
            return Err(Refusal::UnknownToken { token });
        };
        if self.taken_back.contains(shown) {
            return Err(Refusal::TokenRevoked { token });
        }
        if expires <= at {
            return Err(Refusal::TokenExpired { token });
        }
        let known = self.admitted.iter().position(|(other, _, _)| other == key);
        if let Some(position) = known {
            let (node, is) = (NodeId(position as u64 + 1), self.admitted[position].1);
            return if self.revoked.contains(&node) {
                Err(Refusal::NodeRevoked { node })
            } else if is != role {
                Err(Refusal::TokenRoleMismatch { node, is, token_gives: role })
            } else {
                Ok(Reply::NodeAdmitted { node, again: true })
            };
        }
        let used = self.admitted.iter().filter(|(_, _, by)| by == shown).count();
        if uses.is_some_and(|uses| used >= uses as usize) {
            return Err(Refusal::TokenSpent { token });
        }
        self.admitted.push((key.to_owned(), role, token));
        Ok(Reply::NodeAdmitted { node: NodeId(self.admitted.len() as u64), again: false })
    }

    pub(crate) fn revoke(&mut self, node: NodeId) -> Result<Reply, Refusal> {
        self.known(node)?;
        let fresh = !self.revoked.contains(&node);
        if fresh {
            self.revoked.push(node);
            self.wanted.retain(|(on, _, _)| *on != node);
            self.placed.retain(|(on, _, _)| *on != node);
            self.budgets.retain(|(on, _)| *on != node);
            self.draining.retain(|on| *on != node);
            self.moves.retain(|(on, _, _)| *on != node);
        }
        Ok(done_if(fresh))
    }

    pub(crate) fn known(&self, node: NodeId) -> Result<Role, Refusal> {
        let position = node.0.checked_sub(1).and_then(|position| usize::try_from(position).ok());
        let member = position.and_then(|position| self.admitted.get(position));
        member.map(|(_, role, _)| *role).ok_or(Refusal::UnknownNode { node })
    }

    pub(crate) fn live_agent(&self, node: NodeId) -> Result<(), Refusal> {
        match self.known(node)? {
            _ if self.revoked.contains(&node) => Err(Refusal::NodeRevoked { node }),
            Role::Agent => Ok(()),
            is @ (Role::Coordinator | Role::Client) => Err(Refusal::NotAnAgent { node, is }),
        }
    }
}
