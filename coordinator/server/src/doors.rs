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

/// Where clients are served at one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// Whether this coordinator takes them in. One that stops may lead until its last answer has ended.
    pub own: bool,
    /// Where the others do that are ready.
    pub others: BTreeSet<IpAddr>,
}

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

    /// Where clients are served at this port; `None` while this one does not lead. Followed until the registry is closed: who stops
    /// while it leads still has the name, and who leads no more must not.
    pub(crate) fn all(
        &self,
        consensus: &Consensus,
        replica: ReplicaId,
        peers: &Peers,
    ) -> watch::Receiver<Option<Doors>> {
        let (sender, doors) = watch::channel(None);
        let (leads, port) = (readiness::leads(consensus), self.api.port());
        let (consensus, polling) = (consensus.clone(), Polling::new(peers.clone()));
        let mut gatherer = Gatherer { consensus, replica, polling, port };
        let closing = self.closing.clone();
        tokio::spawn(async move { gatherer.gather(leads, &closing, &sender).await });
        doors
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
        closing: &CancellationToken,
        found: &watch::Sender<Option<Doors>>,
    ) {
        while leads.wait_for(|leads| *leads).await.is_ok() {
            // Two that have the name at a time would be taken for two hosts, of which one has to change its name.
            let mut looks = interval_at(Instant::now() + limits::FORMER_LEADER, limits::DOORS_LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut open, mut others) = (true, None);
            while *leads.borrow_and_update() {
                tokio::select! {
                    // Not even a look at the others comes first.
                    changed = leads.changed() => if changed.is_err() { return },
                    () = closing.cancelled(), if open => open = false,
                    looked = async { looks.tick().await; self.look().await } => others = Some(looked),
                }
                let now = others.clone().map(|others| Doors { own: !closing.is_cancelled(), others });
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
    use consensus::{Options, Start};
    use tokio::time::timeout;

    use super::*;
    use crate::members::FOUNDER;

    #[tokio::test]
    async fn whoever_leads_has_the_name_until_it_leads_no_more_and_is_out_of_it_when_it_closes() {
        let folder = tempfile::tempdir().expect("a folder");
        let consensus =
            Consensus::open(folder.path(), Options::default(), Start::Found).await.expect("opens");
        tokio::time::pause();
        let polling = Polling::new(Peers::default());
        let mut gatherer = Gatherer { consensus, replica: FOUNDER, polling, port: 7440 };
        let ((lead, leads), (sender, mut doors)) = (watch::channel(true), watch::channel(None));
        let (closing, began) = (CancellationToken::new(), Instant::now());
        let mut told = async |own: Option<bool>| {
            let now = own.map(|own| Doors { own, others: BTreeSet::new() });
            let told = timeout(limits::SESSION_TIMEOUT, doors.wait_for(|doors| *doors == now)).await;
            told.expect("in time").expect("told");
            began.elapsed()
        };
        let leading = async {
            let held = told(Some(true)).await;
            assert!(held >= limits::FORMER_LEADER, "{held:?}");
            closing.cancel();
            assert_eq!(told(Some(false)).await, held, "at once");
            lead.send_replace(false);
            assert_eq!(told(None).await, held, "at once");
        };
        tokio::select! {
            () = gatherer.gather(leads, &closing, &sender) => panic!("it may lead again"),
            () = leading => {}
        }
    }

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
