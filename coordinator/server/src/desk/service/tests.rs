//! The leader's end of a desk with a real scheduler loop: whose requests end with a call, and whose do not.

use consensus::Role;
use registry::Registry;
use scheduler::Class;
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;
use crate::generation::Traits;
use crate::leader::{NewRequest, Past};

const GATEWAY: ReplicaId = ReplicaId(2);

struct Room {
    desks: Desks,
    leader: Leader,
    leading: watch::Sender<Option<Leading>>,
    _stop: tokio_util::sync::DropGuard,
}

/// A gateway's end of a call: what it says, and what it hears.
struct Call {
    says: mpsc::Sender<Result<DeskMessage, Status>>,
    hears: Orders,
}

impl Room {
    fn new() -> Self {
        let stop = CancellationToken::new();
        let (leader, _) = Leader::start(Clock::start(), &Arc::new(Registry::default()), stop.clone());
        let leading = Leading { term: 3, leader: leader.clone(), ended: stop.child_token() };
        Self {
            desks: Desks::default(),
            leader,
            leading: watch::Sender::new(Some(leading)),
            _stop: stop.drop_guard(),
        }
    }

    async fn call(&self, gateway: ReplicaId, term: u64) -> Result<Call, Status> {
        let (says, messages) = mpsc::channel(16);
        let hello = DeskMessage { message: Some(desk_message::Message::Term(term)) };
        says.send(Ok(hello)).await.expect("room for it");
        let leading = self.leading.subscribe();
        let hears = self.desks.serve(gateway, ReceiverStream::new(messages), &leading).await?;
        Ok(Call { says, hears })
    }

    async fn waiting(&self) -> usize {
        self.leader.view().await.waiting.values().sum()
    }
}

impl Call {
    async fn say(&self, saying: Saying) {
        self.says.send(Ok(words::message(saying))).await.expect("the desk is open");
    }

    /// Until the leader says where this request stands.
    async fn told(&mut self) -> RequestId {
        let order = self.hears.next().await.expect("an order").expect("no status");
        words::order(order).expect("known words").0
    }
}

fn request(number: u64) -> NewRequest {
    NewRequest {
        request: RequestId(number),
        model: "m".to_owned(),
        prompt_tokens: 10,
        max_tokens: 10,
        arrived: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(600),
        traits: Traits {
            tenant: 0,
            class: Class::Interactive,
            session: None,
            blocks: [].into(),
            fingerprint: number,
            cache_salt: String::new(),
        },
    }
}

#[tokio::test]
async fn a_gateway_that_goes_takes_its_own_requests_with_it() {
    let room = Room::new();
    let mut going = room.call(GATEWAY, 3).await.expect("served");
    let mut staying = room.call(ReplicaId(3), 3).await.expect("served");
    going.say(Saying::Submit(request(1))).await;
    staying.say(Saying::Submit(request(2))).await;
    assert_eq!((going.told().await, staying.told().await), (RequestId(1), RequestId(2)));
    assert_eq!(room.waiting().await, 2);
    drop(going.says);
    // Its orders end when its requests are forgotten.
    while going.hears.next().await.is_some() {}
    assert_eq!(room.waiting().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_not_heard_holds_nothing() {
    let room = Room::new();
    let mut silent = room.call(GATEWAY, 3).await.expect("served");
    let mut heard = room.call(ReplicaId(3), 3).await.expect("served");
    silent.say(Saying::Submit(request(1))).await;
    heard.say(Saying::Submit(request(2))).await;
    assert_eq!((silent.told().await, heard.told().await), (RequestId(1), RequestId(2)));
    let member = |replica, last_contact| MemberState {
        replica,
        role: Role::Voter,
        address: String::new(),
        leader: false,
        matched_index: None,
        lag: None,
        last_contact: Some(last_contact),
    };
    let late = limits::DESK_SILENCE;
    let members = [member(GATEWAY, late), member(ReplicaId(3), late - Duration::from_millis(1))];
    // What was heard of it before it called says nothing.
    room.desks.close_silent(&members).await;
    assert_eq!(room.waiting().await, 2);
    tokio::time::sleep(late).await;
    room.desks.close_silent(&members).await;
    while silent.hears.next().await.is_some() {}
    assert_eq!(room.waiting().await, 1);
}

#[tokio::test]
async fn a_gateway_that_calls_again_loses_nothing_to_its_call_before() {
    let room = Room::new();
    // A line that broke without a word: nobody hangs up at this end.
    let mut silent = room.call(GATEWAY, 3).await.expect("served");
    silent.say(Saying::Submit(request(1))).await;
    assert_eq!(silent.told().await, RequestId(1));

    let mut again = room.call(GATEWAY, 3).await.expect("served");
    again.say(Saying::Adopt(request(1), Past::default())).await;
    assert_eq!(again.told().await, RequestId(1));
    drop(silent.says);
    while silent.hears.next().await.is_some() {}
    assert_eq!(room.waiting().await, 1, "the end of the old call ended what was told at the new one");
}

#[tokio::test]
async fn a_gateway_of_another_term_or_without_one_is_refused() {
    let room = Room::new();
    for term in [2, 4] {
        let refused = room.call(GATEWAY, term).await.err().expect("refused");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    }
    room.leading.send_replace(None);
    assert_eq!(room.call(GATEWAY, 3).await.err().expect("refused").code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn a_gateway_that_goes_gives_its_claims_free_and_no_others() {
    let room = Room::new();
    let mut going = room.call(GATEWAY, 3).await.expect("served");
    let mut staying = room.call(ReplicaId(3), 3).await.expect("served");
    let asking = crate::claims::Asking {
        key: registry::KeyId("0a".to_owned()),
        model: "m".to_owned(),
        tenant: 1,
        prompt_tokens: 1,
        answers: 1,
        max_tokens: 1,
        asked: true,
    };
    let claim = |number| Saying::Claim(Word::Claim(RequestId(number), asking.clone()));
    going.say(claim(1)).await;
    staying.say(claim(2)).await;
    assert_eq!((going.told().await, staying.told().await), (RequestId(1), RequestId(2)));
    drop(going.says);
    while going.hears.next().await.is_some() {}
    // Settled already, or not there: either way a word about it changes nothing, and the desk goes on.
    staying.say(Saying::Claim(Word::Settled { number: RequestId(1), tokens: 9 })).await;
    staying.say(claim(3)).await;
    assert_eq!(staying.told().await, RequestId(3));
}
