//! How one coordinator reaches another. Injected, so that certificates stay the server's business and tests can cut cables.

use std::fmt;

use futures_util::future::BoxFuture;
use tonic::transport::Channel;

use crate::options::ReplicaId;

/// Opens connections to other replicas.
///
/// The channel must be authenticated: what arrives through it is believed to be from whoever its certificate names. Keep-alive
/// is welcome, but nothing here depends on it: a channel that stays silent is given up and dialled anew.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `replica`, which is reached at `address`. May be dropped at any moment.
    fn dial(&self, replica: ReplicaId, address: &str) -> BoxFuture<'static, Result<Channel, String>>;
}

/// The dialler of a coordinator that has nobody to talk to.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDial;

impl Dial for NoDial {
    fn dial(&self, _replica: ReplicaId, _address: &str) -> BoxFuture<'static, Result<Channel, String>> {
        Box::pin(async { Err("this coordinator was started without a way to others".to_owned()) })
    }
}

impl fmt::Debug for dyn Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}
