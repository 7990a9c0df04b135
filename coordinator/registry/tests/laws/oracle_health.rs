//! The naive registry's idea of drains, breakers and blame.

use registry::{Breaker, Command, Death, Fingerprint, NodeId, Refusal, Reply, limits};

use crate::oracle::{Oracle, done_if};

impl Oracle {
    pub(crate) fn drain(&mut self, node: NodeId, draining: bool) -> Result<Reply, Refusal> {
        self.live_agent(node)?;
        let before = self.draining.contains(&node);
        self.draining.retain(|on| *on != node);
        if draining {
            self.draining.push(node);
        }
        Ok(done_if(before != draining))
    }

    pub(crate) fn move_breaker(&mut self, command: &Command) -> Result<Reply, Refusal> {
        let Command::MoveBreaker { node, model, state, generation, opens, until_unix_ms, why, at_unix_ms } =
            command
        else {
            return Ok(Reply::AlreadySo);
        };
        self.live_agent(*node)?;
        if let Some(model) = model {
            self.offered(*node, model)?;
        }
        let moved = Breaker {
            state: *state,
            generation: *generation,
            opens: *opens,
            until_unix_ms: *until_unix_ms,
            why: why.clone(),
            at_unix_ms: *at_unix_ms,
        };
        let of_this = self.moves.iter().filter(|(on, of, _)| (on, of) == (node, model));
        if of_this.clone().next_back().is_some_and(|(_, _, last)| *last == moved) {
            return Ok(Reply::AlreadySo);
        }
        let known = of_this.map(|(_, _, breaker)| breaker.generation).max().unwrap_or(0);
        if *generation <= known {
            let (node, model, generation) = (*node, model.clone(), *generation);
            return Err(Refusal::StaleGeneration { node, model, generation, known });
        }
        self.moves.push((*node, model.clone(), moved));
        Ok(Reply::Done)
    }

    pub(crate) fn charge(&mut self, fingerprint: Fingerprint, death: Death) -> Result<Reply, Refusal> {
        self.known(death.node)?;
        if self.deaths.contains(&(fingerprint, death)) {
            return Ok(Reply::AlreadySo);
        }
        let mut of_this: Vec<_> = self.deaths.iter().filter(|(of, _)| *of == fingerprint).copied().collect();
        of_this.sort();
        if of_this.len() == limits::DEATHS_PER_CHARGE_MAX {
            self.deaths.retain(|known| *known != of_this[0]);
        }
        self.deaths.push((fingerprint, death));
        Ok(Reply::Done)
    }

    pub(crate) fn quarantine(&mut self, fingerprint: Fingerprint, at: u64, until: u64) -> Reply {
        if self.quarantines.iter().any(|(of, _, end)| *of == fingerprint && *end >= until) {
            return Reply::AlreadySo;
        }
        self.quarantines.retain(|(of, _, _)| *of != fingerprint);
        self.quarantines.push((fingerprint, at, until));
        Reply::Done
    }

    pub(crate) fn pardon(&mut self, fingerprint: Fingerprint) -> Reply {
        let before = (self.deaths.len(), self.quarantines.len());
        self.deaths.retain(|(of, _)| *of != fingerprint);
        self.quarantines.retain(|(of, _, _)| *of != fingerprint);
        done_if(before != (self.deaths.len(), self.quarantines.len()))
    }
}
