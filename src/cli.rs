//! Arguments and their help.
//!
//! Owns every flag's name, environment variable, default and explanation. Refuses unknown flags (clap suggests the nearest).

mod administration;
mod authority;
mod group;
mod members;
mod models;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use administration::{Audit, Call, Keys, KeysAction, Limits, Scope};
pub(crate) use authority::{Ca, CaAction, CaLook};
pub(crate) use group::{Backup, Coordinators, GroupAction, Restore};
pub(crate) use members::{Drain, Nodes, NodesAction, Token, TokenAction, TokenRole, Undrain};
pub(crate) use models::{Bound, Models, ModelsAction, Policy};

use administration::{AUDIT_EXAMPLES, KEYS_EXAMPLES};
use authority::CA_EXAMPLES;
use group::{BACKUP_EXAMPLES, COORDINATORS_EXAMPLES};
use members::{DRAIN_EXAMPLES, NODES_EXAMPLES, TOKEN_EXAMPLES};
use models::MODELS_EXAMPLES;

/// One endpoint for a room full of Macs: an OpenAI-compatible service over local MLX runtimes.
#[derive(Debug, Parser)]
#[command(name = "mlx-serving", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  mlx-serving up                                          first answer in a minute, with the built-in demo model
  mlx-serving up --model ./Qwen3-4B-4bit                  serve a local MLX model folder
  mlx-serving up --model mlx-community/Qwen3-4B-4bit      serve a model from the hub
  mlx-serving chat \"How do I add a second Mac?\"           ask from the terminal
  mlx-serving coordinator                                 serve a room of Macs; prints the line for each of them
  mlx-serving agent --coordinator HOST:7443 --token T     join this Mac to the room
  mlx-serving keys create --name ada                      a key for somebody; from then on every caller needs one

Exit codes: 0 ok, 1 failed, 2 usage, 3 degraded, 4 not found, 5 not allowed, 6 coordinator unreachable, 8 refused, 130 interrupted.";

const UP_EXAMPLES: &str = "\
Examples:
  mlx-serving up                                          the built-in demo model; the first question is asked for you
  mlx-serving up --model ./Qwen3-4B-4bit --quiet          a local MLX model folder
  mlx-serving up --port 8080 --cluster-port 8081          beside another one

It serves this machine alone. For more Macs, stop it and run `mlx-serving coordinator`, which goes on with the same cluster.";

const COORDINATOR_EXAMPLES: &str = "\
Examples:
  mlx-serving coordinator                                 found a cluster, or go on with the one in the folder
  mlx-serving coordinator --api 0.0.0.0:7440              clients from elsewhere too, each with a key
  mlx-serving coordinator --join mini-01.local --token T  one more coordinator; `token create --role coordinator` makes T
  mlx-serving coordinator --advertise 192.168.1.7:7443    where this machine's name is not known to the others

Others must reach port 7443 of each coordinator, by TCP and by UDP.";

const AGENT_EXAMPLES: &str = "\
Examples:
  mlx-serving agent --coordinator mini-01.local --model mlx-community/Qwen3-4B-4bit --token T
  mlx-serving agent                                       from then on: it knows its cluster and its models
  mlx-serving agent --model ./one --model ./two --memory 24    two models, in turns where both do not fit";

const QUEUE_EXAMPLES: &str = "\
Examples:
  mlx-serving queue                                       the line of each model, the next one first
  mlx-serving queue --output json                         the same for a script";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  curl -si .../v1/chat/completions ... | grep x-request-id
  mlx-serving explain request req_5b0c...                 why it went there, or what it waits for
  mlx-serving explain model mlx-community/Qwen3-4B-4bit   who holds it, who waits for it
  mlx-serving explain node mini-07                        what runs there, and why nothing else does

Exit codes: 0 ok, 4 not known (with the closest name), 5 not allowed, 6 coordinator unreachable.";

