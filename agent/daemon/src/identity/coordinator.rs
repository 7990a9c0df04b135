//! How this machine becomes a coordinator of a cluster that another one founded.
//!
//! Owns the same first contact as an agent's, with a token that invites coordinators, and a folder of its own for what comes of
//! it: one machine may be both. Refuses a second try with another token: an identity is obtained once and kept.

use std::path::Path;

use anyhow::Context as _;
use proto::identity::{Identity, Role};
use proto::papers::Papers;
use proto::tls::Credentials;
use proto::token::JoinToken;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::due::due;
use super::folder::{IdentityFolder, Membership};
use super::joining::{self, JoinError};
use super::renewing;
use crate::address::Address;

/// What a coordinator that joined needs to speak to the others.
#[derive(Clone, Debug)]
pub struct Enlisted {
    /// Its number in the group, for ever.
    pub replica: u64,
    /// Its certificate and key.
    pub credentials: Credentials,
}

/// The identity kept in `data_folder`, or, on the first start, one obtained from any of `contacts` with `token`.
pub async fn become_coordinator(
    data_folder: &Path,
    contacts: &[String],
    token: Option<&JoinToken>,
    name: &str,
    speaks: u32,
) -> anyhow::Result<Enlisted> {
    let folder = IdentityFolder::open(data_folder)?;
    let key_pem = folder.key_pem()?;
    let membership = match folder.membership()? {
        Some(kept) => kept,
        None => {
            let token = token.context(
                "this machine has not joined the cluster yet: give --token, which `mlx-serving token create --role coordinator` \
                 prints on a coordinator",
            )?;
            let joined = join(contacts, token, name, &key_pem, speaks).await?;
            folder.keep(&joined)?;
            joined
        }
    };
    let leaf = CertificateDer::from_pem_slice(membership.certificate_pem.as_bytes())
        .context("the certificate kept")?;
    let Identity { role, node } = Identity::from_leaf(&leaf).context("the certificate kept")?;
    anyhow::ensure!(role == Role::Coordinator, "the identity in {} is an agent's", data_folder.display());
    let credentials = Credentials {
        certificate_pem: membership.certificate_pem,
        key_pem,
        ca_certificate_pem: membership.ca_certificate_pem,
    };
    let credentials = renewed(&folder, contacts, credentials).await?;
    Ok(Enlisted { replica: node, credentials })
}

/// A coordinator that holds the registry signs for itself, so this matters only to one that has not got it yet. Where nobody answers
/// it starts with what it has.
async fn renewed(
    folder: &IdentityFolder,
    contacts: &[String],
    credentials: Credentials,
) -> anyhow::Result<Credentials> {
    let validity = renewing::validity(&credentials.certificate_pem)?;
    if renewing::now_unix_ms() < due(validity, 0) {
        return Ok(credentials);
    }
    let papers = Papers::new(credentials.clone()).context("the certificate kept")?;
    for contact in contacts {
        match renewing::ask(&Address::parse(contact)?, &papers).await {
            Ok(renewed) => {
                renewing::keep(folder, renewed.clone())?;
                return Ok(renewed);
            }
            Err(error) => {
                tracing::warn!(contact, "this coordinator's certificate is not renewed yet: {error:#}")
            }
        }
    }
    Ok(credentials)
}

/// Each contact is tried once: whoever starts a coordinator by hand wants to hear at once that nobody is there.
async fn join(
    contacts: &[String],
    token: &JoinToken,
    name: &str,
    key_pem: &str,
    speaks: u32,
) -> anyhow::Result<Membership> {
    let mut last = anyhow::anyhow!("no coordinator was named: give --join HOST:PORT");
    for contact in contacts {
        let address = Address::parse(contact)?;
        match joining::join(&address, token, name, key_pem, Role::Coordinator, Some(speaks)).await {
            Ok(joined) => return Ok(joined),
            Err(JoinError::Refused(error)) => {
                return Err(error).with_context(|| format!("joining the cluster at {address}"));
            }
            Err(JoinError::Unreachable(error)) => {
                last = error.context(format!("no coordinator answers at {address}"));
            }
        }
    }
    Err(last)
}
