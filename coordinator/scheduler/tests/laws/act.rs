//! Random histories. An [`Act`] is meant for a world: "the third running attempt fails", so that most of what is drawn means
//! something; wild commands mean nothing on purpose.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use scheduler::{
    Adopted, At, Attempt, Block, Class, Command, Failure, Fingerprint, Measured, ModelId, ModelPolicy,
    ModelReport, ModelState, NodeId, NodeReport, Outcome, ProbeNumber, ProbeResult, Rates, RequestId,
    ReservationId, SessionKey, Span, StepSample, Submission, TenantId, Usage,
};

/// Few of each, so that they meet.
pub(crate) const NODES: u64 = 4;
pub(crate) const MODELS: u32 = 3;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Wait {
        span: Span,
    },
    Submit {
        model: u32,
        tenant: u32,
        batch: bool,
        prompt: u32,
        due: Span,
        late_by: Span,
    },
    /// A gateway tells what an earlier leader had accepted.
    Adopt {
        model: u32,
        tenant: u32,
        batch: bool,
        late_by: Span,
        attempt: u32,
        running: Option<(u64, bool)>,
    },
    Cancel {
        pick: usize,
    },
    Begin {
        pick: usize,
    },
    End {
        pick: usize,
        outcome: Outcome,
    },
    /// How the node holds each model; the rest of its room is what they take.
    Report {
        node: u64,
        held: [Held; 3],
        life: u64,
    },
    /// The next answers to what the scheduler asked of the registry and of the canary.
    Answer {
        granted: bool,
        result: ProbeResult,
    },
    Lose {
        node: u64,
    },
    Drain {
        node: u64,
        draining: bool,
    },
    /// It is the leader from now on, and settles for so long.
    Lead {
        settling: Span,
    },
}

/// A model on a node of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    No,
    Offered,
    Loading,
    Slots(u32),
}

pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    vec(act(), 1..120)
}

pub(crate) fn wild_commands() -> impl Strategy<Value = Vec<(At, Command)>> {
    // Mostly back and forth within some minutes; a leap to the far future, where all has expired, is rare.
    let at = prop_oneof![60 => 0..100_000_000_u64, 1 => any::<u64>()];
    vec((at.prop_map(At), wild()), 1..120)
}

fn act() -> impl Strategy<Value = Act> {
    let pick = any::<usize>();
    let spans = |longest_ms| (0..longest_ms).prop_map(Span::from_ms);
    prop_oneof![
        3 => spans(4_000_u64).prop_map(|span| Act::Wait { span }),
        8 => (0..MODELS, 0..3_u32, proptest::bool::weighted(0.2), 0..8_000_u32, spans(90_000), spans(9_000))
            .prop_map(|(model, tenant, batch, prompt, due, late_by)| Act::Submit { model, tenant, batch, prompt, due, late_by }),
        2 => (0..MODELS, 0..3_u32, any::<bool>(), spans(90_000), 0..3_u32, option::of((0..NODES, any::<bool>())))
            .prop_map(|(model, tenant, batch, late_by, attempt, running)| Act::Adopt {
                model,
                tenant,
                batch,
                late_by,
                attempt: attempt + u32::from(running.is_some()),
                running,
            }),
        1 => pick.prop_map(|pick| Act::Cancel { pick }),
        3 => pick.prop_map(|pick| Act::Begin { pick }),
        6 => (pick, outcome()).prop_map(|(pick, outcome)| Act::End { pick, outcome }),
        4 => (0..NODES, any::<[u8; 3]>(), 0..3_u64).prop_map(|(node, held, life)| {
            Act::Report { node, held: held.map(held_as), life }
        }),
        2 => (proptest::bool::weighted(0.8), probe_result()).prop_map(|(granted, result)| Act::Answer { granted, result }),
        1 => (0..NODES).prop_map(|node| Act::Lose { node }),
        1 => (0..NODES, any::<bool>()).prop_map(|(node, draining)| Act::Drain { node, draining }),
        1 => spans(3_000).prop_map(|settling| Act::Lead { settling }),
    ]
}

fn held_as(byte: u8) -> Held {
    match byte % 8 {
        0 | 1 => Held::No,
        2 => Held::Offered,
        3 => Held::Loading,
        slots => Held::Slots(u32::from(slots - 3)),
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Completed),
        2 => Just(Outcome::Enough),
        1 => Just(Outcome::ClientGone),
        1 => Just(Outcome::Rejected),
        1 => Just(Outcome::Busy),
        1 => Just(Outcome::NotThere),
        2 => failure().prop_map(Outcome::Failed),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::Reset),
        Just(Failure::RuntimeExit),
        Just(Failure::Hang),
        Just(Failure::Corrupt),
        Just(Failure::Internal),
    ]
}

fn probe_result() -> impl Strategy<Value = ProbeResult> {
    prop_oneof![2 => Just(ProbeResult::Passed), 1 => Just(ProbeResult::Mismatch), 1 => Just(ProbeResult::Failed)]
}

