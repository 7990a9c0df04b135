//! What is said at a desk, as it goes over the wire, and back.
//!
//! Owns the translation. Refuses what a later version says: it is told as nothing. Times travel as spans, because two machines'
//! clocks have nothing in common.

use std::time::Duration;

use proto::v1::{
    DeskAffinity, DeskBegan, DeskFinished, DeskMessage, DeskOrder, DeskOutcome, DeskRefusal, DeskRefused,
    DeskRun, DeskSubmit, DeskWait, desk_message, desk_order,
};
use scheduler::{AbortReason, Class, Failure, Outcome, Refusal, RequestId, Span, Usage, WhyNot};
use tokio::time::Instant;

use super::{Saying, claim_words};
use crate::generation::Traits;
use crate::leader::{NewRequest, Order, Past};

pub(super) fn message(saying: Saying) -> DeskMessage {
    use desk_message::Message;
    let message = match saying {
        Saying::Submit(new) => Message::Submit(submit(&new, Past::default())),
        Saying::Adopt(new, past) => Message::Submit(DeskSubmit { accepted: true, ..submit(&new, past) }),
        Saying::Cancel(request) => Message::Cancel(request.0),
        Saying::Began { request, attempt } => Message::Began(DeskBegan { request: request.0, attempt }),
        Saying::Finished { request, attempt, outcome, usage } => Message::Finished(DeskFinished {
            request: request.0,
            attempt,
            outcome: outcome_on_wire(outcome).into(),
            enough: outcome == Outcome::Enough,
            generated: usage.generated,
            cached_tokens: usage.cached_tokens,
            prefill_us: usage.prefill.0,
            held_us: usage.held.0,
        }),
        Saying::Claim(word) => claim_words::message(word),
    };
    DeskMessage { message: Some(message) }
}

pub(super) fn saying(message: DeskMessage) -> Option<Saying> {
    use desk_message::Message;
    Some(match message.message? {
        Message::Term(_) => return None,
        Message::Claim(claim) => Saying::Claim(claim_words::claimed(claim)),
        Message::Settled(settled) => Saying::Claim(claim_words::settled(settled)),
        Message::Spent(spent) => Saying::Claim(claim_words::spent(spent)),
        Message::Submit(submit) => {
            let past = Past {
                attempts: submit.attempts,
                running: (submit.node > 0).then_some((submit.node, submit.began)),
            };
            if submit.accepted { Saying::Adopt(new(submit), past) } else { Saying::Submit(new(submit)) }
        }
        Message::Cancel(request) => Saying::Cancel(RequestId(request)),
        Message::Began(began) => Saying::Began { request: RequestId(began.request), attempt: began.attempt },
        Message::Finished(finished) => Saying::Finished {
            request: RequestId(finished.request),
            attempt: finished.attempt,
            outcome: outcome(finished.outcome(), finished.enough)?,
            usage: Usage {
                generated: finished.generated,
                cached_tokens: finished.cached_tokens,
                prefill: Span(finished.prefill_us),
                held: Span(finished.held_us),
            },
        },
    })
}

pub(super) fn told(request: RequestId, order: Order) -> DeskOrder {
    use desk_order::Order as Wire;
    let order = match order {
        Order::Wait { ahead, eta, loading } => {
            Wire::Wait(DeskWait { ahead, eta_us: eta.map(micros), loading })
        }
        Order::Run { attempt, node, affinity, prefill_chunk } => {
            let affinity = affinity_on_wire(affinity).into();
            Wire::Run(DeskRun { attempt, node, affinity, prefill_chunk })
        }
        Order::Refused { refusal, words } => {
            let (refusal, span) = refusal_on_wire(&refusal);
            Wire::Refused(DeskRefused { refusal: refusal.into(), span_us: span.0, words })
        }
        Order::Stop(AbortReason::DeadlineExceeded) => Wire::Stop(true),
        Order::Verdict(verdict) => Wire::Verdict(claim_words::verdict_on_wire(verdict)),
    };
    DeskOrder { request: request.0, order: Some(order) }
}

