//! Why the group was not changed, or not as far as anybody knows.

use std::time::Duration;

use crate::error::{ProposeError, ReadError};
use crate::options::ReplicaId;

/// Why a change of the group has not happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Only the leader changes the group; `leader` is where to go, if known.
    #[error("this replica is not the leader{}", .leader.map(|id| format!(", replica {id} is")).unwrap_or_default())]
    NotLeader {
        /// The leader's replica id.
        leader: Option<u64>,
    },
    /// The registry refused to begin it: another is under way, or the id was used before.
    #[error(transparent)]
    Refused(#[from] registry::Refusal),
    /// No member has this id.
    #[error("replica {replica} is not a member of the group; add it first")]
    NotAMember {
        /// The id asked for.
        replica: ReplicaId,
    },
    /// The member is reached elsewhere.
    #[error("replica {replica} is a member already, at {address}; change its address instead of adding it")]
    AddressDiffers {
        /// The member.
        replica: ReplicaId,
        /// Its address.
        address: String,
    },
    /// A majority of an even number is no better than of one less.
    #[error(
        "the group would have {voters} voters, which survives no more failures than {}; use 1, 3 or 5, or ask for it \
         explicitly",
        .voters.saturating_sub(1)
    )]
    Even {
        /// Voters there would be.
        voters: usize,
    },
    /// More voters than a group may have.
    #[error("the group would have {voters} voters, at most {voters_max} are supported")]
    TooMany {
        /// Voters there would be.
        voters: usize,
        /// The bound.
        voters_max: usize,
    },
    /// Somebody must be left to vote.
    #[error("the group would have no voter left; to give it up, stop its last coordinator")]
    NoneLeft,
    /// The member would have a vote and nothing to vote on.
    #[error(
        "replica {replica} lacks {lag} entries of the log, at most {lag_max} are allowed; wait until it has caught up"
    )]
    Behind {
        /// The member.
        replica: ReplicaId,
        /// Entries it lacks.
        lag: u64,
        /// The bound.
        lag_max: u64,
    },
    /// The member does not answer.
    #[error("replica {replica} has not answered {}; start it, or correct its address",
        .since.map(|since| format!("for {} ms", since.as_millis())).unwrap_or_else(|| "yet".to_owned()))]
    Silent {
        /// The member.
        replica: ReplicaId,
        /// How long ago it did.
        since: Option<Duration>,
    },
    /// After the change the group could commit nothing.
    #[error(
        "of the {voters} voters there would be only {answering} answer, which is no majority; start the others first"
    )]
    NoMajority {
        /// Voters there would be.
        voters: usize,
        /// Those that answer.
        answering: usize,
    },
    /// It has begun and goes on; whoever leads completes it.
    #[error("the change was not finished in time; it goes on, see the members for how far it is")]
    Slow,
    /// Leadership changed, or no majority answered, while it was under way. If it had begun, whoever leads completes it.
    #[error("the outcome is not known: {0}")]
    OutcomeUnknown(String),
    /// This replica has stopped for good.
    #[error("this replica has stopped: {0}; restart the coordinator after correcting the cause")]
    Stopped(String),
}

impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> ChangeError {
        match error {
            ReadError::NotLeader { leader } => ChangeError::NotLeader { leader },
            error @ ReadError::NoMajority => ChangeError::OutcomeUnknown(error.to_string()),
            ReadError::Stopped(why) => ChangeError::Stopped(why),
        }
    }
}

impl From<ProposeError> for ChangeError {
    fn from(error: ProposeError) -> ChangeError {
        match error {
            ProposeError::NotLeader { leader } => ChangeError::NotLeader { leader },
            error @ (ProposeError::Busy { .. }
            | ProposeError::TooLarge { .. }
            | ProposeError::StorageFull { .. }) => ChangeError::OutcomeUnknown(error.to_string()),
            ProposeError::OutcomeUnknown(why) => ChangeError::OutcomeUnknown(why),
            ProposeError::Stopped(why) => ChangeError::Stopped(why),
        }
    }
}
