//! `mlx-serving coordinator`: serves until a signal.
//!
//! Owns the words at the start. Refuses nothing of its own: the coordinator checks its settings.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tokio::sync::oneshot;

use crate::cli::Coordinator;
use crate::{home, log, stopping};

pub(crate) fn run(options: &Coordinator) -> anyhow::Result<()> {
    log::start("info");
    let rooms = home::rooms(&options.home)?;
    let config = server::Config { data_folder: rooms.coordinator, api: options.api, cluster: options.listen };
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let stop = stopping::on_signal()?;
        let (ready, started) = oneshot::channel();
        let serving = tokio::spawn(server::run(config, ready, stop));
        if let Ok(ready) = started.await {
            greet(&ready);
        }
        serving.await.context("the coordinator failed")?
    })
}

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "this is the command line")]
fn greet(ready: &server::Ready) {
    let line =
        format!("mlx-serving agent --coordinator {}:{}", home::host_name(), ready.cluster_address.port());
    eprintln!("cluster {} serves on {}", ready.cluster, ready.cluster_address);
    // Where stderr is no terminal it ends up in a log, and a token in a log is an invitation to whoever reads it.
    if std::io::stderr().is_terminal() {
        eprintln!("add a Mac: run there (the token is good for a day)");
        eprintln!("  {line} --model MODEL --token {}", ready.join_token);
    } else {
        eprintln!("add a Mac: `mlx-serving token create` here prints a token; run there");
        eprintln!("  {line} --model MODEL --token TOKEN");
    }
    println!("http://{}/v1", ready.api);
}
