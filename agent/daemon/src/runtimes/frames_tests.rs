//! What the codec of the runtime's frames must hold to: the contract's examples, strictness, and no harm from any bytes.

use proptest::prelude::*;
use rmpv::Value;

use super::*;

/// Packs a value built by hand, as a foreign encoder would.
fn packed(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("a vector takes anything");
    bytes
}

fn list(elements: Vec<Value>) -> Value {
    Value::Array(elements)
}

fn map(pairs: Vec<(&str, Value)>) -> Value {
    Value::Map(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn decoded(value: &Value) -> Result<Incoming, FrameError> {
    Incoming::decode(&packed(value))
}

fn framed(body: &[u8]) -> Vec<u8> {
    [u32::try_from(body.len()).expect("short").to_le_bytes().as_slice(), body].concat()
}

fn step(rows: Vec<Value>) -> Value {
    let stats = list(vec![0.25.into(), 64.into(), 0.01.into(), 2.into(), 900.into()]);
    list(vec!["step".into(), 17.into(), list(rows), stats])
}

fn row(extra: Value) -> Value {
    list(vec![3.into(), list(vec![5.into(), 6.into()]), Value::Nil, extra])
}

#[test]
fn a_hello_tells_version_and_pid_and_unknown_keys_are_skipped() {
    let hello = decoded(&list(vec![
        "hello".into(),
        map(vec![
            ("protocol", 1.into()),
            ("pid", 4_242.into()),
            ("runtime", "0.1.0".into()),
            ("mlx", "0.32.2".into()),
            ("python", "3.12".into()),
            ("of_a_later_version", list(vec![map(vec![("deep", 1.into())])])),
        ]),
    ]));
    let expected = Hello {
        protocol: 1,
        pid: 4_242,
        runtime: "0.1.0".to_owned(),
        mlx: Some("0.32.2".to_owned()),
        device: None,
    };
    assert_eq!(hello, Ok(Incoming::Hello(expected)));
}

#[test]
fn a_step_carries_tokens_ends_and_figures() {
    let end = map(vec![
        ("generated", 9.into()),
        ("prompt_tokens", 4.into()),
        ("cached_tokens", 2.into()),
        ("prefill_s", 0.5.into()),
    ]);
    let ended = list(vec![4.into(), list(vec![]), "length".into(), end]);
    let Ok(Incoming::Step { rows, stats }) = decoded(&step(vec![row(Value::Nil), ended])) else {
        panic!("a step");
    };
    assert_eq!(rows[0], RowStep(3, vec![5, 6], None, None));
    let extra =
        RowExtra { generated: 9, prompt_tokens: 4, cached_tokens: 2, prefill_s: 0.5, ..RowExtra::default() };
    assert_eq!(rows[1], RowStep(4, vec![], Some(RowFinish::Length), Some(extra)));
    assert_eq!(stats, StepStats(0.25, 64, 0.01, 2, 900));
}

#[test]
fn logprobs_come_one_for_each_token() {
    let top = |id: i64| list(vec![list(vec![id.into(), Value::F64(-0.5)])]);
    let logprobs = list(vec![list(vec![Value::F64(-0.5), top(5)]), list(vec![Value::F64(-1.5), top(6)])]);
    let Ok(Incoming::Step { rows, .. }) = decoded(&step(vec![row(map(vec![("logprobs", logprobs)]))])) else {
        panic!("a step");
    };
    let extra = rows[0].3.clone().expect("an extra");
    assert_eq!(extra.logprobs, [(-0.5, vec![(5, -0.5)]), (-1.5, vec![(6, -0.5)])]);
}

#[test]
fn replies_errors_and_progress_are_read() {
    let reply =
        list(vec!["reply".into(), 1.into(), map(vec![("weights_bytes", 77.into()), ("load_s", 1.5.into())])]);
    let value = Reply { weights_bytes: Some(77), load_s: Some(1.5) };
    assert_eq!(decoded(&reply), Ok(Incoming::Reply { call: 1, value }));
    let empty = list(vec!["reply".into(), 2.into(), map(vec![])]);
    assert_eq!(decoded(&empty), Ok(Incoming::Reply { call: 2, value: Reply::default() }));
    let error = list(vec!["error".into(), Value::Nil, "bad_frame".into(), "what".into()]);
    let expected = Incoming::Error { call: None, code: "bad_frame".to_owned(), text: "what".to_owned() };
    assert_eq!(decoded(&error), Ok(expected));
    for (phase, fraction, expected) in [
        ("loading", Value::F64(0.5), Progress { phase: Phase::Loading, fraction: Some(0.5) }),
        ("idle", Value::Nil, Progress { phase: Phase::Idle, fraction: None }),
    ] {
        let body = map(vec![
            ("step", 3.into()),
            ("phase", phase.into()),
            ("fraction", fraction),
            ("running", 0.into()),
        ]);
        assert_eq!(decoded(&list(vec!["progress".into(), body])), Ok(Incoming::Progress(expected)));
    }
}

#[test]
fn what_the_contract_does_not_name_is_refused() {
    let nested = (0..100).fold(Value::Nil, |inner, _| list(vec![inner]));
    for (what, frame) in [
        ("no array", Value::from(7)),
        ("an empty array", list(vec![])),
        ("an unknown verb", list(vec!["sing".into(), 1.into()])),
        ("the number of a verb", list(vec![3.into(), map(vec![("phase", "idle".into())])])),
        ("a missing element", list(vec!["step".into(), 1.into(), list(vec![])])),
        ("a surplus element", list(vec!["reply".into(), 1.into(), map(vec![]), 1.into()])),
        (
            "a token that is no number",
            step(vec![list(vec![1.into(), list(vec!["x".into()]), Value::Nil, Value::Nil])]),
        ),
        (
            "a negative token",
            step(vec![list(vec![1.into(), list(vec![(-1).into()]), Value::Nil, Value::Nil])]),
        ),
        ("an unknown finish", step(vec![list(vec![1.into(), list(vec![]), "tired".into(), Value::Nil])])),
        ("a row cut short", step(vec![list(vec![1.into(), list(vec![])])])),
        ("a hello without a version", list(vec!["hello".into(), map(vec![("pid", 1.into())])])),
        ("nesting without end", list(vec!["hello".into(), map(vec![("later", nested)])])),
    ] {
        assert!(matches!(decoded(&frame), Err(FrameError::Malformed(_))), "{what}");
    }
    let mut surplus = packed(&list(vec!["reply".into(), 1.into(), map(vec![])]));
    surplus.push(0);
    assert!(matches!(Incoming::decode(&surplus), Err(FrameError::Malformed(_))), "bytes after the end");
}

#[test]
fn a_length_above_the_bound_is_refused_before_its_bytes_arrive() {
    let mut decoder = Decoder::default();
    let length = u32::try_from(limits::FRAME_BYTES_MAX).expect("fits") + 1;
    decoder.buffer().extend_from_slice(&length.to_le_bytes());
    assert_eq!(decoder.next_message(), Err(FrameError::TooLong(limits::FRAME_BYTES_MAX + 1)));
}

#[test]
fn outgoing_frames_have_the_shape_of_the_contract() {
    let generate = Generate {
        ids: vec![1, 70_000],
        max_tokens: 5,
        sampling: Sampling {
            temperature: 0.5,
            logit_bias: vec![(9, -1.0)],
            seed: Some(u64::MAX),
            ..Sampling::default()
        },
        stop_ids: vec![2],
        ..Generate::default()
    };
    let frame = Outgoing::Generate { row: 8, body: Box::new(generate) }.encode().expect("encodes");
    assert_eq!(frame[..4], u32::try_from(frame.len() - 4).expect("short").to_le_bytes());
    let value = rmpv::decode::read_value(&mut &frame[4..]).expect("msgpack");
    assert_eq!((value[0].as_str(), value[1].as_u64()), (Some("generate"), Some(8)));
    let body =
        |key: &str| value[2].as_map().expect("a map").iter().find(|(name, _)| name.as_str() == Some(key));
    let body = |key: &str| body(key).map(|(_, value)| value.clone()).expect(key);
    assert_eq!(body("ids"), list(vec![1.into(), 70_000.into()]));
    assert_eq!((body("max_tokens"), body("stop_ids")), (5.into(), list(vec![2.into()])));
    assert_eq!(body("top_logprobs"), Value::Nil);
    assert_eq!(body("sampling")["seed"], Value::from(u64::MAX));
    assert_eq!(body("sampling")["logit_bias"], list(vec![list(vec![9.into(), Value::F32(-1.0)])]));
}

#[test]
fn a_salt_a_chunk_and_what_was_generated_are_named_only_when_there_are_any() {
    let keys = |generate: Generate| {
        let frame = Outgoing::Generate { row: 8, body: Box::new(generate) }.encode().expect("encodes");
        let value = rmpv::decode::read_value(&mut &frame[4..]).expect("msgpack");
        let named = |key: &str| {
            let body = value[2].as_map().expect("a map");
            body.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value.clone())
        };
        [named("cache_salt"), named("prefill_chunk"), named("generated")]
    };
    assert_eq!(keys(Generate::default()), [None, None, None]);
    let all = Generate {
        cache_salt: "tenant".to_owned(),
        prefill_chunk: Some(512),
        generated: 7,
        ..Generate::default()
    };
    assert_eq!(keys(all), [Some("tenant".into()), Some(512.into()), Some(7.into())]);
}

#[test]
fn cancel_load_and_shutdown_have_the_shape_of_the_contract() {
    let load = |kv_tokens| Load {
        path: "/m".to_owned(),
        prefill_chunk: 256,
        max_rows: 8,
        cache_bytes: 9,
        kv_tokens,
    };
    let loading = |kv_tokens| {
        let body = map(vec![
            ("path", "/m".into()),
            ("prefill_chunk", 256.into()),
            ("max_rows", 8.into()),
            ("cache_bytes", 9.into()),
            ("kv_tokens", kv_tokens),
        ]);
        list(vec!["load".into(), 1.into(), body])
    };
    for (frame, expected) in [
        (Outgoing::Cancel { rows: vec![3, 4] }, list(vec!["cancel".into(), list(vec![3.into(), 4.into()])])),
        (Outgoing::Shutdown { call: 2 }, list(vec!["shutdown".into(), 2.into()])),
        (Outgoing::Load { call: 1, body: load(Some(32_768)) }, loading(32_768.into())),
        (Outgoing::Load { call: 1, body: load(None) }, loading(Value::Nil)),
    ] {
        let bytes = frame.encode().expect("encodes");
        assert_eq!(rmpv::decode::read_value(&mut &bytes[4..]).expect("msgpack"), expected);
    }
}

const WORDS: [&str; 11] =
    ["step", "hello", "reply", "error", "progress", "phase", "idle", "stop", "logprobs", "protocol", "pid"];

/// Any msgpack value, with the contract's words in it more often than chance would put them there.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(WORDS.as_slice()).prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner), 0..5).prop_map(Value::Map),
        ]
    })
}

