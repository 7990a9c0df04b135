//! Arguments of what administers: API keys and the audit trail.
//!
//! Owns their flags, their help, and the reading of a time like `30d`. Refuses a time without a unit: nobody should have to guess.

use clap::{Args, Subcommand, ValueEnum};

use super::{Api, Bound, Output};

pub(crate) const KEYS_EXAMPLES: &str = "\
Examples:
  mlx-serving keys create --name ada                      a key that may ask every model; printed once, alone
  mlx-serving keys create --name ci --model org/small --expires 30d
  mlx-serving keys create --name ops --scope read --scope admin
  mlx-serving keys create --name lab --rpm 60 --tpm 100000 --concurrency 4
  mlx-serving keys limit 5b0c1f9e2d7a --tokens-per-month 50M --rpm none
  mlx-serving keys ls                                     who has keys, what they may do and have used
  mlx-serving keys rotate 5b0c1f9e2d7a                    a second secret; the first one still works
  mlx-serving keys rotate 5b0c1f9e2d7a --finish           ends the first one
  mlx-serving keys revoke 5b0c1f9e2d7a                    ends the key and what runs under it, within a second

From the first key on, every caller needs one. On the coordinator's machine whoever can read its folder administers; elsewhere
give a key of the scope admin with --key or MLX_SERVING_API_KEY.

Exit codes: 0 ok, 1 failed, 2 usage, 4 no such key, 5 not allowed, 6 coordinator unreachable, 8 refused.";

pub(crate) const AUDIT_EXAMPLES: &str = "\
Examples:
  mlx-serving audit                                       who changed what, the last change last
  mlx-serving audit --verify                              whether the trail is as it was written; prints its last hash
  mlx-serving audit --verify --contains 9f2c...           ... and still has the entry with a hash that was noted earlier

Exit codes: 0 ok, 1 the trail was tampered with, 5 not allowed, 6 coordinator unreachable.";

#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    pub(crate) action: KeysAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysAction {
    /// Make a key and print it, once
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        /// What it may do; may be given more than once
        #[arg(long = "scope", value_enum, default_value = "inference")]
        scopes: Vec<Scope>,
        /// A model that it may ask; may be given more than once [default: every model]
        #[arg(long = "model", value_name = "MODEL")]
        models: Vec<String>,
        /// How long it is good, like 12h, 30d or 1y [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires: Option<u64>,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        call: Call,
    },
    /// Bound what a key may ask for, in the whole cluster; what is not given stays
    Limit {
        /// The key's id
        id: String,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        call: Call,
    },
    /// List all keys
    Ls {
        #[command(flatten)]
        call: Call,
    },
    /// Show one key
    Show {
        /// The key's id: what stands between the two underscores of its text
        id: String,
        #[command(flatten)]
        call: Call,
    },
    /// Change what a key may do; what is not given stays
    Change {
        /// The key's id
        id: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// All it may do from now on; may be given more than once
        #[arg(long = "scope", value_enum)]
        scopes: Vec<Scope>,
        /// All models that it may ask from now on; may be given more than once
        #[arg(long = "model", value_name = "MODEL", conflicts_with = "any_model")]
        models: Vec<String>,
        /// It may ask every model
        #[arg(long)]
        any_model: bool,
        /// How long it is good from now on, like 12h, 30d or 1y
        #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "never_expires")]
        expires: Option<u64>,
        /// It is good for ever
        #[arg(long)]
        never_expires: bool,
        #[command(flatten)]
        call: Call,
    },
    /// Give a key a second secret and print it, once; with --finish, end the older one
    Rotate {
        /// The key's id
        id: String,
        /// End the older of the two secrets
        #[arg(long)]
        finish: bool,
        #[command(flatten)]
        call: Call,
    },
    /// End a key for ever, and what runs under it
    Revoke {
        /// The key's id
        id: String,
        #[command(flatten)]
        call: Call,
    },
}

