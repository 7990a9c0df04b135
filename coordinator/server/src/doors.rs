//! Where clients may go: which of the coordinators take them in, as the one that leads sees it.
//!
//! Owns both ends of that look: what each says of its own API, and what the leader gathers for the name that all clients share.
//! Refuses addresses that only one machine reaches, and those of another port: a name has one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use consensus::{Consensus, MemberState, ReplicaId};
use proto::v1::LookReply;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::peers::Peers;
use crate::polling::Polling;
use crate::readiness::{self, Readiness};

/// The door of this coordinator.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) api: SocketAddr,
    pub(crate) readiness: Readiness,
    /// It takes nobody in any more.
    pub(crate) closing: CancellationToken,
}

impl Door {
    pub(crate) fn of(consensus: &Consensus, api: SocketAddr, closing: &CancellationToken) -> Self {
        Self { api, readiness: Readiness::follow(consensus), closing: closing.clone() }
    }

    /// Where its API listens, while clients on other machines are served there.
    pub(crate) fn open(&self) -> Option<SocketAddr> {
        let reached = !self.api.ip().is_loopback() && !self.closing.is_cancelled();
        (reached && self.readiness.now().leader).then_some(self.api)
    }

    /// Where clients are served at the same port by the other coordinators; `None` while this one does not lead. Followed until
    /// this one closes.
    pub(crate) fn others(
        &self,
        consensus: &Consensus,
        replica: ReplicaId,
        peers: &Peers,
    ) -> watch::Receiver<Option<BTreeSet<IpAddr>>> {
        let (sender, others) = watch::channel(None);
        let (leads, port) = (readiness::leads(consensus), self.api.port());
        let (consensus, polling) = (consensus.clone(), Polling::new(peers.clone()));
        let gathering = async move {
            Gatherer { consensus, replica, polling, port }.gather(leads, &sender).await;
        };
        tokio::spawn(self.closing.clone().run_until_cancelled_owned(gathering));
        others
    }
}

struct Gatherer {
    consensus: Consensus,
    replica: ReplicaId,
    polling: Polling,
    port: u16,
}

impl Gatherer {
    async fn gather(
        &mut self,
        mut leads: watch::Receiver<bool>,
        found: &watch::Sender<Option<BTreeSet<IpAddr>>>,
    ) {
        while leads.wait_for(|leads| *leads).await.is_ok() {
            // Two that have the name at a time would be taken for two hosts, of which one has to change its name.
            let mut looks = interval_at(Instant::now() + limits::FORMER_LEADER, limits::DOORS_LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while *leads.borrow_and_update() {
                tokio::select! {
                    _ = looks.tick() => {}
                    changed = leads.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    }
                }
                let now = Some(self.look().await);
                found.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
            }
            found.send_replace(None);
        }
    }

    async fn look(&mut self) -> BTreeSet<IpAddr> {
        let members = self.consensus.members();
        let others: Vec<MemberState> =
            members.into_iter().filter(|member| member.replica != self.replica).collect();
        let mut found = BTreeSet::new();
        for (replica, told) in self.polling.ask(&others).await {
            let member = others.iter().find(|member| member.replica == replica);
            let Some(api) = door(&told, self.port) else { continue };
            if !api.ip().is_unspecified() {
                found.insert(api.ip());
            } else if let Some(member) = member
                && let Ok(addresses) = tokio::net::lookup_host(&member.address).await
            {
                // It listens wherever it is reached.
                found.extend(addresses.map(|address| address.ip()).filter(|ip| !ip.is_loopback()));
            }
        }
        found
    }
}

/// What a coordinator says of its door, if that is one for the clients of this port.
fn door(told: &LookReply, port: u16) -> Option<SocketAddr> {
    let api: SocketAddr = told.api.as_ref()?.parse().ok()?;
    (api.port() == port && !api.ip().is_loopback()).then_some(api)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_counts_where_others_reach_it_at_the_same_port() {
        let told = |api: Option<&str>| LookReply { api: api.map(ToOwned::to_owned), ..LookReply::default() };
        let counts = |api| door(&told(api), 7440).map(|door| door.to_string());
        assert_eq!(counts(Some("0.0.0.0:7440")).as_deref(), Some("0.0.0.0:7440"));
        assert_eq!(counts(Some("[fd00::7]:7440")).as_deref(), Some("[fd00::7]:7440"));
        assert_eq!(counts(Some("10.0.0.7:7441")), None, "another port");
        assert_eq!(counts(Some("127.0.0.1:7440")), None, "nobody else reaches it");
        assert_eq!(counts(Some("mini-01:7440")), None, "no address");
        assert_eq!(counts(None), None, "closed, or of an older release");
    }
}
