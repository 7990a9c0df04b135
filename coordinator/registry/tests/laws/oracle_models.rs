//! The naive registry's idea of what is offered, held and wished for.

use registry::{ModelName, ModelPolicy, ModelSource, NodeId, Refusal, Reply};

use crate::oracle::{Oracle, done_if};

impl Oracle {
    pub(crate) fn want(
        &mut self,
        node: NodeId,
        model: &ModelName,
        source: &ModelSource,
    ) -> Result<Reply, Refusal> {
        self.live_agent(node)?;
        let wish = (node, model.clone(), source.clone());
        if self.wanted.contains(&wish) {
            return Ok(Reply::AlreadySo);
        }
        self.wanted.retain(|(on, name, _)| (*on, name) != (node, model));
        self.wanted.push(wish);
        Ok(Reply::Done)
    }

    pub(crate) fn unwant(&mut self, node: NodeId, model: &ModelName) -> Result<Reply, Refusal> {
        self.known(node)?;
        let before = self.wanted.len();
        self.wanted.retain(|(on, name, _)| (*on, name) != (node, model));
        self.placed.retain(|(on, name, _)| (*on, name) != (node, model));
        Ok(done_if(self.wanted.len() < before))
    }

    pub(crate) fn set_budget(&mut self, node: NodeId, bytes: u64) -> Result<Reply, Refusal> {
        self.live_agent(node)?;
        let fresh = !self.budgets.contains(&(node, bytes));
        self.budgets.retain(|(on, _)| *on != node);
        self.budgets.push((node, bytes));
        Ok(done_if(fresh))
    }

    /// Tries it, adds everything up, and takes it back if that is too much.
    pub(crate) fn place(&mut self, node: NodeId, model: &ModelName, bytes: u64) -> Result<Reply, Refusal> {
        self.live_agent(node)?;
        self.offered(node, model)?;
        if self.placed.contains(&(node, model.clone(), bytes)) {
            return Ok(Reply::AlreadySo);
        }
        let budget = self.budgets.iter().find(|(on, _)| *on == node);
        let budget = budget.ok_or(Refusal::BudgetUnknown { node })?.1;
        let before = self.placed.clone();
        self.placed.retain(|(on, name, _)| (*on, name) != (node, model));
        let others: u64 =
            self.placed.iter().filter(|(on, _, _)| *on == node).map(|(_, _, bytes)| bytes).sum();
        self.placed.push((node, model.clone(), bytes));
        if others + bytes <= budget {
            return Ok(Reply::Done);
        }
        self.placed = before;
        let (model, free_bytes) = (model.clone(), budget.saturating_sub(others));
        Err(Refusal::NoRoom { node, model, needed_bytes: bytes, free_bytes, budget_bytes: budget })
    }

    pub(crate) fn unplace(&mut self, node: NodeId, model: &ModelName) -> Result<Reply, Refusal> {
        self.known(node)?;
        let before = self.placed.len();
        self.placed.retain(|(on, name, _)| (*on, name) != (node, model));
        Ok(done_if(self.placed.len() < before))
    }

    pub(crate) fn offered(&self, node: NodeId, model: &ModelName) -> Result<(), Refusal> {
        let offered = self.wanted.iter().any(|(on, name, _)| (*on, name) == (node, model));
        if offered { Ok(()) } else { Err(Refusal::NotOffered { node, model: model.clone() }) }
    }

    pub(crate) fn set_policy(&mut self, model: &ModelName, policy: ModelPolicy) -> Reply {
        let before = self.policies.clone();
        let position = self.policies.iter().position(|(name, _)| name == model);
        let default = policy == ModelPolicy::default();
        match position {
            Some(position) if default => drop(self.policies.remove(position)),
            Some(position) => self.policies[position].1 = policy,
            None if default => {}
            None => self.policies.push((model.clone(), policy)),
        }
        done_if(before != self.policies)
    }

    pub(crate) fn set_golden(
        &mut self,
        model: &ModelName,
        card: &str,
        ids: &[u32],
    ) -> Result<Reply, Refusal> {
        let known = self.goldens.iter().find(|(name, of, _)| name == model && of == card);
        match known {
            Some((_, _, known)) if known == ids => return Ok(Reply::AlreadySo),
            Some(_) => return Err(Refusal::GoldenDiffers { model: model.clone() }),
            None => {}
        }
        self.goldens.retain(|(name, _, _)| name != model);
        self.goldens.push((model.clone(), card.to_owned(), ids.to_vec()));
        Ok(Reply::Done)
    }
}
