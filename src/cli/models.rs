//! Arguments of `models`, and their help.
//!
//! Owns its flags. Refuses to ask for a change that changes nothing.

use clap::{ArgGroup, Args, Subcommand};

use super::Call;
use super::administration::seconds;

pub(crate) const MODELS_EXAMPLES: &str = "\
Examples:
  mlx-serving models ls                                   which Macs could hold each model, and which do
  mlx-serving models set org/large --pin                  it stays wherever it is
  mlx-serving models set org/large --min 2                on two Macs at least, asked for or not
  mlx-serving models set org/small --max 1 --idle 30m     on one at most, and unloaded after half an hour without a request
  mlx-serving models set org/small --max any --idle never as before

A model is loaded when it is asked for, where it costs least, and gives way to one that is needed more: none of this is needed for that.

Exit codes: 0 ok, 1 failed, 2 usage, 4 no such model, 5 not allowed, 6 coordinator unreachable, 8 refused.";

#[derive(Debug, Args)]
pub(crate) struct Models {
    #[command(subcommand)]
    pub(crate) action: ModelsAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsAction {
    /// List the models that Macs offer, and how they shall be treated
    Ls {
        #[command(flatten)]
        call: Call,
    },
    /// Say how a model shall be treated; what is not given stays
    Set {
        /// The model, as `models ls` shows it
        model: String,
        #[command(flatten)]
        policy: Policy,
        #[command(flatten)]
        call: Call,
    },
}

#[derive(Debug, Default, Args)]
#[command(group = ArgGroup::new("something").required(true).multiple(true))]
pub(crate) struct Policy {
    /// Never evict it from where it is, nor unload it there
    #[arg(long, group = "something", conflicts_with = "unpin")]
    pub(crate) pin: bool,
    /// It may be evicted again
    #[arg(long, group = "something")]
    pub(crate) unpin: bool,
    /// So many Macs hold it, asked for or not
    #[arg(long, value_name = "N", group = "something")]
    pub(crate) min: Option<u32>,
    /// No more Macs than this hold it, or `any`
    #[arg(long, value_name = "N", group = "something", value_parser = most)]
    pub(crate) max: Option<Bound<u64>>,
    /// Unload it after so long without a request, like 90s, 30m or 12h, or `never`
    #[arg(long, value_name = "TIME", group = "something", value_parser = idle)]
    pub(crate) idle: Option<Bound<u64>>,
}

/// A bound, or the word that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound<T> {
    At(T),
    None,
}

fn most(text: &str) -> Result<Bound<u64>, String> {
    if text == "any" {
        return Ok(Bound::None);
    }
    let number = text.parse::<u32>().ok().filter(|number| *number > 0);
    number
        .map(|number| Bound::At(u64::from(number)))
        .ok_or_else(|| format!("{text:?} is neither a number from 1 on nor `any`"))
}

fn idle(text: &str) -> Result<Bound<u64>, String> {
    if text == "never" { Ok(Bound::None) } else { seconds(text).map(Bound::At) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_number_or_none() {
        assert_eq!((most("2"), most("any")), (Ok(Bound::At(2)), Ok(Bound::None)));
        assert_eq!((idle("30m"), idle("never")), (Ok(Bound::At(1_800)), Ok(Bound::None)));
        assert!(["0", "-1", "", "all"].iter().all(|text| most(text).is_err()));
        assert!(["0m", "30", "always"].iter().all(|text| idle(text).is_err()));
    }
}
