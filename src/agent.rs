//! `mlx-serving agent`: this Mac's agent, until a signal.
//!
//! Owns turning flags into the agent's settings. Refuses a token that is none.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::cli::Agent;
use crate::exit::{Exit, failure};
use crate::{descriptors, home, log, model_argument, neighbours, progress, stopping};

/// Notices that may wait for the terminal.
const NOTICES: usize = 256;
const DEFAULT_PORT: u16 = 7443;

pub(crate) fn run(options: &Agent) -> anyhow::Result<()> {
    log::start("info");
    descriptors::raise();
    let mut config = config(options)?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let stop = stopping::on_signal()?;
        if config.coordinators.is_empty() {
            match stop.run_until_cancelled(found(&config)).await {
                Some(found) => config.coordinators = found?,
                None => return Ok(()),
            }
        }
        let (notices, heard) = mpsc::channel(NOTICES);
        let showing = tokio::spawn(progress::show(heard));
        let done = daemon::run(config, notices, stop).await;
        showing.await.context("the terminal task failed")?;
        done
    })
}

/// Coordinators of the cluster that this Mac is invited to, or belongs to, as the network tells.
async fn found(config: &daemon::Config) -> anyhow::Result<Vec<String>> {
    let authorities = match &config.token {
        Some(token) => vec![token.ca_hash],
        None => daemon::cluster_of(&config.data_folder)?,
    };
    tracing::info!("no --coordinator: asking the local network for one");
    let found = neighbours::find(authorities.iter().map(neighbours::mark).collect()).await?;
    if !found.is_empty() {
        tracing::info!(coordinators = found.join(", "), "found");
        return Ok(found);
    }
    // After a power cut this Mac may be there first.
    let known = daemon::known_coordinators(&config.data_folder, config.token.as_ref())?;
    if known.is_empty() {
        let words = "no coordinator of this cluster is announced on the local network: say where one is with --coordinator HOST";
        return Err(failure(Exit::Unreachable, words));
    }
    tracing::info!(
        coordinators = known.join(", "),
        "none is announced: waiting for those that this Mac knows"
    );
    Ok(known)
}

fn config(options: &Agent) -> anyhow::Result<daemon::Config> {
    let token = options.token.as_deref().map(str::parse).transpose();
    let token = token.map_err(|error: daemon::TokenError| failure(Exit::Usage, error.to_string()))?;
    Ok(daemon::Config {
        data_folder: home::rooms(&options.home)?.agent,
        coordinators: options.coordinators.iter().map(|address| with_port(address.trim())).collect(),
        token,
        name: options.name.clone().unwrap_or_else(home::host_name),
        offers: options.models.iter().map(|model| model_argument::parse(model)).collect::<Result<_, _>>()?,
        runtime: options.runtime_program.as_deref().map(runtime_program).transpose()?,
        guard_program: guard_program()?,
        memory_budget_bytes: options.memory.map(gib).transpose()?,
        slots: options.slots,
    })
}

/// This very binary holds the runtimes.
pub(crate) fn guard_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("finding this program's own file")
}

pub(crate) fn with_port(address: &str) -> String {
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && !host.ends_with(':'));
    if has_port { address.to_owned() } else { format!("{address}:{DEFAULT_PORT}") }
}

fn runtime_program(line: &str) -> anyhow::Result<daemon::RuntimeProgram> {
    let mut words = line.split_whitespace();
    let program = words.next().context("--runtime-program is empty")?;
    Ok(daemon::RuntimeProgram {
        program: program.into(),
        args: words.map(Into::into).collect(),
        env: Vec::new(),
    })
}

fn gib(gib: f64) -> anyhow::Result<u64> {
    if !(gib.is_finite() && gib > 0.0) {
        return Err(failure(Exit::Usage, "--memory is a positive number of GiB"));
    }
    // Whole bytes of a budget below 2^63; the fraction of a byte does not matter.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be positive and finite; saturates"
    )]
    let bytes = (gib * 1_073_741_824.0) as u64;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_port_is_added_where_none_is_given() {
        assert_eq!(with_port("mini-01.local"), "mini-01.local:7443");
        assert_eq!(with_port("127.0.0.1:9000"), "127.0.0.1:9000");
        assert_eq!(with_port("[::1]:9000"), "[::1]:9000");
        assert_eq!(with_port("[::1]"), "[::1]:7443");
    }

    #[test]
    fn memory_is_positive() {
        assert_eq!(gib(1.5).expect("fine"), 1_610_612_736);
        assert!(gib(0.0).is_err() && gib(f64::NAN).is_err() && gib(-1.0).is_err());
    }
}
