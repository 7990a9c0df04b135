//! More requests than are ever on their way to a leader on another machine, told to it at once.

use proto::v1::{DeskMessage, desk_message};

use super::*;

/// So many live requests, every other one of them accepted by an earlier leader, and an open desk on another machine.
struct Crowd {
    counter: Counter,
    elected: Elected,
    wire: mpsc::Receiver<DeskMessage>,
    end: CancellationToken,
    _orders: mpsc::Receiver<Told>,
}

const OUTBOX: u64 = limits::DESK_OUTBOX as u64;

impl Crowd {
    fn of(count: u64) -> Self {
        let elected = Elected::nobody();
        elected.elect_other(1, 2);
        let (told, _orders) = mpsc::channel(limits::FRONT_INBOX);
        let (inbox, _) = mpsc::channel(1);
        let (far, wire, end) = desk::far();
        let desks = Desks {
            ways: elected.ways(),
            told,
            inbox: inbox.downgrade(),
            number: 1,
            state: State::Open(Desk::Far(far)),
            sought: Some((1, ReplicaId(2))),
        };
        let entry = |number| {
            let (line, _) = mpsc::channel(1);
            let new = new(RequestId(number));
            (RequestId(number), Entry { new, past: Past::default(), offered: was_accepted(number), line })
        };
        let live = (1..=count).map(entry).collect();
        let counter = Counter { live, claims: Claims::default(), desks };
        Self { counter, elected, wire, end, _orders }
    }

    fn offered(&self) -> Vec<u64> {
        let offered = self.counter.live.iter().filter(|(_, entry)| entry.offered);
        offered.map(|(request, _)| request.0).collect()
    }
}

fn was_accepted(number: u64) -> bool {
    number.is_multiple_of(2)
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_hears_of_all_that_lives_however_many_that_are() {
    let mut crowd = Crowd::of(3 * OUTBOX);
    let wire = &mut crowd.wire;
    let hearing = async {
        let mut heard = Vec::new();
        while heard.len() < 3 * limits::DESK_OUTBOX {
            let Some(message) = wire.recv().await else { break };
            let Some(desk_message::Message::Submit(submit)) = message.message else {
                panic!("no submission")
            };
            heard.push((submit.request, submit.accepted));
        }
        heard
    };
    let hearing = tokio::time::timeout(Duration::from_secs(60), hearing);
    let ((), heard) = tokio::join!(crowd.counter.offer_all(), hearing);
    let heard = heard.expect("told of all");
    let all: Vec<_> = (1..=3 * OUTBOX).map(|number| (number, was_accepted(number))).collect();
    assert_eq!(heard, all);
    assert!(!crowd.end.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_could_not_be_told_is_for_the_next_one_what_it_was() {
    let mut crowd = Crowd::of(2 * OUTBOX);
    crowd.counter.offer_all().await;
    assert!(crowd.end.is_cancelled(), "a leader that takes nothing is left");
    let expected: Vec<_> =
        (1..=2 * OUTBOX).filter(|number| *number <= OUTBOX || was_accepted(*number)).collect();
    assert_eq!(crowd.offered(), expected);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_leader_that_leads_no_more() {
    let mut crowd = Crowd::of(2 * OUTBOX);
    let before = Instant::now();
    let elected = &crowd.elected;
    let voting = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        elected.elect_other(2, 3);
    };
    tokio::join!(crowd.counter.offer_all(), voting);
    assert_eq!(before.elapsed(), Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_none_for_a_moment_hears_of_all_that_lives() {
    let all = 2 * OUTBOX;
    let Crowd { mut counter, elected, mut wire, end: _end, _orders } = Crowd::of(all);
    let flapping = async {
        elected.depose(1);
        tokio::task::yield_now().await;
        elected.elect_other(1, 2);
    };
    // As far as it goes in one go: the outbox is full when the leader is none.
    tokio::join!(biased; tokio::task::unconstrained(counter.offer_all()), flapping);
    assert!(counter.live.values().any(|entry| !entry.offered), "not everything was said");
    counter.desks.seek();
    // Where another desk is sought, it is found.
    let is_sought = matches!(counter.desks.state, State::Seeking);
    let (far, next_wire, _end) = desk::far();
    if is_sought {
        wire = next_wire;
    }
    let offering = async {
        if is_sought {
            counter.take(Message::Desk(counter.desks.number, Some(Desk::Far(far)))).await;
        }
    };
    let hearing = async {
        let mut heard = std::collections::BTreeSet::new();
        while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(1), wire.recv()).await {
            if let Some(desk_message::Message::Submit(submit)) = message.message {
                heard.insert(submit.request);
            }
        }
        heard
    };
    let ((), heard) = tokio::join!(offering, hearing);
    assert_eq!(heard, (1..=all).collect());
}