fn wild() -> impl Strategy<Value = Command> {
    let request = (0..6_u64).prop_map(RequestId);
    let attempt = (0..4_u32).prop_map(Attempt);
    let node = prop_oneof![(0..NODES), any::<u64>()].prop_map(NodeId);
    let report = (0..3_u64, prop_oneof![Just(0), Just(24_u64 << 30), any::<u64>()], vec(wild_model(), 0..6))
        .prop_map(|(life, budget_bytes, models)| NodeReport { life, budget_bytes, models });
    let model = (0..MODELS).prop_map(ModelId);
    let counted = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
    let usage = counted.prop_map(|(generated, cached_tokens, prefill, held)| Usage {
        generated,
        cached_tokens,
        prefill: Span(prefill),
        held: Span(held),
    });
    let pinned = proptest::collection::btree_set((0..NODES).prop_map(NodeId), 0..3);
    let policy = (pinned, any::<u32>(), any::<u32>(), option::of(any::<u64>().prop_map(Span))).prop_map(
        |(pinned, replicas_min, replicas_max, idle_unload)| ModelPolicy {
            pinned,
            replicas_min,
            replicas_max,
            idle_unload,
        },
    );
    prop_oneof![
        4 => wild_submission().prop_map(Command::Submit),
        3 => (wild_submission(), attempt.clone(), option::of((node.clone(), any::<bool>())))
            .prop_map(|(submission, attempt, running)| Command::Adopt {
                submission,
                attempt,
                running: running.map(|(node, began)| Adopted { node, began }),
            }),
        1 => request.clone().prop_map(|request| Command::Cancel { request }),
        2 => (request.clone(), attempt.clone()).prop_map(|(request, attempt)| Command::Began { request, attempt }),
        4 => (request, attempt, outcome(), usage)
            .prop_map(|(request, attempt, outcome, usage)| Command::Finished { request, attempt, outcome, usage }),
        4 => (node.clone(), report).prop_map(|(node, report)| Command::NodeReported { node, report }),
        1 => node.clone().prop_map(|node| Command::NodeLost { node }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, draining)| Command::NodeDraining { node, draining }),
        1 => (0..4_u64, any::<bool>())
            .prop_map(|(number, granted)| Command::Reserved { reservation: ReservationId(number), granted }),
        1 => (0..4_u64, probe_result()).prop_map(|(number, result)| Command::Probed { probe: ProbeNumber(number), result }),
        1 => (model, policy).prop_map(|(model, policy)| Command::Policy { model, policy }),
        1 => (0..4_u32, any::<u32>()).prop_map(|(tenant, permille)| Command::Weight { tenant: TenantId(tenant), permille }),
        1 => prop_oneof![0..100_000_000_u64, any::<u64>()].prop_map(|at| Command::Lead { settles_at: At(at) }),
        1 => Just(Command::Wake),
    ]
}

fn wild_submission() -> impl Strategy<Value = Submission> {
    let tokens = prop_oneof![0..1_000_u32, any::<u32>()];
    let deadline = prop_oneof![0..200_000_000_u64, any::<u64>()];
    let keys = (vec(0..3_u64, 0..4), option::of(0..3_u64), 0..4_u64);
    let times = (any::<u64>(), deadline);
    (0..6_u64, 0..MODELS, any::<u32>(), any::<bool>(), (tokens.clone(), tokens), times, keys).prop_map(
        |(
            request,
            model,
            tenant,
            batch,
            (prompt_tokens, max_tokens),
            (arrived, deadline),
            (blocks, session, print),
        )| {
            Submission {
                request: RequestId(request),
                model: ModelId(model),
                tenant: TenantId(tenant),
                class: if batch { Class::Batch } else { Class::Interactive },
                prompt_tokens,
                max_tokens,
                output_tokens: None,
                blocks: blocks.into_iter().map(Block).collect(),
                session: session.map(SessionKey),
                fingerprint: Fingerprint(print),
                arrived: At(arrived),
                deadline: At(deadline),
            }
        },
    )
}

fn wild_model() -> impl Strategy<Value = ModelReport> {
    let slots = prop_oneof![0..4_u32, any::<u32>()];
    let state = prop_oneof![
        Just(ModelState::Offered),
        option::of(any::<u64>().prop_map(Span)).prop_map(|left| ModelState::Loading { left }),
        Just(ModelState::Ready),
        Just(ModelState::Unloading),
        Just(ModelState::Failed),
    ];
    let sample = any::<(u32, f32, f32, f32)>().prop_map(|(steps, batch, kv_tokens, seconds)| StepSample {
        steps,
        batch,
        kv_tokens,
        seconds,
    });
    let measured = (vec(sample, 0..4), option::of(any::<u64>().prop_map(Span)))
        .prop_map(|(steps, load)| Measured { steps, load });
    (0..MODELS, state, slots, any::<(f32, f32, f32)>(), any::<(u32, u32, u64)>(), measured).prop_map(
        |(model, state, slots, (prefill, step, slope), (kv_tokens, prefix_tokens, bytes), measured)| {
            ModelReport {
                model: ModelId(model),
                state,
                slots,
                kv_tokens,
                prefix_tokens,
                bytes,
                rates: Rates { prefill_tokens_per_s: prefill, step_ms: step, batch_slope: slope },
                measured,
            }
        },
    )
}
