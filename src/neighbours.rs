//! Coordinators on the local network, by mDNS (RFC 6762) and its service discovery (RFC 6763).
//!
//! Owns what is announced, an address and the first bytes of the CA's hash, and the search for it. Refuses to be believed: whoever is
//! found must still show a certificate of the cluster whose token, or whose membership, this machine has. An announcement ends with
//! the value that stands for it. On macOS it runs beside the system's own responder; that has not been tried on hardware.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mdns_sd::{Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use server::Doors;
use tokio::sync::watch;

const SERVICE: &str = "_mlx-serving._tcp.local.";
const WEB: &str = "_http._tcp.local.";

/// What clients may call all coordinators that take them in. The one that leads answers for it: a name belongs to one host at a time.
const CLIENTS_HOST: &str = "mlx-serving.local.";

/// In an announcement: of which cluster it is.
const CLUSTER: &str = "cluster";

/// A coordinator answers within a second; Wi-Fi loses the first question now and then.
const SEARCH: Duration = Duration::from_secs(5);

/// After the first one: the others answered at the same time.
const OTHERS: Duration = Duration::from_millis(500);

/// Until goodbye is said; it is on the wire at once.
const GOODBYE: Duration = Duration::from_millis(500);

/// Which cluster, in an announcement: the beginning of its CA's hash. Enough to tell clusters in one building apart, and nothing that
/// a certificate does not tell everybody.
pub(crate) fn mark(ca_hash: &[u8; 32]) -> String {
    ca_hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Says where this coordinator is until it is dropped.
pub(crate) struct Announced {
    daemon: ServiceDaemon,
}

impl Announced {
    /// Announces the port for agents, under each authority that is trusted: whoever was away looks for the former one. While `doors`
    /// says where clients are served, because this one leads, they are announced under the name for clients, at the port of `api`.
    pub(crate) fn start(
        mut authorities: watch::Receiver<Vec<[u8; 32]>>,
        agents: SocketAddr,
        api: SocketAddr,
        doors: watch::Receiver<Option<Doors>>,
    ) -> anyhow::Result<Self> {
        let daemon = ServiceDaemon::new().context("opening the mDNS socket")?;
        let mut named = BTreeMap::new();
        let marks = marks(&mut authorities);
        say(&daemon, agents, &marks, &mut named).context("announcing this coordinator")?;
        let following = authorities.clone();
        tokio::spawn(follow_authorities(daemon.clone(), agents, following, named));
        if !api.ip().is_loopback() {
            tokio::spawn(follow(daemon.clone(), api, authorities, doors));
        }
        Ok(Self { daemon })
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Ok(gone) = self.daemon.shutdown() {
            let _ = gone.recv_timeout(GOODBYE);
        }
    }
}

fn marks(authorities: &mut watch::Receiver<Vec<[u8; 32]>>) -> Vec<String> {
    authorities.borrow_and_update().iter().map(mark).collect()
}

/// Announces this coordinator under these marks and no others. `named`: under which it is, and as what.
fn say(
    daemon: &ServiceDaemon,
    agents: SocketAddr,
    marks: &[String],
    named: &mut BTreeMap<String, String>,
) -> anyhow::Result<()> {
    for mark in marks.iter().filter(|mark| !named.contains_key(*mark)).cloned().collect::<Vec<_>>() {
        // A port is one process's, and a mark one cluster's: no other has this name.
        let name = format!("mlx-{mark}-{}-{}", crate::home::host_name().replace('.', "-"), agents.port());
        let service =
            service((SERVICE, &name), &format!("{name}.local."), agents, [], &[(CLUSTER, mark.as_str())])?;
        let full_name = service.get_fullname().to_owned();
        daemon.register(service)?;
        named.insert(mark, full_name);
    }
    let gone: Vec<_> = named.keys().filter(|mark| !marks.contains(mark)).cloned().collect();
    for name in gone.iter().filter_map(|mark| named.remove(mark)) {
        daemon.unregister(&name)?;
    }
    Ok(())
}

async fn follow_authorities(
    daemon: ServiceDaemon,
    agents: SocketAddr,
    mut authorities: watch::Receiver<Vec<[u8; 32]>>,
    mut named: BTreeMap<String, String>,
) {
    while authorities.changed().await.is_ok() {
        let marks = marks(&mut authorities);
        if let Err(error) = say(&daemon, agents, &marks, &mut named) {
            tracing::warn!("not announced under another authority: {error:#}");
        }
    }
}

/// The name for clients goes to whoever leads, and leads to all that are ready. Nobody answers for it who does not know of any: the
/// next one that leads would take that for another host's name, and have another one for the rest of its life.
async fn follow(
    daemon: ServiceDaemon,
    api: SocketAddr,
    mut authorities: watch::Receiver<Vec<[u8; 32]>>,
    mut doors: watch::Receiver<Option<Doors>>,
) {
    let mut held = None;
    loop {
        let now = doors.borrow_and_update().clone().filter(|doors| doors.own || !doors.others.is_empty());
        let mark = marks(&mut authorities).into_iter().next().unwrap_or_default();
        if let Err(error) = hold(&daemon, api, &mark, now.as_ref(), &mut held) {
            tracing::warn!("the name {CLIENTS_HOST} cannot be announced: {error:#}");
        }
        tokio::select! {
            changed = doors.changed() => if changed.is_err() { break },
            changed = authorities.changed() => if changed.is_err() { break },
        }
    }
    if let Some(name) = held {
        let _ = daemon.unregister(&name);
    }
}

/// Has the name for clients lead to these doors, or to none. `held`: the whole name while this host has it.
fn hold(
    daemon: &ServiceDaemon,
    api: SocketAddr,
    mark: &str,
    doors: Option<&Doors>,
    held: &mut Option<String>,
) -> anyhow::Result<()> {
    let Some(doors) = doors else {
        if let Some(name) = held.take() {
            daemon.unregister(&name)?;
        }
        return Ok(());
    };
    let says = [(CLUSTER, mark), ("path", "/v1")];
    let others = doors.others.iter().copied();
    let mut web = if doors.own {
        service((WEB, "mlx-serving"), CLIENTS_HOST, api, others, &says)?
    } else {
        elsewhere((WEB, "mlx-serving"), CLIENTS_HOST, api.port(), others, &says)?
    };
    // Who has the name may say what it leads to; to ask again would find the own answer.
    web.set_requires_probe(held.is_none());
    *held = Some(web.get_fullname().to_owned());
    daemon.register(web)?;
    Ok(())
}

/// An announcement of `kind` and name, of a host that is reached at an address of this machine, and at others.
fn service(
    named: (&str, &str),
    host: &str,
    at: SocketAddr,
    others: impl IntoIterator<Item = IpAddr>,
    says: &[(&str, &str)],
) -> anyhow::Result<ServiceInfo> {
    let everywhere = at.ip().is_unspecified();
    let own = (!everywhere).then_some(at.ip());
    let made = elsewhere(named, host, at.port(), own.into_iter().chain(others), says)?;
    Ok(if everywhere { made.enable_addr_auto() } else { made })
}

/// The same of a host that is reached at these addresses alone.
fn elsewhere(
    (kind, name): (&str, &str),
    host: &str,
    port: u16,
    addresses: impl IntoIterator<Item = IpAddr>,
    says: &[(&str, &str)],
) -> anyhow::Result<ServiceInfo> {
    let addresses: Vec<IpAddr> = addresses.into_iter().collect();
    let made = ServiceInfo::new(kind, name, host, addresses.as_slice(), port, says);
    made.with_context(|| format!("announcing {name}"))
}

/// `HOST:PORT` of the coordinators that are announced under one of these marks, or, without any, of all; none where nobody answers.
pub(crate) async fn find(marks: Vec<String>) -> anyhow::Result<Vec<String>> {
    tokio::task::spawn_blocking(move || {
        let daemon = ServiceDaemon::new().context("opening the mDNS socket")?;
        let events = daemon.browse(SERVICE).context("asking for coordinators")?;
        let found = collect(&events, &marks);
        let _ = daemon.shutdown();
        Ok(found.into_iter().collect())
    })
    .await
    .context("the search failed")?
}

fn collect(events: &Receiver<ServiceEvent>, marks: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut until = Instant::now() + SEARCH;
    while let Ok(event) = events.recv_timeout(until.saturating_duration_since(Instant::now())) {
        let ServiceEvent::ServiceResolved(coordinator) = event else { continue };
        let is_one = |mark: &str| marks.is_empty() || marks.iter().any(|known| known == mark);
        if !is_one(coordinator.get_property_val_str(CLUSTER).unwrap_or_default()) {
            continue;
        }
        let addresses = coordinator.get_addresses().iter().map(|address| address.to_ip_addr());
        found.extend(
            addresses.filter(is_dialable).map(|ip| SocketAddr::new(ip, coordinator.get_port()).to_string()),
        );
        if !found.is_empty() {
            until = until.min(Instant::now() + OTHERS);
        }
    }
    found
}

/// One that a link must be named with says nothing to a program that knows only the address.
fn is_dialable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_beginning_of_the_hash() {
        let mut hash = [0; 32];
        (hash[0], hash[7], hash[8]) = (0xab, 0x0c, 0xff);
        assert_eq!(mark(&hash), "ab0000000000000c");
    }

    #[test]
    fn an_address_without_its_link_is_not_dialled() {
        let dialable = |ip: &str| is_dialable(&ip.parse().unwrap());
        assert!(dialable("192.168.1.7") && dialable("fd00::7") && dialable("127.0.0.1"));
        assert!(!dialable("169.254.9.9") && !dialable("fe80::1"));
    }
}
