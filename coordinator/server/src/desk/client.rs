//! The calling end of a far desk: one gRPC call to the leader on another machine.
//!
//! Owns the call and its end. A new leader is told thousands of requests at once, more than are ever on their way to the wire, so it
//! waits for the wire as long as the wire moves. Refuses to wait longer: a leader that takes nothing is as good as gone, and whoever
//! is asked next is told everything anyway.

use std::future::Future;

use consensus::ReplicaId;
use futures_util::FutureExt as _;
use proto::v1::cluster_client::ClusterClient;
use proto::v1::{DeskMessage, DeskOrder, desk_message};
use tokio::sync::mpsc;
use tokio::time::timeout;
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
    /// Whether it is on its way.
    pub(crate) async fn say(&self, saying: Saying) -> bool {
        if self.end.is_cancelled() {
            return false;
        }
        let sent = timeout(limits::SESSION_TIMEOUT, self.outbox.send(words::message(saying))).await;
        let sent = matches!(sent, Ok(Ok(())));
        if !sent {
            self.end.cancel();
        }
        sent
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
    let opened = timeout(limits::PEER_CONNECT, opening).await;
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

#[cfg(test)]
pub(crate) mod tests {
    use scheduler::RequestId;

    use super::*;

    /// A call without its wire: what would go over it comes out.
    pub(crate) fn far() -> (Far, mpsc::Receiver<DeskMessage>, CancellationToken) {
        let (outbox, wire) = mpsc::channel(limits::DESK_OUTBOX);
        let end = CancellationToken::new();
        (Far { outbox, _guard: end.clone().drop_guard(), end: end.clone() }, wire, end)
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_takes_nothing_is_left_and_one_that_is_only_slow_is_not() {
        let (far, mut wire, end) = far();
        let words = |count: usize| (0..count).map(|_| Saying::Cancel(RequestId(1)));
        let slow = async {
            for _ in 0..limits::DESK_OUTBOX {
                tokio::time::sleep(limits::SESSION_TIMEOUT / 10).await;
                wire.recv().await.expect("the call goes on");
            }
        };
        let speaking = async {
            for saying in words(2 * limits::DESK_OUTBOX) {
                assert!(far.say(saying).await);
            }
        };
        tokio::join!(slow, speaking);
        assert!(!end.is_cancelled());
        let before = tokio::time::Instant::now();
        assert!(!far.say(Saying::Cancel(RequestId(1))).await);
        assert!(end.is_cancelled());
        assert!(!far.say(Saying::Cancel(RequestId(1))).await);
        assert_eq!(before.elapsed(), limits::SESSION_TIMEOUT, "it is waited for once");
    }
}
