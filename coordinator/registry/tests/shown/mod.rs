//! The facts in words, for `show` in a scenario: the cluster, tokens and nodes, then what there is of the rest.
//!
//! Owns the words. Refuses to leave out a fact that is not the default, so that a scenario shows what changed.

mod batches;
mod jobs;

use std::collections::BTreeSet;
use std::fmt::{Result, Write};

use registry::{ClusterVersion, KeyId, NodeId, Registry, Used};

/// Writes all facts, indented like replies.
pub(crate) fn show(registry: &Registry, out: &mut String) -> Result {
    match registry.cluster() {
        Some(cluster) => {
            let left = cluster.founder_revoked_at_unix_ms;
            let left = left.map_or(String::new(), |at| format!(", its founder revoked at {at}"));
            writeln!(out, "  cluster {} since {}{left}", cluster.id, cluster.founded_at_unix_ms)?;
            if let Some(sealed) = &cluster.sealed_ca_key {
                let plain = if cluster.ca_key_pem.is_empty() { "" } else { ", and plain" };
                let since = cluster.sealed_at_unix_ms.map_or(String::new(), |at| format!(" since {at}"));
                writeln!(out, "  key sealed{since}: {sealed}{plain}")?;
            }
            rotation(registry, out)?;
        }
        None => writeln!(out, "  no cluster")?,
    }
    if registry.cluster_version() != ClusterVersion::FIRST {
        writeln!(out, "  version {}", registry.cluster_version())?;
    }
    tokens(registry, out)?;
    for (id, node) in registry.nodes() {
        let revoked = if node.revoked { ", revoked" } else { "" };
        let draining = if registry.is_draining(id) { ", draining" } else { "" };
        let offers: Vec<_> =
            registry.wanted_on(id).map(|(name, source)| format!("{name} from {source:?}")).collect();
        let (name, role, offers) = (&node.name, node.role, offers.join(", "));
        writeln!(out, "  node {id} {name} {role}{revoked}{draining}: [{offers}]")?;
        memory(registry, id, out)?;
    }
    let wanted: Vec<_> = registry.wanted_models().map(ToString::to_string).collect();
    writeln!(out, "  wanted: [{}]", wanted.join(", "))?;
    policies(registry, out)?;
    breakers(registry, out)?;
    blame(registry, out)?;
    voters(registry, out)?;
    keys(registry, out)?;
    jobs::jobs(registry, out)?;
    batches::files(registry, out)?;
    batches::batches(registry, out)?;
    audit(registry, out)
}

fn rotation(registry: &Registry, out: &mut String) -> Result {
    let Some(cluster) = registry.cluster() else { return Ok(()) };
    if let Some(at) = cluster.rotated_at_unix_ms {
        let (number, certificate) = (cluster.rotations, &cluster.ca_certificate_pem);
        writeln!(out, "  rotation {number} ended at {at}, authority {certificate}")?;
    }
    if let Some(hash) = &cluster.sealed_hash_key {
        writeln!(out, "  hashes sealed: {hash}")?;
    }
    let Some(rotation) = &cluster.rotation else { return Ok(()) };
    let (number, began, until) = (rotation.number, rotation.began_at_unix_ms, rotation.until_unix_ms);
    let (certificate, key) = (&rotation.ca_certificate_pem, &rotation.sealed_ca_key);
    let named =
        |members: &BTreeSet<NodeId>| members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    writeln!(
        out,
        "  rotation {number} since {began} until {until} to authority {certificate}, key sealed: {key}"
    )?;
    writeln!(out, "    moved: [{}]; awaited: [{}]", named(&rotation.moved), named(&registry.awaited()))
}

fn tokens(registry: &Registry, out: &mut String) -> Result {
    for (id, token) in registry.tokens() {
        let uses = token.uses.map_or("any".to_owned(), |uses| uses.to_string());
        let spent = if token.spent() { ", spent" } else { "" };
        let spent = format!("{spent}{}", if token.revoked { ", revoked" } else { "" });
        let (role, used, expires) = (token.role, token.used, token.expires_at_unix_ms);
        let name = token.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
        writeln!(out, "  token {id}{name} for {role}: used {used} of {uses}{spent}, until {expires}")?;
    }
    Ok(())
}

fn memory(registry: &Registry, id: NodeId, out: &mut String) -> Result {
    let Some(budget) = registry.budget(id) else { return Ok(()) };
    let placed: Vec<_> =
        registry.placed_on(id).map(|(name, placement)| format!("{name} {}", gib(placement.bytes))).collect();
    let reserved = gib(registry.reserved_bytes(id));
    writeln!(out, "    holds [{}]: {reserved} of {}", placed.join(", "), gib(budget))
}

fn gib(bytes: u64) -> String {
    if bytes.trailing_zeros() >= 30 || bytes == 0 {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{bytes} bytes")
    }
}

