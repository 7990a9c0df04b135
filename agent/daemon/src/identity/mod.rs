//! Who this Mac is: its key, its certificate and the CA of its cluster.
//!
//! Owns getting an identity once, with a join token, and using it ever after. A token of another cluster than the present
//! identity's is a wish to change over; one of the same cluster changes nothing, unless this Mac was revoked since. Refuses to start without either, and says where
//! a token comes from.

mod coordinator;
mod due;
mod folder;
mod joining;
mod renewing;
mod ties;
mod told;

use std::path::Path;

use proto::identity::Role;
use proto::tls::Credentials;
use proto::token::JoinToken;

use crate::address::Address;
use crate::backoff::{Backoff, roll};
use crate::coordinators::Kept;
use crate::limits;
use crate::notice::{Notice, Notices};

pub use coordinator::{Enlisted, become_coordinator};
use folder::{IdentityFolder, Membership};
use joining::JoinError;
pub(crate) use renewing::Renewer;
pub(crate) use ties::{Tie, Ties};
pub(crate) use told::Told;

/// What a person reads on a Mac that was revoked.
pub(crate) const REVOKED: &str = "this Mac was removed from the cluster (its membership was revoked, or the cluster began anew from a \
     backup of before it joined): to join again, create a new token on a coordinator with `mlx-serving token create` and start the \
     agent with --token";

/// What this Mac is, and in which cluster.
pub(crate) struct Obtained {
    pub(crate) credentials: Credentials,
    pub(crate) cluster: String,
}

/// The identity of this Mac, joining first if it has none for the token's cluster.
pub(crate) async fn obtain(
    data_folder: &Path,
    coordinators: &[Address],
    token: Option<&JoinToken>,
    name: &str,
    notices: &Notices,
) -> anyhow::Result<Obtained> {
    let folder = IdentityFolder::open(data_folder)?;
    let kept = folder.membership()?;
    let (key_pem, kept) = match kept.as_ref().and_then(|kept| kept.revoked.as_ref()) {
        // Under the token that it had when it was revoked, a Mac that is merely started again would be back at once.
        Some(former) if token.is_none_or(|token| token.id == *former) => anyhow::bail!(REVOKED),
        // The key of a revoked node is not taken again.
        Some(_) => (folder.new_key_pem()?, None),
        None => (folder.key_pem()?, kept),
    };
    let membership = match (kept, token) {
        (Some(kept), None) => kept,
        (Some(kept), Some(token)) if kept.is_of(token) => kept,
        (_, Some(token)) => {
            let joined = join(coordinators, token, name, &key_pem, notices).await?;
            folder.keep(&joined)?;
            joined
        }
        (None, None) => anyhow::bail!(
            "this Mac has not joined a cluster yet: start the agent with --token, which `mlx-serving coordinator` prints"
        ),
    };
    let Membership { certificate_pem, ca_certificate_pem, cluster, .. } = membership;
    Ok(Obtained { credentials: Credentials { certificate_pem, key_pem, ca_certificate_pem }, cluster })
}

/// The hashes of the authorities of the cluster that this Mac belongs to; none: it belongs to none.
pub fn cluster_of(data_folder: &Path) -> anyhow::Result<Vec<[u8; 32]>> {
    let kept = IdentityFolder::open(data_folder)?.membership()?;
    Ok(kept.map(|kept| kept.ca_hashes()).unwrap_or_default())
}

/// Whether this Mac belongs to a cluster that has none of these authorities: a token of theirs would take it out of that one.
pub fn belongs_elsewhere(data_folder: &Path, here: &[[u8; 32]]) -> anyhow::Result<bool> {
    let kept = IdentityFolder::open(data_folder)?.membership()?.filter(|kept| kept.revoked.is_none());
    Ok(kept.is_some_and(|kept| !here.iter().any(|authority| kept.is_under(*authority))))
}

/// `HOST:PORT` of the coordinators that this Mac knew when it last ran; none if it belongs to no cluster, or not to the token's.
pub fn known_coordinators(data_folder: &Path, token: Option<&JoinToken>) -> anyhow::Result<Vec<String>> {
    let kept = IdentityFolder::open(data_folder)?.membership()?;
    let Some(kept) = kept.filter(|kept| token.is_none_or(|token| kept.is_of(token))) else {
        return Ok(Vec::new());
    };
    let learned = Kept::of_cluster(data_folder, &kept.cluster, &kept.ca_certificate_pem).read();
    Ok(learned.addresses().map(Address::to_string).collect())
}

/// Notes that the membership is over, so that the next start says so without asking anybody.
pub(crate) fn set_aside(data_folder: &Path, token: Option<&JoinToken>) -> anyhow::Result<()> {
    let folder = IdentityFolder::open(data_folder)?;
    let Some(kept) = folder.membership()? else { return Ok(()) };
    let revoked = Some(token.map(|token| token.id.clone()).unwrap_or_default());
    folder.keep(&Membership { revoked, ..kept })
}

/// Asks one after another. Those that do not answer are waited for; once one refuses and none takes this Mac, none is asked again.
async fn join(
    coordinators: &[Address],
    token: &JoinToken,
    name: &str,
    key_pem: &str,
    notices: &Notices,
) -> anyhow::Result<Membership> {
    let mut backoff = Backoff::new(limits::BACKOFF_FIRST, limits::BACKOFF_MOST);
    let mut told = false;
    loop {
        let mut refusal = None;
        for address in coordinators {
            match joining::join(address, token, name, key_pem, Role::Agent, None).await {
                Ok(joined) => return Ok(joined),
                Err(JoinError::Refused(error)) => {
                    let error = error.context(format!("joining the cluster at {address}"));
                    refusal.get_or_insert(error);
                }
                Err(JoinError::Unreachable(error)) => {
                    tracing::info!("no coordinator at {address} yet: {error:#}");
                }
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if !std::mem::replace(&mut told, true) {
            let all = coordinators.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            notices.tell(Notice::CoordinatorLost { words: format!("no coordinator at {all} yet") });
        }
        tokio::time::sleep(backoff.delay(roll())).await;
    }
}
