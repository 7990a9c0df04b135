//! Leading: what runs only in the coordinator that leads the group.
//!
//! Owns starting the scheduler's loop when this replica is elected, once everything that earlier leaders wrote is applied, and
//! ending it when it leads no more. Refuses to carry anything over: the next scheduler hears from gateways and agents.

use consensus::Consensus;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::leader::{self, Canaries, Leader};
use crate::limits;
use crate::streams::Streams;

/// The leader in this process.
#[derive(Clone)]
pub(crate) struct Leading {
    pub(crate) term: u64,
    pub(crate) leader: Leader,
    /// Cancelled when it leads no more.
    pub(crate) ended: CancellationToken,
}

/// What it takes to lead.
pub(crate) struct Office {
    pub(crate) consensus: Consensus,
    pub(crate) fleet: Fleet,
    pub(crate) streams: Streams,
    pub(crate) catalogue: Catalogue,
    pub(crate) clock: Clock,
}

impl Office {
    /// Follows the elections until `stop`, and tells `leading` of the result.
    pub(crate) async fn hold(self, leading: watch::Sender<Option<Leading>>, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.follow(&leading, &stop)).await;
        self.leave(&leading).await;
    }

    async fn follow(&self, leading: &watch::Sender<Option<Leading>>, stop: &CancellationToken) {
        let mut leadership = self.consensus.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            let held = leading.borrow().clone();
            let mut again = false;
            if held.is_some_and(|held| !now.is_self || held.term != now.term || held.ended.is_cancelled()) {
                self.leave(leading).await;
            }
            if now.is_self && leading.borrow().is_none() {
                again = !self.enter(leading, stop).await;
            }
            let wait = async {
                if again {
                    tokio::time::sleep(limits::DESK_AGAIN).await
                } else {
                    std::future::pending().await
                }
            };
            let held = leading.borrow().as_ref().map(|held| held.ended.clone());
            let ended = async {
                match held {
                    Some(ended) => ended.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                () = wait => {}
                // This coordinator's gateway has left it.
                () = ended => {}
            }
        }
    }

    /// Whether it leads now. A leader that a majority does not confirm tries again, or is told that it is none.
    async fn enter(&self, leading: &watch::Sender<Option<Leading>>, stop: &CancellationToken) -> bool {
        let term = match self.consensus.barrier().await {
            Ok(term) => term,
            Err(error) => {
                tracing::info!(%error, "elected, and not confirmed yet");
                return false;
            }
        };
        let ended = stop.child_token();
        let registry = self.consensus.local();
        let (leader, errands) = Leader::start(self.clock, &registry, ended.clone());
        let canaries = Canaries {
            consensus: self.consensus.clone(),
            streams: self.streams.clone(),
            catalogue: self.catalogue.clone(),
            leader: leader.clone(),
        };
        tokio::spawn(leader::propose(
            self.consensus.clone(),
            leader.clone(),
            errands.proposals,
            ended.clone(),
        ));
        tokio::spawn(canaries.run(errands.probes, ended.clone()));
        if self.consensus.members().len() > 1 {
            leader.lead(Instant::now() + limits::SETTLING).await;
        }
        self.fleet.lead(Some(leader.clone()), &registry).await;
        tracing::info!(term, "this coordinator leads");
        leading.send_replace(Some(Leading { term, leader, ended }));
        true
    }

    async fn leave(&self, leading: &watch::Sender<Option<Leading>>) {
        if let Some(former) = leading.send_replace(None) {
            former.ended.cancel();
            self.fleet.lead(None, &self.consensus.local()).await;
            tracing::info!(term = former.term, "this coordinator leads no more");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use consensus::{Options, Start};

    use super::*;
    use crate::cards::Cards;
    use crate::gateway::text::rendering::Here;

    #[tokio::test]
    async fn whoever_leads_and_was_left_by_its_own_gateway_begins_anew_in_the_same_term() {
        let folder = tempfile::tempdir().expect("a folder");
        let registry = folder.path().join("registry");
        let consensus = Consensus::open(&registry, Options::default(), Start::Found).await.expect("opens");
        let (streams, catalogue) = (Streams::default(), Catalogue::default());
        let cards = Cards::open(folder.path().join("cards"), Arc::new(Here)).expect("opens");
        let fleet = Fleet::new(streams.clone(), cards, catalogue.clone());
        let (told, mut leading) = watch::channel(None);
        let office = Office { consensus, fleet, streams, catalogue, clock: Clock::start() };
        let office = tokio::spawn(office.hold(told, CancellationToken::new()));
        let first = leading.wait_for(Option::is_some).await.expect("it leads").clone().expect("it leads");
        first.ended.cancel();
        let fresh = |now: &Option<Leading>| now.as_ref().is_some_and(|now| !now.ended.is_cancelled());
        let second = leading.wait_for(fresh).await.expect("it leads").clone().expect("it leads");
        assert_eq!(second.term, first.term);
        office.abort();
    }
}
