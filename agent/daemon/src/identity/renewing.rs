//! Certificates are renewed before they end, and when the cluster trusts others than this Mac does.
//!
//! Owns asking one coordinator after another, writing down what comes of it, and showing it from the next connection on; no
//! session and no stream is touched. The key stays. A certificate that has ended is not shown, and the key alone is asked for: the
//! registry knows it. Refuses an answer for anybody else, and keeps what it has.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use proto::identity::{Identity, Validity};
use proto::papers::Papers;
use proto::standing;
use proto::tls::Credentials;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{RenewReply, RenewRequest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::due::{due, is_over};
use super::folder::IdentityFolder;
use super::joining::signing_request;
use super::told::Told;
use crate::address::Address;
use crate::backoff::{Backoff, roll};
use crate::limits;
use crate::session::{anonymous, mutual};

pub(crate) struct Renewer {
    pub(crate) data_folder: PathBuf,
    pub(crate) papers: Papers,
    /// Of all coordinators.
    pub(crate) addresses: watch::Receiver<Vec<Address>>,
    /// Whom the cluster trusts.
    pub(crate) told: watch::Receiver<Told>,
    /// Cancelled when one says that this Mac was revoked.
    pub(crate) revoked: CancellationToken,
}

impl Renewer {
    /// Until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.keep()).await;
    }

    /// Waits by the wall clock, which goes on while a Mac sleeps.
    async fn keep(&self) {
        let mut backoff = Backoff::new(limits::RENEW_FIRST, limits::RENEW_MOST);
        loop {
            let due = match validity(&self.papers.credentials().certificate_pem) {
                Ok(validity) => due(validity, roll()),
                // It was good enough to start with; the next start says what is wrong.
                Err(error) => return tracing::error!("this Mac's certificate cannot be read: {error:#}"),
            };
            // Where this clock and the coordinator's differ by days, what is given is due at once; that is no reason to hurry.
            let mut early = false;
            while let Some(left) = due.checked_sub(now_unix_ms()).filter(|left| *left > 0) {
                tokio::select! {
                    () = sleep(Duration::from_millis(left).min(limits::LOOK_AGAIN)) => early = true,
                    () = self.turned() => {
                        sleep(spread(roll())).await;
                        break;
                    }
                }
            }
            if early {
                backoff.reset();
            }
            if let Err(error) = self.renew().await {
                tracing::warn!("this Mac's certificate is not renewed yet: {error:#}");
            }
            sleep(backoff.delay(roll())).await;
        }
    }

    /// Until the cluster trusts others than this Mac does.
    async fn turned(&self) {
        let held = self.papers.credentials().ca_certificate_pem;
        let mut told = self.told.clone();
        if told.wait_for(|told| !told.are(&held)).await.is_err() {
            // The agent stops.
            std::future::pending::<()>().await;
        }
    }

    /// A coordinator that gives what is not told any more lags behind: another one is asked.
    async fn renew(&self) -> anyhow::Result<()> {
        let addresses = self.addresses.borrow().clone();
        let told = self.told.borrow().clone();
        let mut last = anyhow::anyhow!("no coordinator is known");
        for address in addresses {
            match ask(&address, &self.papers).await {
                Ok(credentials) if told.are(&credentials.ca_certificate_pem) => {
                    return self.take(credentials).await;
                }
                Ok(_) => {
                    last = anyhow::anyhow!("{address} lags behind: it trusts others than the cluster does")
                }
                Err(error) if error.downcast_ref::<Status>().is_some_and(standing::is_revoked) => {
                    self.revoked.cancel();
                    return Err(error);
                }
                Err(error) => last = error.context(format!("asking {address}")),
            }
        }
        Err(last)
    }

    /// Shown first: what cannot be written down is renewed again after the next start.
    async fn take(&self, credentials: Credentials) -> anyhow::Result<()> {
        self.papers.replace(credentials.clone()).context("the certificate given")?;
        tracing::info!("this Mac's certificate was renewed");
        let folder = self.data_folder.clone();
        let written = spawn_blocking(move || keep(&IdentityFolder::open(&folder)?, credentials)).await;
        if let Err(error) = written.map_err(anyhow::Error::from).flatten() {
            tracing::warn!("the renewed certificate is not written down: {error:#}");
        }
        Ok(())
    }
}

/// Puts renewed credentials in the place of those that are kept.
pub(super) fn keep(folder: &IdentityFolder, credentials: Credentials) -> anyhow::Result<()> {
    let Some(kept) = folder.membership()? else { return Ok(()) };
    folder.keep(&kept.renewed(credentials))
}

/// Asks one coordinator.
pub(super) async fn ask(address: &Address, papers: &Papers) -> anyhow::Result<Credentials> {
    timeout(limits::SESSION_OPEN, ask_in_time(address, papers)).await.context("no answer")?
}

async fn ask_in_time(address: &Address, papers: &Papers) -> anyhow::Result<Credentials> {
    let held = papers.credentials();
    let connected = if is_over(validity(&held.certificate_pem)?, now_unix_ms()) {
        anonymous(address, &held.ca_certificate_pem).await
    } else {
        mutual(address, papers).await
    };
    let request = RenewRequest { csr_pem: signing_request(&held.key_pem)? };
    let answer = ClusterClient::new(connected?).renew(request).await;
    let reply = answer.map_err(|status| {
        let words = status.message().to_owned();
        anyhow::Error::new(status).context(words)
    })?;
    let RenewReply { certificate_pem, ca_certificate_pem } = reply.into_inner();
    let (former, given) = (identity(&held.certificate_pem)?, identity(&certificate_pem)?);
    anyhow::ensure!(given == former, "the certificate is {given}'s, not {former}'s");
    Ok(Credentials { certificate_pem, ca_certificate_pem, ..held })
}

/// So many Macs hear the same word at the same moment.
fn spread(dice: u32) -> Duration {
    limits::TURN_SPREAD.mul_f64(f64::from(dice) / f64::from(u32::MAX))
}

fn identity(certificate_pem: &str) -> anyhow::Result<Identity> {
    let leaf = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).context("a certificate")?;
    Ok(Identity::from_leaf(&leaf)?)
}

pub(super) fn validity(certificate_pem: &str) -> anyhow::Result<Validity> {
    let leaf = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).context("a certificate")?;
    Ok(Validity::of_leaf(&leaf)?)
}

pub(super) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
