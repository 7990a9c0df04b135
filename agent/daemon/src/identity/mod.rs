//! Who this Mac is: its key, its certificate and the CA of its cluster.
//!
//! Owns getting an identity once, with a join token, and using it ever after. A token of another cluster than the present
//! identity's is a wish to change over; one of the same cluster changes nothing. Refuses to start without either, and says where
//! a token comes from.

mod coordinator;
mod folder;
mod joining;

use std::path::Path;

use proto::identity::Role;
use proto::tls::Credentials;
use proto::token::JoinToken;

use crate::address::Address;
use crate::backoff::{Backoff, roll};
use crate::limits;
use crate::notice::{Notice, Notices};

pub use coordinator::{Enlisted, become_coordinator};
use folder::{IdentityFolder, Membership};
use joining::JoinError;

/// The identity of this Mac, joining first if it has none for the token's cluster.
pub(crate) async fn obtain(
    data_folder: &Path,
    coordinators: &[Address],
    token: Option<&JoinToken>,
    name: &str,
    notices: &Notices,
) -> anyhow::Result<Credentials> {
    let folder = IdentityFolder::open(data_folder)?;
    let key_pem = folder.key_pem()?;
    let kept = folder.membership()?;
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
    Ok(Credentials {
        certificate_pem: membership.certificate_pem,
        key_pem,
        ca_certificate_pem: membership.ca_certificate_pem,
    })
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
            match joining::join(address, token, name, key_pem, Role::Agent).await {
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