pub(super) fn order(order: DeskOrder) -> Option<(RequestId, Order)> {
    use desk_order::Order as Wire;
    let told = match order.order? {
        Wire::Wait(DeskWait { ahead, eta_us, loading }) => {
            Order::Wait { ahead, eta: eta_us.map(Duration::from_micros), loading }
        }
        Wire::Run(run) => {
            let affinity = affinity(run.affinity());
            let DeskRun { attempt, node, prefill_chunk, .. } = run;
            Order::Run { attempt, node, affinity, prefill_chunk }
        }
        Wire::Refused(refused) => {
            let refusal = refusal(refused.refusal(), Span(refused.span_us))?;
            Order::Refused { refusal, words: refused.words }
        }
        Wire::Stop(_) => Order::Stop(AbortReason::DeadlineExceeded),
        Wire::Verdict(verdict) => Order::Verdict(claim_words::verdict(verdict)),
    };
    Some((RequestId(order.request), told))
}

fn submit(new: &NewRequest, past: Past) -> DeskSubmit {
    let now = Instant::now();
    let (node, began) = past.running.unwrap_or_default();
    DeskSubmit {
        request: new.request.0,
        model: new.model.clone(),
        prompt_tokens: new.prompt_tokens,
        max_tokens: new.max_tokens,
        waited_us: micros(now.saturating_duration_since(new.arrived)),
        left_us: micros(new.deadline.saturating_duration_since(now)),
        tenant: new.traits.tenant,
        batch: new.traits.class == Class::Batch,
        session: new.traits.session,
        blocks: new.traits.blocks.to_vec(),
        fingerprint: new.traits.fingerprint,
        attempts: past.attempts,
        node,
        began,
        accepted: false,
    }
}