const SIMULATE_EXAMPLES: &str = "\
Examples:
  mlx-serving simulate --preset eight-macs                  every policy on eight unequal Macs, at their capacity
  mlx-serving simulate --preset eight-macs --load 0.8 --seeds 5 --policy mlx-serving,least-load
  mlx-serving simulate --preset flood --by-tenant           what one tenant that floods does to the others
  mlx-serving simulate --preset bad-day --checked           everything breaks; the scheduler's laws after every event
  mlx-serving simulate --preset chat --trace conv.csv       arrivals and lengths from a trace

Times are virtual and in seconds. The same arguments print the same bytes. Without --preset the presets are listed.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything on this machine: coordinator, agent and runtime, on loopback only.
    #[command(after_help = UP_EXAMPLES)]
    Up(Up),
    /// Start a coordinator: the API and the place where agents report.
    #[command(after_help = COORDINATOR_EXAMPLES)]
    Coordinator(Coordinator),
    /// Start the agent of this Mac and join it to a coordinator.
    #[command(after_help = AGENT_EXAMPLES)]
    Agent(Agent),
    /// Invite other Macs, and take invitations back.
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(Token),
    /// Show who belongs to the cluster, and end a membership.
    #[command(after_help = NODES_EXAMPLES)]
    Nodes(Nodes),
    /// Show which Mac holds which model, and say how a model shall be treated.
    #[command(after_help = MODELS_EXAMPLES)]
    Models(Models),
    /// Empty a Mac, so that it can be updated or switched off: no request fails.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(Drain),
    /// Let a Mac that was drained take work again.
    Undrain(Undrain),
    /// Ask a model, once or in a conversation.
    Chat(Chat),
    /// Show nodes, models and the queue.
    Status(Status),
    /// Show who waits, for what, and how long still.
    #[command(after_help = QUEUE_EXAMPLES)]
    Queue(Queue),
    /// Tell why a request, a model or a node is where it is, with the numbers that decided it.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),
    /// Say who may use the API: make, list, change, rotate and revoke keys.
    #[command(after_help = KEYS_EXAMPLES)]
    Keys(Keys),
    /// Show what administrators changed, and check that nobody has rewritten it.
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit(Audit),
    /// Show the authority that signs certificates, and put another one in its place: no request fails.
    #[command(after_help = CA_EXAMPLES)]
    Ca(Ca),
    /// Show and change the group of coordinators that keeps the facts.
    #[command(after_help = COORDINATORS_EXAMPLES)]
    Coordinators(Coordinators),
    /// Write all facts of the cluster into one file.
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup(Backup),
    /// Begin a cluster anew from a backup, on a machine where no coordinator has run yet.
    #[command(after_help = BACKUP_EXAMPLES)]
    Restore(Restore),
    /// Run the scheduler in a simulated room of Macs, beside other policies, on a virtual clock.
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(Simulate),
    /// Holds one runtime and ends it with its agent. Not for people.
    #[command(hide = true)]
    Guard(Guard),
    /// Renders chat templates for a coordinator, where they can harm nothing. Not for people.
    #[command(hide = true)]
    RenderTemplates,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// A local MLX model folder or a hub id such as mlx-community/Qwen3-4B-4bit [default: the built-in demo model]
    #[arg(long, env = "MLX_SERVING_MODEL")]
    pub(crate) model: Option<String>,
    /// Port of the API on 127.0.0.1
    #[arg(long, env = "MLX_SERVING_PORT", default_value_t = 7440)]
    pub(crate) port: u16,
    /// TCP and UDP port between agent and coordinator on 127.0.0.1
    #[arg(long, env = "MLX_SERVING_CLUSTER_PORT", default_value_t = 7443)]
    pub(crate) cluster_port: u16,
    /// Do not ask the first question
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) home: Home,
}

