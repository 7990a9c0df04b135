//! Random histories. An [`Act`] is meant for a world: "the third running attempt fails", so that most of what is drawn means
//! something; wild commands mean nothing on purpose.

use proptest::collection::vec;
use proptest::prelude::*;
use scheduler::{
    At, Attempt, Class, Command, ModelId, ModelReport, NodeId, NodeReport, Outcome, Rates, RequestId, Span,
    Submission, TenantId,
};

/// Few of each, so that they meet.
pub(crate) const NODES: u64 = 4;
pub(crate) const MODELS: u32 = 3;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Wait { span: Span },
    Submit { model: u32, prompt: u32, due: Span, late_by: Span },
    Cancel { pick: usize },
    Begin { pick: usize },
    End { pick: usize, outcome: Outcome },
    Report { node: u64, slots: [u32; 3] },
    Lose { node: u64 },
    Drain { node: u64, draining: bool },
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
        8 => (0..MODELS, 0..8_000_u32, spans(90_000), spans(9_000))
            .prop_map(|(model, prompt, due, late_by)| Act::Submit { model, prompt, due, late_by }),
        1 => pick.prop_map(|pick| Act::Cancel { pick }),
        3 => pick.prop_map(|pick| Act::Begin { pick }),
        6 => (pick, outcome()).prop_map(|(pick, outcome)| Act::End { pick, outcome }),
        4 => (0..NODES, any::<[u8; 3]>()).prop_map(|(node, slots)| Act::Report { node, slots: slots.map(few) }),
        1 => (0..NODES).prop_map(|node| Act::Lose { node }),
        1 => (0..NODES, any::<bool>()).prop_map(|(node, draining)| Act::Drain { node, draining }),
    ]
}

/// 0 to 3, and 0 means that the model is absent.
fn few(byte: u8) -> u32 {
    u32::from(byte % 4)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Completed),
        Just(Outcome::ClientGone),
        Just(Outcome::Rejected),
        Just(Outcome::Busy),
        Just(Outcome::Failed),
    ]
}

fn wild() -> impl Strategy<Value = Command> {
    let request = (0..6_u64).prop_map(RequestId);
    let attempt = (0..4_u32).prop_map(Attempt);
    let node = prop_oneof![(0..NODES), any::<u64>()].prop_map(NodeId);
    let report = vec(wild_model(), 0..6).prop_map(|models| NodeReport { models });
    prop_oneof![
        4 => wild_submission().prop_map(Command::Submit),
        1 => request.clone().prop_map(|request| Command::Cancel { request }),
        2 => (request.clone(), attempt.clone()).prop_map(|(request, attempt)| Command::Began { request, attempt }),
        4 => (request, attempt, outcome(), any::<u32>())
            .prop_map(|(request, attempt, outcome, generated)| Command::Finished { request, attempt, outcome, generated }),
        4 => (node.clone(), report).prop_map(|(node, report)| Command::NodeReported { node, report }),
        1 => node.clone().prop_map(|node| Command::NodeLost { node }),
        1 => (node, any::<bool>()).prop_map(|(node, draining)| Command::NodeDraining { node, draining }),
        1 => Just(Command::Wake),
    ]
}

fn wild_submission() -> impl Strategy<Value = Submission> {
    let tokens = prop_oneof![0..1_000_u32, any::<u32>()];
    let deadline = prop_oneof![0..200_000_000_u64, any::<u64>()];
    (0..6_u64, 0..MODELS, any::<u32>(), any::<bool>(), (tokens.clone(), tokens), (any::<u64>(), deadline))
        .prop_map(|(request, model, tenant, batch, (prompt_tokens, max_tokens), (arrived, deadline))| {
            Submission {
                request: RequestId(request),
                model: ModelId(model),
                tenant: TenantId(tenant),
                class: if batch { Class::Batch } else { Class::Interactive },
                prompt_tokens,
                max_tokens,
                arrived: At(arrived),
                deadline: At(deadline),
            }
        })
}

fn wild_model() -> impl Strategy<Value = ModelReport> {
    let slots = prop_oneof![0..4_u32, any::<u32>()];
    (0..MODELS, slots, any::<(f32, f32, f32)>()).prop_map(|(model, slots, (prefill, step, slope))| {
        ModelReport {
            model: ModelId(model),
            slots,
            rates: Rates { prefill_tokens_per_s: prefill, step_ms: step, batch_slope: slope },
        }
    })
}