/// Bounds of a key: a number, also like 100k or 50M, or `none`.
#[derive(Debug, Default, Args)]
pub(crate) struct Limits {
    /// Requests in a minute: a number, also like 10k, or `none`, which lifts the bound [default for a new key: none]
    #[arg(long, value_name = "NUMBER", value_parser = bound)]
    pub(crate) rpm: Option<Bound<u64>>,
    /// Tokens in a minute, of prompts and of answers: like 100k, or `none`
    #[arg(long, value_name = "NUMBER", value_parser = bound)]
    pub(crate) tpm: Option<Bound<u64>>,
    /// Requests at one time: a number, or `none`
    #[arg(long, value_name = "NUMBER", value_parser = bound)]
    pub(crate) concurrency: Option<Bound<u64>>,
    /// Tokens in a month of UTC, of prompts and of answers: like 50M, or `none`
    #[arg(long, value_name = "NUMBER", value_parser = bound)]
    pub(crate) tokens_per_month: Option<Bound<u64>>,
}

/// Where to call, and how to print the answer.
#[derive(Debug, Args)]
pub(crate) struct Call {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Ask models
    Inference,
    /// See status, queue, explanations and metrics
    Read,
    /// Change keys and the cluster
    Admin,
}

impl Scope {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scope::Inference => "inference",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Check the chain of hashes
    #[arg(long)]
    pub(crate) verify: bool,
    /// The hash of an entry that was noted earlier: it must still be in the trail
    #[arg(long, value_name = "HASH", requires = "verify")]
    pub(crate) contains: Option<String>,
    #[command(flatten)]
    pub(crate) call: Call,
}

/// `60`, `100k`, `50M`, `2G` or `none`.
fn bound(text: &str) -> Result<Bound<u64>, String> {
    if text == "none" {
        return Ok(Bound::None);
    }
    let wrong = || "a bound is a number from 1 on, also like 100k, 50M or 2G, or none".to_owned();
    let (digits, each) = [('k', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)]
        .into_iter()
        .find_map(|(unit, each)| Some((text.strip_suffix(unit)?, each)))
        .unwrap_or((text, 1));
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(each).filter(|bound| *bound > 0).map(Bound::At).ok_or_else(wrong)
}

/// `90s`, `45m`, `12h`, `30d`, `1y`, in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "a time is a number and a unit: 90s, 45m, 12h, 30d or 1y".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 24 * 3_600,
        'y' => 365 * 24 * 3_600,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(each).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    #[test]
    fn a_bound_is_a_number_or_none() {
        for (text, expected) in [("60", 60), ("100k", 100_000), ("50M", 50_000_000), ("2G", 2_000_000_000)] {
            assert_eq!(bound(text), Ok(Bound::At(expected)), "{text}");
        }
        assert_eq!(bound("none"), Ok(Bound::None));
        for text in ["", "0", "0k", "k", "-1", "1.5M", "99999999999999G", "10 k", "None"] {
            assert!(bound(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        for (text, expected) in
            [("90s", 90), ("45m", 2_700), ("12h", 43_200), ("30d", 2_592_000), ("1y", 31_536_000)]
        {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "30", "d", "0d", "-1d", "1.5d", "30 d", "30D", "18446744073709551615y", "3é"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_new_key_may_ask_models_and_nothing_else() {
        let parse = |more: &[&str]| {
            let cli =
                Cli::try_parse_from(["mlx-serving", "keys", "create", "--name", "ada"].iter().chain(more));
            cli.map(|cli| {
                let Command::Keys(Keys { action }) = cli.command else { panic!("another command") };
                let KeysAction::Create { scopes, .. } = action else { panic!("another action") };
                scopes
            })
        };
        assert_eq!(parse(&[]).expect("parses"), [Scope::Inference]);
        assert_eq!(
            parse(&["--scope", "read", "--scope", "admin"]).expect("parses"),
            [Scope::Read, Scope::Admin]
        );
        assert!(parse(&["--scope", "root"]).is_err());
    }

    #[test]
    fn a_change_cannot_say_both() {
        for more in [["--model", "a", "--any-model"].as_slice(), &["--expires", "1d", "--never-expires"]] {
            assert!(Cli::try_parse_from(["mlx-serving", "keys", "change", "0a"].iter().chain(more)).is_err());
        }
    }
}