#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    /// Where clients reach the API. Beyond loopback every caller needs a key (`mlx-serving keys create`), and a proxy before it
    /// should speak TLS
    #[arg(long, env = "MLX_SERVING_API", default_value = "127.0.0.1:7440")]
    pub(crate) api: SocketAddr,
    /// Where agents reach this coordinator: TCP for control, UDP for tokens, mutual TLS on both
    #[arg(long, env = "MLX_SERVING_LISTEN", default_value = "0.0.0.0:7443")]
    pub(crate) listen: SocketAddr,
    /// Where others reach --listen, HOST:PORT [default: that address, or this machine's name where it is all addresses]
    #[arg(long, env = "MLX_SERVING_ADVERTISE", value_name = "ADDR")]
    pub(crate) advertise: Option<String>,
    /// Join the cluster of this coordinator, HOST:PORT, instead of founding one; may be given more than once. Needed until it has
    /// joined. With two that have joined, any one of the three may fail
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub(crate) join: Vec<String>,
    /// The token that `mlx-serving token create --role coordinator` prints there; needed once
    #[arg(long, env = "MLX_SERVING_TOKEN", hide_env_values = true, requires = "join")]
    pub(crate) token: Option<String>,
    /// Do not announce on the local network where this coordinator is (mDNS). One on loopback never does
    #[arg(long, env = "MLX_SERVING_NO_MDNS")]
    pub(crate) no_mdns: bool,
    /// Hold the cluster at this version: it rises by itself when every coordinator speaks a newer one, and the former release cannot come
    /// back from then on. For an update that may have to be undone; to be left out once it is certain
    #[arg(long, env = "MLX_SERVING_SPEAK_VERSION", value_name = "N", value_parser = clap::value_parser!(u32)
        .range(i64::from(server::OLDEST_VERSION)..=i64::from(server::NEWEST_VERSION)))]
    pub(crate) speak_version: Option<u32>,
    /// Seconds that a node's certificate lasts; for tests, which have no week
    #[arg(long, hide = true, env = "MLX_SERVING_LEAF_LIFE_S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) leaf_life_s: Option<u64>,
    #[command(flatten)]
    pub(crate) home: Home,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// A coordinator, HOST or HOST:PORT [default port: 7443]; may be given more than once, or divided by commas. One that lives
    /// is enough: it tells of the others. Without it the local network is asked (mDNS)
    #[arg(long = "coordinator", env = "MLX_SERVING_COORDINATOR", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) coordinators: Vec<String>,
    /// The join token that `mlx-serving coordinator` prints; needed once
    #[arg(long, env = "MLX_SERVING_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Models to hold on this Mac: a local MLX folder, a hub id, or `demo`; may be given more than once. Replaces the
    /// models this Mac was started with before; without it they stay
    #[arg(long = "model")]
    pub(crate) models: Vec<String>,
    /// What people call this machine [default: its host name]
    #[arg(long, env = "MLX_SERVING_NAME")]
    pub(crate) name: Option<String>,
    /// Memory that runtimes may use in all, in GiB [default: what the GPU may hold]
    #[arg(long, value_name = "GIB")]
    pub(crate) memory: Option<f64>,
    /// Answers that one model may compute at once, 1 to 1024 [default: 8]
    #[arg(long)]
    pub(crate) slots: Option<u32>,
    /// Another program in place of the Python runtime, speaking the same frames
    #[arg(long, hide = true, env = "MLX_SERVING_RUNTIME_PROGRAM")]
    pub(crate) runtime_program: Option<String>,
    #[command(flatten)]
    pub(crate) home: Home,
}

#[derive(Debug, Args)]
pub(crate) struct Chat {
    /// The question; without it a conversation starts (or the question is read from a pipe)
    pub(crate) prompt: Option<String>,
    /// The model to ask [default: the only one, or the first that is ready]
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// System message
    #[arg(long)]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Queue {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// What kind of thing it is
    pub(crate) subject: Subject,
    /// A request: the `x-request-id` or `x-mlx-request` of its response. A model: its name. A node: its name or number
    pub(crate) id: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// What can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    Request,
    Model,
    Node,
}

