//! How a coordinator tells a caller that it belongs to the cluster no more, is too old for it, or is of a former life of it.
//!
//! Owns the marks by which that is told apart from every other refusal: it is final, and who hears it stops asking. Refuses
//! to be guessed from words, which are for people.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Trailer of a refusal. The name is for ever.
const KEY: &str = "mlx-standing";
const REVOKED: &str = "revoked";
const OUTDATED: &str = "outdated";
const FORMER: &str = "former";

/// The refusal of a node that was revoked.
pub fn revoked(words: impl Into<String>) -> Status {
    let mut status = Status::permission_denied(words);
    status.metadata_mut().insert(KEY, MetadataValue::from_static(REVOKED));
    status
}

/// Does it say that the caller was revoked?
pub fn is_revoked(status: &Status) -> bool {
    status.code() == Code::PermissionDenied && is_marked(status, REVOKED)
}

/// The refusal of a coordinator that does not speak the cluster's version.
pub fn outdated(words: impl Into<String>) -> Status {
    let mut status = Status::failed_precondition(words);
    status.metadata_mut().insert(KEY, MetadataValue::from_static(OUTDATED));
    status
}

/// Does it say that the caller does not speak the cluster's version?
pub fn is_outdated(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && is_marked(status, OUTDATED)
}

/// The refusal of a coordinator whose facts are of a former life of the cluster.
pub fn former(words: impl Into<String>) -> Status {
    let mut status = Status::failed_precondition(words);
    status.metadata_mut().insert(KEY, MetadataValue::from_static(FORMER));
    status
}

/// Does it say that the caller's facts are of a former life of the cluster?
pub fn is_former(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && is_marked(status, FORMER)
}

fn is_marked(status: &Status, mark: &str) -> bool {
    status.metadata().get(KEY).is_some_and(|value| value.as_bytes() == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mark_says_that_a_node_was_revoked() {
        assert!(is_revoked(&revoked("join again")));
        assert!(!is_revoked(&Status::permission_denied("this node was revoked")));
        let mut other = Status::unavailable("later");
        other.metadata_mut().insert(KEY, MetadataValue::from_static(REVOKED));
        assert!(!is_revoked(&other));
    }

    #[test]
    fn who_is_too_old_was_not_revoked() {
        let refused = outdated("update it");
        assert!(is_outdated(&refused) && !is_revoked(&refused));
        assert!(!is_outdated(&revoked("join again")));
        assert!(!is_outdated(&Status::failed_precondition("update it")));
    }

    #[test]
    fn who_is_of_a_former_life_is_neither_revoked_nor_too_old() {
        let refused = former("begin anew");
        assert!(is_former(&refused) && !is_outdated(&refused) && !is_revoked(&refused));
        assert!(!is_former(&outdated("update it")) && !is_former(&revoked("join again")));
        assert!(!is_former(&Status::failed_precondition("begin anew")));
    }
}
