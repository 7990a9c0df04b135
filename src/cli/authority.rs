//! Arguments of `ca`.
//!
//! Owns their flags and their help. Refuses nothing.

use clap::{Args, Subcommand};

use super::{Api, Output};

pub(crate) const CA_EXAMPLES: &str = "\
Examples:
  mlx-serving ca                                          which authority signs, and how far a rotation is
  mlx-serving ca rotate                                   a new one takes its place; waits until it has
  mlx-serving ca rotate --no-wait                         begin, and look later with `mlx-serving ca`
  mlx-serving ca rotate --abandon-absent --they-join-anew  end it now, without whoever is away

No request fails and no stream breaks. Every Mac gets a new certificate by itself. One that is switched off is waited for, for a week at
the most: whoever comes back later, or was abandoned, joins again with a new token. A rotation outlives restarts, and asking for one
while one is under way joins it. Tokens of before are good until it is over. Make a new backup afterwards.

Exit codes: 0 it is over, 3 it goes on and somebody is away, 5 not allowed, 6 coordinator unreachable, 8 refused, 130 interrupted.";

#[derive(Debug, Args)]
pub(crate) struct Ca {
    #[command(subcommand)]
    pub(crate) action: Option<CaAction>,
    #[command(flatten)]
    pub(crate) look: CaLook,
}

#[derive(Debug, Args)]
pub(crate) struct CaLook {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaAction {
    /// Show which authority signs, and how far a rotation is
    Status {
        #[command(flatten)]
        look: CaLook,
    },
    /// Put another authority in the place of the one that signs
    Rotate {
        /// Do not wait until it is over
        #[arg(long, conflicts_with = "abandon_absent")]
        no_wait: bool,
        /// Seconds to wait without anybody having moved
        #[arg(long, value_name = "S", default_value_t = 60)]
        patience: u64,
        /// End the rotation that is under way at once: whoever has not moved must join again
        #[arg(long)]
        abandon_absent: bool,
        /// With --abandon-absent: yes, whoever is away shall have to join again, with a new token
        #[arg(long, requires = "abandon_absent")]
        they_join_anew: bool,
        #[command(flatten)]
        api: Api,
    },
}