#[derive(Debug, Args)]
pub(crate) struct Guard {
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Api {
    /// The service to talk to
    #[arg(long, env = "MLX_SERVING_URL", default_value = "http://127.0.0.1:7440")]
    pub(crate) url: String,
    /// An API key [default: the one that the coordinator on this machine keeps in its folder, where that can be read]
    #[arg(long, env = "MLX_SERVING_API_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) home: Home,
}

#[derive(Debug, Args)]
pub(crate) struct Home {
    /// Folder for everything mlx-serving keeps: a coordinator's facts and `seal-key` in `coordinator`, an agent's identity, Python
    /// environment and models in `agent` [default: ~/.mlx-serving]
    #[arg(long, env = "MLX_SERVING_HOME", value_name = "DIR", help_heading = "Folders")]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_needs_no_argument() {
        let cli = Cli::try_parse_from(["mlx-serving", "up"]).expect("parses");
        assert!(matches!(cli.command, Command::Up(Up { model: None, port: 7440, cluster_port: 7443, .. })));
    }

    #[test]
    fn an_agent_takes_coordinators_one_by_one_or_divided_by_commas() {
        let parse = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["mlx-serving", "agent"].iter().chain(arguments));
            cli.map(
                |cli| if let Command::Agent(agent) = cli.command { agent.coordinators } else { Vec::new() },
            )
        };
        let given = parse(&["--coordinator", "a", "--coordinator", "b:1,c"]).expect("parses");
        assert_eq!(given, ["a", "b:1", "c"]);
        assert_eq!(parse(&[]).expect("asks the network"), [""; 0]);
    }

    #[test]
    fn explain_takes_a_kind_and_a_name() {
        let parse = |arguments: [&str; 2]| {
            Cli::try_parse_from(["mlx-serving", "explain"].into_iter().chain(arguments))
        };
        let cli = parse(["model", "org/demo"]).expect("parses");
        let Command::Explain(explain) = cli.command else { panic!("another command") };
        assert_eq!((explain.subject, explain.id.as_str()), (Subject::Model, "org/demo"));
        let error = parse(["modle", "org/demo"]).expect_err("refused").to_string();
        assert!(error.contains("'model'"), "{error}");
    }

    #[test]
    fn each_page_of_help_teaches_with_an_example() {
        // These say all with their flags.
        let plain = ["chat", "status", "undrain"];
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let help = command.clone().render_help().to_string();
            assert!(plain.contains(&name) || help.contains(&format!("  mlx-serving {name} ")), "{help}");
        }
    }

    #[test]
    fn a_wrong_verb_suggests_the_right_one() {
        let error = Cli::try_parse_from(["mlx-serving", "statsu"]).expect_err("refused").to_string();
        assert!(error.contains("status"), "{error}");
    }
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A situation by name: which Macs, which models, who asks for what.
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// An experiment in JSON, instead of a preset.
    #[arg(long, value_name = "PATH", conflicts_with = "preset")]
    pub(crate) file: Option<PathBuf>,
    /// Arrivals and lengths from a trace (Azure CSV or Mooncake JSONL), instead of the preset's.
    #[arg(long, value_name = "PATH")]
    pub(crate) trace: Option<PathBuf>,
    /// Which policies, divided by commas; `all` is what a preset has.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) policy: Vec<String>,
    /// Work asked for, as a share of what the Macs can do [default: the preset's].
    #[arg(long, value_name = "SHARE")]
    pub(crate) load: Option<f64>,
    /// Virtual hours during which requests arrive [default: the preset's].
    #[arg(long, value_name = "HOURS")]
    pub(crate) hours: Option<f64>,
    /// How many seeds; the table shows their mean [default: the preset's].
    #[arg(long, value_name = "COUNT")]
    pub(crate) seeds: Option<u64>,
    /// The first seed [default: the preset's].
    #[arg(long, value_name = "SEED")]
    pub(crate) first_seed: Option<u64>,
    /// Add a table by class and tenant.
    #[arg(long)]
    pub(crate) by_tenant: bool,
    /// Try the scheduler's laws after every event (slow).
    #[arg(long)]
    pub(crate) checked: bool,
    /// A table for people, or JSON for a script.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}
