//! `mlx-serving coordinator`: serves until a signal.
//!
//! Owns the words at the start. Refuses nothing of its own: the coordinator checks its settings.

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
    let port = ready.cluster_address.port();
    eprintln!("cluster {} serves on {}", ready.cluster, ready.cluster_address);
    eprintln!("add a Mac: run there (the token is good for a day)");
    eprintln!(
        "  mlx-serving agent --coordinator {}:{port} --model MODEL --token {}",
        home::host_name(),
        ready.join_token
    );
    println!("http://{}/v1", ready.api);
}
