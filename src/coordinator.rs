//! `mlx-serving coordinator`: serves until a signal.
//!
//! Owns the words at the start. Refuses nothing of its own: the coordinator checks its settings.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;

use crate::cli::Coordinator;
use crate::exit::{Exit, failure};
use crate::neighbours::Announced;
use crate::{agent, descriptors, home, log, stopping};

pub(crate) fn run(options: &Coordinator) -> anyhow::Result<()> {
    log::start("info");
    descriptors::raise();
    let rooms = home::rooms(&options.home)?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let stop = stopping::on_signal()?;
        let Some(joined) = stop.run_until_cancelled(joined(options, &rooms.coordinator)).await else {
            return Ok(());
        };
        let config = server::Config {
            data_folder: rooms.coordinator,
            api: options.api,
            cluster: options.listen,
            advertise: advertised(options),
            joined: joined?,
            leaf_life: options.leaf_life_s.map(Duration::from_secs),
            speaks: options.speak_version,
            renderer: renderer()?,
        };
        let (ready, started) = oneshot::channel();
        let serving = tokio::spawn(server::run(config, ready, stop));
        let mut _announced = None;
        if let Ok(ready) = started.await {
            greet(options, &ready);
            _announced = announced(options, &ready);
        }
        serving.await.context("the coordinator failed")?
    })
}

/// What a coordinator of somebody else's cluster is; `None` for one that founds its own.
async fn joined(options: &Coordinator, folder: &Path) -> anyhow::Result<Option<server::Joined>> {
    if options.join.is_empty() {
        return Ok(None);
    }
    if folder.join(server::REGISTRY_FOLDER).exists() && daemon::cluster_of(folder)?.is_empty() {
        let words = format!(
            "{} holds a cluster of its own (`mlx-serving up` or `coordinator` ran here): to join another one, move that folder away, or \
             choose another with --home. The token was not used",
            folder.display()
        );
        return Err(failure(Exit::Refused, words));
    }
    let token = options.token.as_deref().map(str::parse).transpose();
    let token = token.map_err(|error: daemon::TokenError| failure(Exit::Usage, error.to_string()))?;
    let contacts: Vec<String> = options.join.iter().map(|contact| agent::with_port(contact)).collect();
    let (name, speaks) = (home::host_name(), options.speak_version.unwrap_or(server::NEWEST_VERSION));
    let enlisted = daemon::become_coordinator(folder, &contacts, token.as_ref(), &name, speaks).await?;
    let daemon::Enlisted { replica, credentials } = enlisted;
    Ok(Some(server::Joined { credentials, replica, contacts }))
}

/// This very binary renders; where the system keeps it (Linux), also after another has been put in its place.
pub(crate) fn renderer() -> anyhow::Result<server::RendererProgram> {
    let own = Path::new("/proc/self/exe");
    let named = std::env::current_exe().context("finding this program's own file");
    let program = if own.exists() { own.to_owned() } else { named? };
    Ok(server::RendererProgram { program, arguments: vec!["render-templates".into()] })
}

fn advertised(options: &Coordinator) -> String {
    match &options.advertise {
        Some(address) => agent::with_port(address),
        None if options.listen.ip().is_unspecified() => {
            format!("{}:{}", home::host_address(), options.listen.port())
        }
        None => options.listen.to_string(),
    }
}

/// Where clients find the API. All addresses are none that anybody could use.
fn reached(api: SocketAddr) -> String {
    if api.ip().is_unspecified() {
        format!("{}:{}", home::host_address(), api.port())
    } else {
        api.to_string()
    }
}

/// Nobody needs to be found: whoever knows the address comes without.
fn announced(options: &Coordinator, ready: &server::Ready) -> Option<Announced> {
    if options.no_mdns || ready.cluster_address.ip().is_loopback() {
        return None;
    }
    let announced =
        Announced::start(ready.authorities.clone(), ready.cluster_address, ready.api, ready.doors.clone());
    announced.inspect_err(|error| tracing::warn!("not announced on the local network: {error:#}")).ok()
}

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "this is the command line")]
fn greet(options: &Coordinator, ready: &server::Ready) {
    let line = format!("mlx-serving agent --coordinator {}", advertised(options));
    eprintln!("cluster {} serves on {}", ready.cluster, ready.cluster_address);
    // Where stderr is no terminal it ends up in a log, and a token in a log is an invitation to whoever reads it.
    if std::io::stderr().is_terminal() {
        eprintln!("add a Mac: run there (the token is good for a day, and for any number of Macs)");
        eprintln!("  {line} --model MODEL --token {}", ready.join_token);
    } else {
        eprintln!("add a Mac: `mlx-serving token create` here prints a token for one; run there");
        eprintln!("  {line} --model MODEL --token TOKEN");
    }
    println!("http://{}/v1", reached(ready.api));
}
