//! Arguments of `token`, `nodes`, `drain` and `undrain`, and their help.
//!
//! Owns their flags, as `cli.rs` owns all others. Refuses a life and a number of uses that are none.

use clap::{Args, Subcommand, ValueEnum};

use super::{Api, Home, Output};

pub(crate) const TOKEN_EXAMPLES: &str = "\
Examples:
  mlx-serving token create                                one more Mac, within a day
  mlx-serving token create --uses 20 --ttl 2h --name lab  a room of Macs, this afternoon
  mlx-serving token create --role coordinator             one more coordinator
  mlx-serving token show                                  the one that the coordinator printed at its start
  mlx-serving token revoke 5f0c...                        nobody joins with it any more

The coordinator on this machine keeps a token of its own, in its folder: it is good for a day and for any number of Macs, so that one
line invites a whole room. `token ls` shows it too, and it can be revoked; the next start makes another.";

pub(crate) const NODES_EXAMPLES: &str = "\
Examples:
  mlx-serving nodes ls                                    who belongs to the cluster
  mlx-serving nodes revoke mini-07                        never again, under this key: it is cut within a second
  mlx-serving nodes revoke coordinator-3                  the same for a coordinator, which leaves the group

Exit codes: 0 ok, 4 not known, 5 not allowed, 6 coordinator unreachable, 8 refused.";

pub(crate) const DRAIN_EXAMPLES: &str = "\
Examples:
  mlx-serving drain mini-07                               empty it: waits until nothing runs there any more
  mlx-serving drain mini-07 --no-wait                     begin, and look later with `mlx-serving status`
  mlx-serving undrain mini-07                             it takes work again

No request fails. What runs there ends there. A model that no other Mac holds is loaded on another one first, and served from here
until it is ready there; where no other Mac can hold it, this one goes on serving it. A drain outlives restarts, and Ctrl-C
leaves it on.

Exit codes: 0 empty, 4 not known, 5 not allowed, 6 coordinator unreachable, 8 refused, 130 interrupted.";

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// An id that `nodes ls` shows, or a name that is one machine's alone
    pub(crate) node: String,
    /// Do not wait until it is empty
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Undrain {
    /// An id that `nodes ls` shows, or a name that is one machine's alone
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token and print it
    Create {
        /// As what machines may join
        #[arg(long, value_enum, default_value_t = TokenRole::Agent)]
        role: TokenRole,
        /// How long it is good: minutes, hours or days, such as 30m, 24h, 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
        ttl: u64,
        /// How many machines may join with it, or `any`
        #[arg(long, value_name = "N", default_value = "1", value_parser = uses)]
        uses: Uses,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        #[command(flatten)]
        api: Api,
    },
    /// List the tokens, without their secrets
    Ls {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        api: Api,
    },
    /// Take a token back. Who joined with it stays
    Revoke {
        /// The id that `token ls` shows
        id: String,
        #[command(flatten)]
        api: Api,
    },
    /// Print the token that the coordinator on this machine made at its start: good for any number of machines, for a day
    Show {
        /// As what they may join
        #[arg(long, value_enum, default_value_t = TokenRole::Agent)]
        role: TokenRole,
        #[command(flatten)]
        home: Home,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TokenRole {
    Agent,
    Coordinator,
}

/// How many machines may join; `None`: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uses(pub(crate) Option<u32>);

#[derive(Debug, Args)]
pub(crate) struct Nodes {
    #[command(subcommand)]
    pub(crate) action: NodesAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodesAction {
    /// List agents and coordinators
    Ls {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        api: Api,
    },
    /// End a membership for ever. What runs there goes on elsewhere
    Revoke {
        /// An id that `nodes ls` shows, or a name that is one machine's alone
        node: String,
        #[command(flatten)]
        api: Api,
    },
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: expected minutes, hours or days, such as 30m, 24h, 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 24 * 3_600,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

fn uses(text: &str) -> Result<Uses, String> {
    if text == "any" {
        return Ok(Uses(None));
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number
        .map(|number| Uses(Some(number)))
        .ok_or_else(|| format!("{text:?} is neither a number from 1 on nor `any`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!((seconds("30m"), seconds("24h"), seconds("7d")), (Ok(1_800), Ok(86_400), Ok(604_800)));
        for wrong in ["", "h", "24", "24s", "-1h", "1.5h", "99999999999999999999d", "7ä"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn uses_are_a_number_or_any() {
        assert_eq!((uses("1"), uses("any")), (Ok(Uses(Some(1))), Ok(Uses(None))));
        for wrong in ["0", "-1", "", "all"] {
            assert!(uses(wrong).is_err(), "{wrong}");
        }
    }
}