fn any_step() -> impl Strategy<Value = Vec<(u64, Vec<u32>)>> {
    prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u32>(), 0..20)), 0..10)
}

proptest! {
    #[test]
    fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Incoming::decode(&bytes);
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&bytes);
        while let Ok(Some(_)) = decoder.next_message() {}
    }

    #[test]
    fn no_value_panics_the_decoder(value in any_value()) {
        let _ = decoded(&value);
    }

    #[test]
    fn a_frame_with_one_changed_byte_is_read_or_refused(at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = packed(&step(vec![row(map(vec![("generated", 1.into())]))]));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Incoming::decode(&bytes);
    }

    #[test]
    fn steps_survive_any_cut(all in prop::collection::vec(any_step(), 1..5), cuts in prop::collection::vec(1usize..40, 1..30)) {
        let to_row = |(row, ids): &(u64, Vec<u32>)| {
            list(vec![(*row).into(), list(ids.iter().map(|id| (*id).into()).collect()), Value::Nil, Value::Nil])
        };
        let frames = all.iter().map(|rows| framed(&packed(&step(rows.iter().map(to_row).collect()))));
        let bytes: Vec<u8> = frames.flatten().collect();
        let (mut decoder, mut got, mut at) = (Decoder::default(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            if at == bytes.len() { break; }
            let end = (at + cut).min(bytes.len());
            decoder.buffer().extend_from_slice(&bytes[at..end]);
            at = end;
            while let Some(Incoming::Step { rows, .. }) = decoder.next_message().expect("whole frames") {
                got.push(rows.into_iter().map(|RowStep(row, ids, _, _)| (row, ids)).collect::<Vec<_>>());
            }
        }
        prop_assert_eq!(got, all);
    }
}
