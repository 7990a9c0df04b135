//! One connection to each other replica, shared by heartbeats, entries, votes, snapshots and forwarded calls.
//!
//! Dialling runs in a task of its own: who waits for it may give up (a heartbeat does after a tenth of a second) without
//! ending it. A failure is remembered until [`limits::REDIAL_PAUSE`] has passed, so that no number of askers dials an
//! unreachable peer more often. A connection that is asked and does not answer for [`limits::LINK_SILENCE_MAX`] is given up: a
//! machine that vanished leaves one that looks alive for minutes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use proto::raft::replica_client::ReplicaClient;
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::transport::Channel;

use crate::dial::Dial;
use crate::limits;
use crate::options::ReplicaId;

type Dialling = Shared<BoxFuture<'static, Result<Channel, Arc<str>>>>;

/// All connections of this replica.
pub(crate) struct Links {
    dial: Arc<dyn Dial>,
    links: Mutex<BTreeMap<ReplicaId, Arc<Link>>>,
}

impl Links {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Links {
        Links { dial, links: Mutex::default() }
    }

    /// The connection to a replica that is reached at this address; another address ends the former one.
    pub(crate) fn to(&self, replica: ReplicaId, address: &str) -> Arc<Link> {
        let mut links = lock(&self.links);
        let link = links.entry(replica).or_insert_with(|| {
            let state = Mutex::new(State::default());
            Arc::new(Link { replica, dial: Arc::clone(&self.dial), state })
        });
        link.readdress(address);
        Arc::clone(link)
    }

    /// Ends the connections to replicas that are members no longer.
    pub(crate) fn forget_all_but(&self, is_member: impl Fn(ReplicaId) -> bool) {
        lock(&self.links).retain(|replica, _| is_member(*replica));
    }

    /// How long ago the replica answered something.
    pub(crate) fn last_contact(&self, replica: ReplicaId) -> Option<Duration> {
        let link = lock(&self.links).get(&replica).cloned()?;
        let answered = lock(&link.state).answered;
        answered.map(|at| at.elapsed())
    }
}

/// The connection to one replica.
pub(crate) struct Link {
    replica: ReplicaId,
    dial: Arc<dyn Dial>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    address: String,
    /// The connection, or the attempt to have one, or its failure.
    dialling: Option<Dialling>,
    dialled: Option<Instant>,
    /// Since when something was asked and nothing answered.
    unanswered: Option<Instant>,
    answered: Option<Instant>,
}

impl Link {
    pub(crate) fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// A client for one call; the call is counted as asked from here on.
    ///
    /// # Errors
    /// Why there is no connection. Nothing was sent.
    pub(crate) async fn client(&self) -> Result<ReplicaClient<Channel>, String> {
        let dialling = self.dialling();
        let channel = dialling.await.map_err(|why| why.to_string())?;
        lock(&self.state).unanswered.get_or_insert_with(Instant::now);
        Ok(ReplicaClient::new(channel)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX))
    }

    /// The replica answered, whatever it said.
    pub(crate) fn answered(&self) {
        let mut state = lock(&self.state);
        state.unanswered = None;
        state.answered = Some(Instant::now());
    }

    /// A call ended without an answer: the next one dials anew.
    pub(crate) fn broken(&self, why: &str) {
        let mut state = lock(&self.state);
        let why: Arc<str> = Arc::from(why);
        state.dialling = Some(futures_util::future::ready(Err(why)).boxed().shared());
        state.unanswered = None;
    }

    /// What a status says of the connection: an answer of the other side, or that there is none.
    pub(crate) fn note(&self, status: &Status) {
        match status.code() {
            tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
                self.broken(status.message());
            }
            tonic::Code::Ok
            | tonic::Code::InvalidArgument
            | tonic::Code::DeadlineExceeded
            | tonic::Code::NotFound
            | tonic::Code::AlreadyExists
            | tonic::Code::PermissionDenied
            | tonic::Code::ResourceExhausted
            | tonic::Code::FailedPrecondition
            | tonic::Code::Aborted
            | tonic::Code::OutOfRange
            | tonic::Code::Unimplemented
            | tonic::Code::Internal
            | tonic::Code::DataLoss
            | tonic::Code::Unauthenticated => self.answered(),
        }
    }

    fn readdress(&self, address: &str) {
        let mut state = lock(&self.state);
        if state.address != address {
            *state = State { address: address.to_owned(), answered: state.answered, ..State::default() };
        }
    }

    /// The connection as it is, or a new attempt where there is none or it is no good.
    fn dialling(&self) -> Dialling {
        let mut state = lock(&self.state);
        let silent = state.unanswered.is_some_and(|since| since.elapsed() >= limits::LINK_SILENCE_MAX);
        let rested = state.dialled.is_none_or(|at| at.elapsed() >= limits::REDIAL_PAUSE);
        if let Some(dialling) = &state.dialling {
            let failed = matches!(dialling.peek(), Some(Err(_)));
            let anew = silent || (failed && rested);
            if !anew {
                return dialling.clone();
            }
        }
        let dialling = self.start(&state.address);
        state.dialling = Some(dialling.clone());
        state.dialled = Some(Instant::now());
        state.unanswered = None;
        dialling
    }

    fn start(&self, address: &str) -> Dialling {
        let (replica, at) = (self.replica, address.to_owned());
        let dial = self.dial.dial(replica, address);
        let task = tokio::spawn(async move {
            let why = match timeout(limits::DIAL_WAIT, dial).await {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(why)) => why,
                Err(_) => format!("no connection within {} ms", limits::DIAL_WAIT.as_millis()),
            };
            Err(Arc::from(format!("replica {replica} is not reached at {at}: {why}")))
        });
        task.map(|ended| ended.unwrap_or_else(|_| Err(Arc::from("dialling ended")))).boxed().shared()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in these sections can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
