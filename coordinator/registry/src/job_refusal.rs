//! Why a command about a job changed nothing.
//!
//! Owns these reasons and their words. They are the gateway's to act upon: a client is told in the words of its own API.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::JobId;

/// A job is not as the command needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobRefusal {
    /// There is such a job already.
    Known {
        /// The job.
        job: JobId,
    },
    /// There is no such job.
    Unknown {
        /// The job.
        job: JobId,
    },
    /// Another run has it by now, or it has ended.
    NotItsRun {
        /// The job.
        job: JobId,
    },
}

impl fmt::Display for JobRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobRefusal::Known { job } => {
                write!(f, "job {job} is known already; look at how it stands instead of beginning it")
            }
            JobRefusal::Unknown { job } => write!(f, "there is no job {job}; begin it"),
            JobRefusal::NotItsRun { job } => {
                write!(f, "job {job} was taken over or has ended since; look at how it stands")
            }
        }
    }
}
