//! The command line of mlx-serving.
//!
//! Owns parsing arguments and turning an error into words and an exit code. Refuses logic: each subcommand is one file that
//! calls the coordinator, the agent, or the API.

mod cli;
mod exit;
mod home;
mod credentials;
mod log;
mod up;
mod coordinator;
mod coordinators;
mod agent;
mod neighbours;
mod token;
mod nodes;
mod drain;
mod models;
mod model_argument;
mod api;
mod events;
mod chat;
mod status;
mod queue;
mod explain;
mod keys;
mod audit;
mod ca;
mod simulate;
mod table;
mod moment;
mod progress;
mod stopping;
mod descriptors;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Up(options) => up::run(&options),
        Command::Coordinator(options) => coordinator::run(&options),
        Command::Agent(options) => agent::run(&options),
        Command::Token(options) => token::run(&options),
        Command::Nodes(options) => nodes::run(&options),
        Command::Models(options) => models::run(&options),
        Command::Drain(options) => drain::run(&options),
        Command::Undrain(options) => drain::end(&options),
        Command::Chat(options) => chat::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Queue(options) => queue::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Keys(options) => keys::run(&options),
        Command::Coordinators(options) => coordinators::run(&options),
        Command::Backup(options) => coordinators::backup(&options),
        Command::Restore(options) => coordinators::restore(&options),
        Command::Audit(options) => audit::run(&options),
        Command::Ca(options) => ca::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Guard(options) => return daemon::guard(&options.command),
        Command::RenderTemplates => return server::render_templates(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