fn new(submit: DeskSubmit) -> NewRequest {
    let now = Instant::now();
    let later = |span_us| now.checked_add(Duration::from_micros(span_us));
    NewRequest {
        request: RequestId(submit.request),
        model: submit.model,
        prompt_tokens: submit.prompt_tokens,
        max_tokens: submit.max_tokens,
        arrived: now.checked_sub(Duration::from_micros(submit.waited_us)).unwrap_or(now),
        // A span that no clock can hold is none.
        deadline: later(submit.left_us).unwrap_or(now),
        traits: Traits {
            tenant: submit.tenant,
            class: if submit.batch { Class::Batch } else { Class::Interactive },
            session: submit.session,
            blocks: submit.blocks.into(),
            fingerprint: submit.fingerprint,
            // The runtime hears of it from the gateway itself.
            cache_salt: String::new(),
        },
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn outcome_on_wire(outcome: Outcome) -> DeskOutcome {
    match outcome {
        Outcome::Completed => DeskOutcome::Completed,
        // A leader of an earlier version frees the slot, and thinks no more of it.
        Outcome::Enough | Outcome::ClientGone => DeskOutcome::ClientGone,
        Outcome::Rejected => DeskOutcome::Rejected,
        Outcome::Busy => DeskOutcome::Busy,
        Outcome::NotThere => DeskOutcome::NotThere,
        Outcome::Failed(Failure::Reset) => DeskOutcome::Reset,
        Outcome::Failed(Failure::RuntimeExit) => DeskOutcome::RuntimeExit,
        Outcome::Failed(Failure::Hang) => DeskOutcome::Hang,
        Outcome::Failed(Failure::Corrupt) => DeskOutcome::Corrupt,
        Outcome::Failed(Failure::Internal) => DeskOutcome::Internal,
    }
}

fn outcome(outcome: DeskOutcome, enough: bool) -> Option<Outcome> {
    Some(match outcome {
        DeskOutcome::Unspecified => return None,
        DeskOutcome::Completed => Outcome::Completed,
        DeskOutcome::ClientGone if enough => Outcome::Enough,
        DeskOutcome::ClientGone => Outcome::ClientGone,
        DeskOutcome::Rejected => Outcome::Rejected,
        DeskOutcome::Busy => Outcome::Busy,
        DeskOutcome::NotThere => Outcome::NotThere,
        DeskOutcome::Reset => Outcome::Failed(Failure::Reset),
        DeskOutcome::RuntimeExit => Outcome::Failed(Failure::RuntimeExit),
        DeskOutcome::Hang => Outcome::Failed(Failure::Hang),
        DeskOutcome::Corrupt => Outcome::Failed(Failure::Corrupt),
        DeskOutcome::Internal => Outcome::Failed(Failure::Internal),
    })
}

/// The words that a gateway puts into its answer's header.
fn affinity(affinity: DeskAffinity) -> &'static str {
    match affinity {
        DeskAffinity::Resident => "resident",
        DeskAffinity::Prefix => "prefix",
        DeskAffinity::Session => "session",
    }
}

fn affinity_on_wire(affinity: &str) -> DeskAffinity {
    match affinity {
        "prefix" => DeskAffinity::Prefix,
        "session" => DeskAffinity::Session,
        _ => DeskAffinity::Resident,
    }
}

fn refusal_on_wire(refusal: &Refusal) -> (DeskRefusal, Span) {
    match refusal {
        Refusal::QueueFull { retry_after } => (DeskRefusal::QueueFull, *retry_after),
        Refusal::Shed { retry_after } => (DeskRefusal::Shed, *retry_after),
        Refusal::DeadlineUnreachable { needed } => (DeskRefusal::DeadlineUnreachable, *needed),
        Refusal::Expired => (DeskRefusal::Expired, Span::ZERO),
        Refusal::NodeLost => (DeskRefusal::NodeLost, Span::ZERO),
        Refusal::Duplicate => (DeskRefusal::Duplicate, Span::ZERO),
        Refusal::Quarantined => (DeskRefusal::Quarantined, Span::ZERO),
        Refusal::NoCapacity(_) => (DeskRefusal::NoCapacity, Span::ZERO),
    }
}

fn refusal(refusal: DeskRefusal, span: Span) -> Option<Refusal> {
    Some(match refusal {
        DeskRefusal::Unspecified => return None,
        DeskRefusal::QueueFull => Refusal::QueueFull { retry_after: span },
        DeskRefusal::Shed => Refusal::Shed { retry_after: span },
        DeskRefusal::DeadlineUnreachable => Refusal::DeadlineUnreachable { needed: span },
        DeskRefusal::Expired => Refusal::Expired,
        DeskRefusal::NodeLost => Refusal::NodeLost,
        DeskRefusal::Duplicate => Refusal::Duplicate,
        DeskRefusal::Quarantined => Refusal::Quarantined,
        // Why is in the words that come with it.
        DeskRefusal::NoCapacity => Refusal::NoCapacity(WhyNot::NotOffered),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use prost::Message as _;

    fn request() -> NewRequest {
        NewRequest {
            request: RequestId(9),
            model: "m".to_owned(),
            prompt_tokens: 10,
            max_tokens: 20,
            arrived: Instant::now(),
            deadline: Instant::now() + Duration::from_secs(60),
            traits: Traits {
                tenant: 3,
                class: Class::Batch,
                session: Some(4),
                blocks: [5, 6].into(),
                fingerprint: 7,
                cache_salt: String::new(),
            },
        }
    }

    /// Everything but moments, which the wire moves a little.
    fn told(saying: &Saying) -> String {
        let without_times = |new: &NewRequest| {
            let NewRequest { request, model, prompt_tokens, max_tokens, traits, .. } = new;
            format!("{request:?} {model} {prompt_tokens} {max_tokens} {traits:?}")
        };
        match saying {
            Saying::Submit(new) => format!("submit {}", without_times(new)),
            Saying::Adopt(new, past) => format!("adopt {} {past:?}", without_times(new)),
            Saying::Cancel(_) | Saying::Began { .. } | Saying::Finished { .. } | Saying::Claim(_) => {
                format!("{saying:?}")
            }
        }
    }

    #[test]
    fn what_is_said_arrives_as_it_was() {
        let usage = Usage { generated: 1, cached_tokens: 2, prefill: Span(3), held: Span(4) };
        let failures =
            [Failure::Reset, Failure::RuntimeExit, Failure::Hang, Failure::Corrupt, Failure::Internal];
        let plain = [
            Outcome::Completed,
            Outcome::Enough,
            Outcome::ClientGone,
            Outcome::Rejected,
            Outcome::Busy,
            Outcome::NotThere,
        ];
        let outcomes = plain.into_iter().chain(failures.map(Outcome::Failed));
        let ends =
            outcomes.map(|outcome| Saying::Finished { request: RequestId(9), attempt: 2, outcome, usage });
        let pasts = [
            Past::default(),
            Past { attempts: 2, running: None },
            Past { attempts: 1, running: Some((4, false)) },
            Past { attempts: 3, running: Some((4, true)) },
        ];
        let mut sayings: Vec<Saying> = ends.collect();
        sayings.extend(pasts.map(|past| Saying::Adopt(request(), past)));
        sayings.push(Saying::Submit(request()));
        sayings.push(Saying::Cancel(RequestId(9)));
        sayings.push(Saying::Began { request: RequestId(9), attempt: 2 });
        for said in sayings {
            let heard = saying(message(said.clone())).expect("known words");
            assert_eq!(told(&heard), told(&said));
        }
    }

    #[test]
    fn a_leader_of_an_earlier_version_hears_of_an_answer_cut_short_as_of_a_hang_up() {
        let usage = Usage::default();
        let said = Saying::Finished { request: RequestId(9), attempt: 2, outcome: Outcome::Enough, usage };
        let Some(desk_message::Message::Finished(finished)) = message(said).message else {
            panic!("no end of an attempt")
        };
        assert_eq!((finished.outcome(), finished.enough), (DeskOutcome::ClientGone, true));
        assert_eq!(outcome(finished.outcome(), false), Some(Outcome::ClientGone));
    }

    #[test]
    fn a_deadline_and_an_age_survive_the_journey() {
        let old = Instant::now().checked_sub(Duration::from_secs(5)).expect("a clock that runs");
        let Some(Saying::Submit(heard)) =
            saying(message(Saying::Submit(NewRequest { arrived: old, ..request() })))
        else {
            panic!("not a submission")
        };
        let age = heard.arrived.elapsed();
        assert!(age >= Duration::from_secs(5) && age < Duration::from_secs(15), "{age:?}");
        let left = heard.deadline.saturating_duration_since(Instant::now());
        assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(50), "{left:?}");
    }

    #[test]
    fn an_order_arrives_as_it_was() {
        let second = Span::from_s(1);
        let refusals = [
            Refusal::QueueFull { retry_after: second },
            Refusal::Shed { retry_after: second },
            Refusal::DeadlineUnreachable { needed: second },
            Refusal::Expired,
            Refusal::NodeLost,
            Refusal::Duplicate,
            Refusal::Quarantined,
            Refusal::NoCapacity(WhyNot::NotOffered),
        ];
        let mut orders: Vec<Order> =
            refusals.map(|refusal| Order::Refused { refusal, words: "w".to_owned() }).into();
        for affinity in ["prefix", "session", "resident"] {
            orders.push(Order::Run { attempt: 2, node: 3, affinity, prefill_chunk: 256 });
        }
        for eta in [None, Some(Duration::from_millis(1_500))] {
            orders.push(Order::Wait { ahead: 4, eta, loading: eta.is_none() });
        }
        orders.push(Order::Stop(AbortReason::DeadlineExceeded));
        for said in orders {
            assert_eq!(order(super::told(RequestId(9), said.clone())), Some((RequestId(9), said)));
        }
    }

    #[test]
    fn words_of_a_later_version_say_nothing() {
        assert!(saying(DeskMessage { message: None }).is_none());
        assert!(saying(DeskMessage { message: Some(desk_message::Message::Term(1)) }).is_none());
        assert_eq!(order(DeskOrder { request: 1, order: None }), None);
        let refused = DeskRefused { refusal: 99, span_us: 0, words: String::new() };
        assert_eq!(order(DeskOrder { request: 1, order: Some(desk_order::Order::Refused(refused)) }), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What another coordinator sends is decoded before it is believed.
        #[test]
        fn no_bytes_bring_the_desk_down(bytes in prop::collection::vec(any::<u8>(), 0..200), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
            let mut damaged = message(Saying::Submit(request())).encode_to_vec();
            for (at, bits) in flips {
                let at = at.index(damaged.len());
                damaged[at] ^= bits;
            }
            for bytes in [bytes, damaged] {
                if let Ok(message) = DeskMessage::decode(bytes.as_slice()) {
                    let _ = saying(message);
                }
                if let Ok(told) = DeskOrder::decode(bytes.as_slice()) {
                    let _ = order(told);
                }
            }
        }
    }
}
