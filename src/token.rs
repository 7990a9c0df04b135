//! `mlx-serving token create`: the invitation for another Mac.
//!
//! Owns finding the token that the coordinator on this machine keeps (it renews it at its start, long before it expires).
//! Refuses to work from afar: whoever can read the coordinator's folder may invite, nobody else.

use anyhow::Context as _;

use crate::cli::{Token, TokenAction, TokenRole};
use crate::exit::{Exit, failure};
use crate::home;

pub(crate) fn run(options: &Token) -> anyhow::Result<()> {
    match &options.action {
        TokenAction::Create { role, home } => {
            let file = match role {
                TokenRole::Agent => "join-token",
                TokenRole::Coordinator => "coordinator-join-token",
            };
            create(&home::rooms(home)?.coordinator.join(file))
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is the command line")]
fn create(file: &std::path::Path) -> anyhow::Result<()> {
    let token = match std::fs::read_to_string(file) {
        Ok(token) => token,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let words = "no coordinator has run here: start `mlx-serving coordinator` first, or name its folder with --home";
            return Err(failure(Exit::NotFound, words));
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    println!("{}", token.trim());
    Ok(())
}