fn policies(registry: &Registry, out: &mut String) -> Result {
    for (model, policy) in registry.policies() {
        let pinned = if policy.pinned { ", pinned" } else { "" };
        let most = if policy.replicas_max == 0 { "any".to_owned() } else { policy.replicas_max.to_string() };
        let idle = policy.idle_unload_s.map_or(String::new(), |idle| format!(", unloaded after {idle} s"));
        writeln!(out, "  policy {model}: {} to {most} replicas{pinned}{idle}", policy.replicas_min)?;
    }
    Ok(())
}

fn breakers(registry: &Registry, out: &mut String) -> Result {
    for (node, model, breaker) in registry.breakers() {
        let model = model.map_or(String::new(), |model| format!(" {model}"));
        let until = breaker.until_unix_ms.map_or(String::new(), |until| format!(" until {until}"));
        let (state, generation, opens) = (breaker.state, breaker.generation, breaker.opens);
        let (why, at) = (&breaker.why, breaker.at_unix_ms);
        let history = format!("generation {generation}, opened {opens} in a row, at {at}");
        writeln!(out, "  breaker {node}{model}: {state:?}{until} ({history}): {why}")?;
    }
    Ok(())
}

fn blame(registry: &Registry, out: &mut String) -> Result {
    for (fingerprint, charge) in registry.charges() {
        let deaths = charge.deaths();
        let deaths: Vec<_> =
            deaths.map(|death| format!("node {} at {}", death.node, death.at_unix_ms)).collect();
        writeln!(out, "  charged {fingerprint}: {}", deaths.join(", "))?;
    }
    for (fingerprint, quarantine) in registry.quarantines() {
        let (from, until) = (quarantine.at_unix_ms, quarantine.until_unix_ms);
        writeln!(out, "  quarantined {fingerprint}: from {from} until {until}")?;
    }
    Ok(())
}

fn voters(registry: &Registry, out: &mut String) -> Result {
    if registry.epoch() > 0 {
        writeln!(out, "  epoch {}", registry.epoch())?;
    }
    let removed = (0..10).filter(|replica| *replica > 0 && registry.is_replica_removed(*replica));
    let removed: Vec<_> = removed.map(|replica| replica.to_string()).collect();
    if !removed.is_empty() {
        writeln!(out, "  replicas gone for ever: {}", removed.join(", "))?;
    }
    let Some(change) = registry.voter_change() else { return Ok(()) };
    let (number, by, at) = (change.number, change.by, change.at_unix_ms);
    let (seat, promote, remove) = (&change.seat, &change.promote, &change.remove);
    writeln!(
        out,
        "  change {number} of voters by {by} at {at}: seat {seat:?}, promote {promote:?}, remove {remove:?}"
    )
}

fn keys(registry: &Registry, out: &mut String) -> Result {
    for (id, key) in registry.keys() {
        let (grant, made, revision) = (&key.grant, key.made_at_unix_ms, key.revision);
        let scopes: Vec<_> = grant.scopes.iter().map(|scope| scope.name()).collect();
        let models: Vec<_> = grant.models.iter().flatten().map(ToString::to_string).collect();
        let models = if grant.models.is_none() { "any model".to_owned() } else { models.join(", ") };
        let until = grant.expires_at_unix_ms.map_or(String::new(), |until| format!(", until {until}"));
        let secrets: Vec<_> = key.secrets().map(|(number, _)| number.to_string()).collect();
        let revoked = key.revoked_at_unix_ms.map_or(String::new(), |at| format!(", revoked at {at}"));
        write!(out, "  key {id} {} revision {revision}, made at {made}: {}", grant.name, scopes.join(", "))?;
        let allowance = grant.allowance;
        writeln!(out, " of {models}{until}{allowance}, secrets [{}]{revoked}", secrets.join(", "))?;
        usage(registry, id, out)?;
    }
    Ok(())
}

fn usage(registry: &Registry, key: &KeyId, out: &mut String) -> Result {
    let Some(usage) = registry.key_usage(key) else { return Ok(()) };
    for (what, totals) in [("day", &usage.days), ("month", &usage.months)] {
        for (when, used) in totals {
            let Used { requests, prompt_tokens, answer_tokens } = used;
            writeln!(
                out,
                "    {what} {when}: {requests} requests, {prompt_tokens} + {answer_tokens} tokens"
            )?;
        }
    }
    Ok(())
}

fn audit(registry: &Registry, out: &mut String) -> Result {
    for entry in registry.audit() {
        let (number, at, by, outcome) = (entry.number, entry.at_unix_ms, &entry.by, entry.outcome.name());
        writeln!(out, "  audit {number} at {at} by {by}: {} ({outcome})", entry.action)?;
    }
    Ok(())
}
