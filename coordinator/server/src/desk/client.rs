//! The calling end of a far desk: one gRPC call to the leader on another machine.
//!
//! Owns the call and its end. Refuses to wait for the wire: a leader that does not keep up is as good as gone, and whoever is
//! asked next is told everything anyway.

use std::future::Future;

use consensus::ReplicaId;
use futures_util::FutureExt as _;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{DeskMessage, DeskOrder, desk_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;

use super::{Saying, words};
use crate::front::Told;
use crate::limits;
use crate::peers::Peers;

/// Dropping it ends the call.
pub(crate) struct Far {
    outbox: mpsc::Sender<DeskMessage>,
    end: CancellationToken,
    _guard: DropGuard,
}

impl Far {
    pub(crate) async fn say(&self, saying: Saying) {
        if self.outbox.try_send(words::message(saying)).is_err() {
            self.end.cancel();
        }
    }
}

/// Opens a desk at `leader`. The future that comes with it resolves, with the reason, when the call has ended.
pub(crate) async fn dial(
    peers: &Peers,
    leader: ReplicaId,
    address: &str,
    term: u64,
    number: u64,
    told: mpsc::Sender<Told>,
) -> Result<(Far, impl Future<Output = String> + use<>), String> {
    let channel = peers.connect(leader, address).await?;
    let (outbox, outgoing) = mpsc::channel(limits::DESK_OUTBOX);
    let hello = DeskMessage { message: Some(desk_message::Message::Term(term)) };
    outbox.try_send(hello).map_err(|error| error.to_string())?;
    let mut client = ClusterClient::new(channel);
    let opening = client.desk(ReceiverStream::new(outgoing));
    let opened = tokio::time::timeout(limits::PEER_CONNECT, opening).await;
    let orders = opened.map_err(|_| "no answer".to_owned())?.map_err(|status| status.message().to_owned())?;
    let end = CancellationToken::new();
    let reading =
        tokio::spawn(end.clone().run_until_cancelled_owned(read(orders.into_inner(), number, told)));
    let ended = reading.map(|ended| match ended {
        Ok(Some(why)) => why,
        Ok(None) => "it was left, or did not keep up".to_owned(),
        Err(error) => error.to_string(),
    });
    Ok((Far { outbox, _guard: end.clone().drop_guard(), end }, ended))
}

/// Orders from the wire to the front, until the wire ends; returns why it did.
async fn read(mut orders: Streaming<DeskOrder>, desk: u64, told: mpsc::Sender<Told>) -> String {
    loop {
        match orders.message().await {
            Ok(Some(order)) => {
                // An order of a later version: the leader says what matters in words we know.
                let Some((request, order)) = words::order(order) else { continue };
                if told.send(Told { desk, request, order }).await.is_err() {
                    return "the front stops".to_owned();
                }
            }
            Ok(None) => return "the leader ended it".to_owned(),
            Err(status) => return status.message().to_owned(),
        }
    }
}
