//! A registry without a group behind it: commands take effect at once.
//!
//! Owns the stage's facts and the ways to change them as administrators do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use consensus::{MemberState, ProposeError, ReplicaId, Role};
use futures_util::future::BoxFuture;
use proto::token::{JoinToken, SECRET_BYTES};
use registry::{CaStep, ClusterId, ClusterVersion, Command, Registry, Reply};
use serde_json::Value;
use tokio::sync::watch;

use super::stage::{Reply as Answer, Stage, request};
use crate::gateway::Room;
use crate::gateway::admin::change::Propose;

pub(super) struct Facts {
    registry: watch::Sender<Arc<Registry>>,
    /// What is answered instead of doing anything, the next one last.
    failures: Mutex<Vec<ProposeError>>,
    /// What becomes of a command.
    fate: Mutex<fn(&Command) -> Fate>,
    proposed: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    /// It takes effect, and nobody hears of it.
    Unheard,
    /// It never arrives, which nobody hears either.
    Lost,
}

impl Facts {
    pub(super) fn founded() -> Arc<Self> {
        let mut registry = Registry::default();
        let founding = Command::FoundCluster {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: 1,
        };
        assert_eq!(registry.apply(&founding), Reply::Done);
        let risen = Command::RaiseVersion { to: ClusterVersion::NEWEST, at_unix_ms: 1 };
        assert_eq!(registry.apply(&risen), Reply::Done);
        let registry = watch::Sender::new(Arc::new(registry));
        let fate = Mutex::new((|_: &Command| Fate::Answered) as fn(&Command) -> Fate);
        Arc::new(Self { registry, failures: Mutex::default(), fate, proposed: AtomicUsize::new(0) })
    }

    pub(super) fn registry(&self) -> watch::Receiver<Arc<Registry>> {
        self.registry.subscribe()
    }

    pub(super) fn now(&self) -> Arc<Registry> {
        self.registry.borrow().clone()
    }

    pub(super) fn apply(&self, command: &Command) -> Reply {
        let mut reply = Reply::AlreadySo;
        self.registry.send_modify(|registry| reply = Arc::make_mut(registry).apply(command));
        reply
    }

    /// To the first version of the cluster, as a group that is being updated has it.
    pub(super) fn set_back(&self) {
        let mut facts = serde_json::to_value(self.now().as_ref()).expect("JSON");
        facts.as_object_mut().expect("an object").remove("cluster_version");
        self.registry.send_replace(Arc::new(serde_json::from_value(facts).expect("facts")));
    }

    pub(super) fn fail_with(&self, errors: Vec<ProposeError>) {
        *self.failures.lock().unwrap() = errors;
    }

    pub(super) fn decide(&self, fate: fn(&Command) -> Fate) {
        *self.fate.lock().unwrap() = fate;
    }

    /// How often something was said to the registry.
    pub(super) fn proposed(&self) -> usize {
        self.proposed.load(Ordering::Relaxed)
    }
}

impl Propose for Facts {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Reply, ProposeError>> {
        Box::pin(async move {
            self.proposed.fetch_add(1, Ordering::Relaxed);
            if let Some(failure) = self.failures.lock().unwrap().pop() {
                return Err(failure);
            }
            let fate = (*self.fate.lock().unwrap())(&command);
            let reply = (fate != Fate::Lost).then(|| self.apply(&command));
            let unknown = || ProposeError::OutcomeUnknown("no majority".to_owned());
            reply.filter(|_| fate == Fate::Answered).ok_or_else(unknown)
        })
    }

    fn newest(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Coordinators 1, 2 and 3 vote.
pub(super) struct OneRoom;

impl Room for OneRoom {
    fn new_token(&self) -> anyhow::Result<(JoinToken, [u8; 32])> {
        let secret = vec![7; SECRET_BYTES];
        let hash = JoinToken::secret_hash(&secret);
        Ok((JoinToken { ca_hash: [1; 32], id: "t0".to_owned(), secret }, hash))
    }

    fn group(&self) -> Vec<MemberState> {
        let member = |replica| MemberState {
            replica: ReplicaId(replica),
            role: Role::Voter,
            address: String::new(),
            leader: replica == 1,
            matched_index: None,
            lag: None,
            last_contact: None,
        };
        [1, 2, 3].map(member).to_vec()
    }

    fn rotation(&self) -> anyhow::Result<Command> {
        let step = CaStep::Begin {
            ca_certificate_pem: "another".to_owned(),
            cross_certificate_pem: "certified".to_owned(),
            sealed_ca_key: "0b".to_owned(),
            sealed_hash_key: "0c".to_owned(),
            until_unix_ms: 90,
        };
        Ok(Command::RotateCa { number: 1, step, at_unix_ms: 10 })
    }
}

impl Stage {
    /// With a key, as a client sends it.
    pub(super) async fn with_key(&self, method: &str, path: &str, key: &str, body: Option<&Value>) -> Answer {
        let asked = request(method, path).header("authorization", format!("Bearer {key}"));
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(asked.body(body).unwrap()).await
    }

    /// As whoever can read the coordinator's folder.
    pub(super) async fn administer(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.with_key(method, &format!("/api/v1/admin{path}"), &self.local_key, body).await
    }

    /// A new key: its id and its text.
    pub(super) async fn new_key(&self, body: &Value) -> (String, String) {
        let made = self.administer("POST", "/keys", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let made = made.json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        (text(&made["key"]["id"]), text(&made["secret"]))
    }
}
