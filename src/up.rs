//! `mlx-serving up`: everything on this machine, and a first answer.
//!
//! Owns the order of a newcomer's first minute: coordinator, agent, model, a question answered, the lines to try next.
//! Refuses any address but loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Message};
use crate::cli::Up;
use crate::exit::{Exit, failure};
use crate::home::Rooms;
use crate::{agent, coordinator, credentials, descriptors, home, log, model_argument, progress, stopping};

/// Notices that may wait for the terminal.
const NOTICES: usize = 256;
const FIRST_QUESTION: &str = "What is mlx-serving?";

pub(crate) fn run(options: &Up) -> anyhow::Result<()> {
    log::start("error");
    descriptors::raise();
    let rooms = home::rooms(&options.home)?;
    let offer = model_argument::parse(options.model.as_deref().unwrap_or("demo"))?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(serve(options, rooms, offer))
}

async fn serve(options: &Up, rooms: Rooms, offer: daemon::Offer) -> anyhow::Result<()> {
    if !rooms.coordinator.join(server::REGISTRY_FOLDER).exists() {
        stays(&rooms.agent, &[])?;
    }
    let stop = stopping::on_signal()?;
    let config = server::Config {
        data_folder: rooms.coordinator.clone(),
        api: SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)),
        cluster: SocketAddr::from((Ipv4Addr::LOCALHOST, options.cluster_port)),
        advertise: SocketAddr::from((Ipv4Addr::LOCALHOST, options.cluster_port)).to_string(),
        joined: None,
        leaf_life: None,
        speaks: None,
        renderer: coordinator::renderer()?,
    };
    let (ready, started) = oneshot::channel();
    let serving = tokio::spawn(taking_along(stop.clone(), server::run(config, ready, stop.clone())));
    let Ok(ready) = started.await else {
        return serving.await.context("the coordinator failed")?;
    };
    let authorities = ready.authorities.borrow().clone();
    if let Err(error) = stays(&rooms.agent, &authorities) {
        stop.cancel();
        return serving.await.context("the coordinator failed")?.and(Err(error));
    }

    let (notices, heard) = mpsc::channel(NOTICES);
    // Both drain at once: the API takes nothing new, and the agent leaves when its last answer has ended.
    let key = credentials::local(&rooms)?;
    let agent = agent_config(rooms, offer.clone(), &ready)?;
    let running = tokio::spawn(taking_along(stop.clone(), daemon::run(agent, notices, stop.clone())));
    let showing = tokio::spawn(progress::show_until_ready(heard, offer.model.clone()));

    let outcome = tokio::select! {
        shown = showing => match shown.context("the terminal task failed")? {
            Ok(machine) => {
                let (quiet, url) = (options.quiet, format!("http://{}", ready.api));
                let (model, api) = (offer.model.clone(), Api::new(&url, key));
                tokio::task::spawn_blocking(move || first_answer(&machine, &model, &url, &api, quiet)).await?;
                stop.cancelled().await;
                Ok(())
            }
            Err(error) => Err(error),
        },
        () = stop.cancelled() => Ok(()),
    };
    stop.cancel();
    let served = serving.await.context("the coordinator failed")?;
    let ran = running.await.context("the agent failed")?;
    // What ended by itself has the reason; what was taken along may at most complain about the haste.
    served.and(ran).and(outcome)
}

/// Joining the cluster that is here, an agent of another one would leave that.
fn stays(agent: &Path, here: &[[u8; 32]]) -> anyhow::Result<()> {
    if !daemon::belongs_elsewhere(agent, here)? {
        return Ok(());
    }
    let words = format!(
        "this Mac serves another cluster as an agent ({}), and `up` would take it out of that: start it with `mlx-serving agent`; or give \
         `up` another folder with --home; or, to leave that cluster for good, move this folder away",
        agent.display()
    );
    Err(failure(Exit::Refused, words))
}

/// One part alone serves nobody: whichever ends first, for whatever reason, asks the other to end too.
async fn taking_along<T>(stop: CancellationToken, part: impl Future<Output = T>) -> T {
    let _stops = stop.drop_guard();
    part.await
}

fn agent_config(rooms: Rooms, offer: daemon::Offer, ready: &server::Ready) -> anyhow::Result<daemon::Config> {
    Ok(daemon::Config {
        data_folder: rooms.agent,
        coordinators: vec![ready.cluster_address.to_string()],
        token: Some(ready.join_token.clone()),
        name: home::host_name(),
        offers: vec![offer],
        runtime: None,
        guard_program: agent::guard_program()?,
        memory_budget_bytes: None,
        slots: None,
    })
}

/// Shows what runs here, asks one question, and says how to go on.
#[expect(clippy::print_stderr, clippy::print_stdout, reason = "this is the command line")]
fn first_answer(machine: &str, model: &str, url: &str, api: &Api, quiet: bool) {
    eprintln!("\n  machine  {machine}\n  model    {model}\n  API      {url}/v1\n");
    if !quiet {
        eprint!("  > {FIRST_QUESTION}\n  ");
        let question = Message { role: "user", content: FIRST_QUESTION.to_owned() };
        if let Err(error) = api.chat(model, &[question], |piece| eprint!("{piece}")) {
            eprint!("(no answer: {error:#})");
        }
        eprintln!("\n");
    }
    if Api::new(url, None).get("/v1/models").is_err() {
        eprintln!(
            "  Every caller needs a key here (`mlx-serving keys create`): -H 'authorization: Bearer KEY', api_key=\"KEY\"\n"
        );
    }
    eprintln!("  Try it with curl:");
    eprintln!("    curl {url}/v1/chat/completions -H 'content-type: application/json' \\");
    eprintln!(
        "      -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"How do I add a second Mac?\"}}]}}'"
    );
    eprintln!("  with the OpenAI SDK:");
    eprintln!(
        "    OpenAI(base_url=\"{url}/v1\", api_key=\"none\").chat.completions.create(model=\"{model}\", messages=[…])"
    );
    eprintln!("  or right here:");
    eprintln!(
        "    mlx-serving chat{}",
        if url.ends_with(":7440") { String::new() } else { format!(" --url {url}") }
    );
    eprintln!("\n  Ctrl-C stops it.");
    println!("{url}/v1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_fails_or_panics_takes_the_other_along() {
        let (failing, panicking) = (CancellationToken::new(), CancellationToken::new());
        let failed = taking_along(failing.clone(), async { Err::<(), _>("its disk is gone") });
        assert_eq!(failed.await, Err("its disk is gone"));
        let panicked = tokio::spawn(taking_along(panicking.clone(), async { panic!("a defect") }));
        assert!(panicked.await.is_err_and(|error| error.is_panic()));
        assert!(failing.is_cancelled() && panicking.is_cancelled());
    }
}
