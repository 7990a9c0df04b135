//! Why a command about the authority changed nothing.
//!
//! Owns these reasons and their words.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The authority is not as the command needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaRefusal {
    /// Its key is plain still.
    NotSealed,
    /// Another rotation is under way, or none of this number.
    OutOfTurn {
        /// The rotation that was meant.
        number: u64,
        /// The last one that is over; 0: none.
        last: u64,
        /// The one that is under way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        under_way: Option<u64>,
    },
    /// Members have no certificate of the new authority yet, and theirs may last.
    Awaited {
        /// How many.
        missing: usize,
    },
}

impl fmt::Display for CaRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaRefusal::NotSealed => f.write_str(
                "the key of the cluster's authority is not sealed yet, which the leader does within seconds once every \
                 coordinator runs; see `mlx-serving status`, and ask again",
            ),
            CaRefusal::OutOfTurn { number, last, under_way } => {
                write!(f, "rotation {number} of the cluster's authority is out of turn, since ")?;
                match under_way {
                    Some(known) => write!(f, "rotation {known} is under way")?,
                    None => write!(f, "rotation {last} was the last and none is under way")?,
                }
                f.write_str("; see how it stands with `mlx-serving ca status`")
            }
            CaRefusal::Awaited { missing } => write!(
                f,
                "{missing} members have no certificate of the new authority yet; see who with `mlx-serving ca status`, \
                 and start them, or give them up with `mlx-serving ca rotate --abandon-absent`"
            ),
        }
    }
}
