//! Arguments of what keeps the cluster's facts: the group of coordinators, backups, and a new life from one.
//!
//! Owns their flags and their help. Refuses nothing.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Api, Call, Home};

pub(crate) const COORDINATORS_EXAMPLES: &str = "\
Examples:
  mlx-serving coordinators ls                             who they are, who leads, who lags
  mlx-serving coordinators lead 2                         hand the lead to number 2, before this one is updated
  mlx-serving coordinators remove 3                       for ever; its number is never used again
  mlx-serving coordinators replace 3 4                    4 has joined and takes the vote of 3, in one step
  mlx-serving coordinators alone --others-are-gone        on a stopped coordinator whose others will not come back

Exit codes: 0 ok, 1 failed, 2 usage, 5 not allowed, 6 coordinator unreachable, 8 refused.";

pub(crate) const BACKUP_EXAMPLES: &str = "\
Examples:
  mlx-serving backup facts-2026-11-26                     all facts in one file, for its owner alone: it holds secrets
  mlx-serving restore facts-2026-11-26 --seal-key KEY      on a machine where no coordinator has run yet; KEY is a copy of
                                                          the file `seal-key` in the folder of any coordinator

Exit codes: 0 ok, 1 failed, 5 not allowed, 6 coordinator unreachable.";

#[derive(Debug, Args)]
pub(crate) struct Coordinators {
    #[command(subcommand)]
    pub(crate) action: GroupAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupAction {
    /// List the members of the group
    Ls {
        #[command(flatten)]
        call: Call,
    },
    /// Give a vote to one that follows
    Promote {
        /// Its number, as `coordinators ls` shows it
        replica: u64,
        /// An even number of votes is meant: two survive no more failures than one
        #[arg(long)]
        even: bool,
        #[command(flatten)]
        call: Call,
    },
    /// End a membership for ever
    Remove {
        /// Its number, as `coordinators ls` shows it
        replica: u64,
        /// An even number of votes is meant: two survive no more failures than one
        #[arg(long)]
        even: bool,
        #[command(flatten)]
        call: Call,
    },
    /// Give the vote of one member to another, and end its membership
    Replace {
        /// The number of the one that goes
        replica: u64,
        /// The number of the one that has joined for it
        with: u64,
        #[command(flatten)]
        call: Call,
    },
    /// Hand the lead to another member
    Lead {
        /// Its number, as `coordinators ls` shows it
        replica: u64,
        #[command(flatten)]
        call: Call,
    },
    /// Make the stopped coordinator of this machine the only one, when the others are gone for good
    Alone {
        /// Where others reach it from now on, HOST:PORT [default: what `mlx-serving coordinator` is started with]
        #[arg(long, value_name = "ADDR")]
        advertise: Option<String>,
        /// The other coordinators will never come back
        #[arg(long)]
        others_are_gone: bool,
        #[command(flatten)]
        home: Home,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write; it must not exist
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// What `mlx-serving backup` wrote
    pub(crate) file: PathBuf,
    /// A copy of the file `seal-key` of any coordinator [default: the one in the coordinator's folder here]
    #[arg(long, value_name = "FILE")]
    pub(crate) seal_key: Option<PathBuf>,
    /// Where others reach this coordinator, HOST:PORT [default: what `mlx-serving coordinator` is started with]
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<String>,
    #[command(flatten)]
    pub(crate) home: Home,
}
