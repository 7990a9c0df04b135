//! Laws of usage: what was told twice counts once, whatever came between.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use registry::{Command, KeyId, Registry, Reply, UsageMark, Used, limits};

use crate::generator::{administered, config, founding};

const DAY_MS: u64 = 86_400_000;

fn used(tokens: u64) -> Used {
    Used { requests: 1, prompt_tokens: tokens, answer_tokens: 1 }
}

fn report(gateway: u64, life: u64, sequence: u64, at_unix_ms: u64, tokens: u64) -> Command {
    let used = BTreeMap::from([(KeyId("0a".to_owned()), used(tokens))]);
    Command::CountUsage { gateway, life, sequence, at_unix_ms, used }
}

fn with_key() -> Registry {
    let mut registry = Registry::default();
    registry.apply(&founding());
    let grant = serde_json::from_str(r#"{"name": "ci", "scopes": ["inference"]}"#).unwrap();
    let key = KeyId("0a".to_owned());
    registry.apply(&Command::CreateKey { key, grant, secret_hash: [0; 32], at_unix_ms: 1 });
    registry
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_mark_never_goes_back(commands in administered()) {
        let mut registry = Registry::default();
        let mut marks = BTreeMap::<u64, UsageMark>::new();
        for command in &commands {
            registry.apply(command);
            for gateway in 1..3 {
                let mark = registry.usage_mark(gateway);
                let before = marks.insert(gateway, mark).unwrap_or_default();
                prop_assert!((before.life, before.sequence) <= (mark.life, mark.sequence));
            }
        }
    }

    /// A gateway says each report until it is answered, so reports arrive late and more than once; sometimes its process ends,
    /// and another one says reports of its own.
    #[test]
    fn every_report_of_a_gateway_counts_once_however_often_it_arrives(
        lives in vec(vec((0_u64..100, 0_usize..3), 1..6), 1..4),
        late in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
    ) {
        let mut registry = with_key();
        let mut said = Vec::new();
        let mut total = 0;
        for (life, reports) in (1..).zip(&lives) {
            for (sequence, (tokens, again)) in (1..).zip(reports) {
                let told = report(1, life, sequence, 5 * DAY_MS, *tokens);
                prop_assert_eq!(registry.apply(&told), Reply::Done);
                for _ in 0..*again {
                    prop_assert_eq!(registry.apply(&told), Reply::AlreadySo);
                }
                said.push(told);
                total += tokens;
                for (at, _) in &late {
                    let reply = registry.apply(at.get(&said));
                    prop_assert!(reply != Reply::Done, "{:?}", reply);
                }
            }
        }
        let month = registry.key_usage(&KeyId("0a".to_owned())).unwrap().month(5 * DAY_MS);
        prop_assert_eq!((month.prompt_tokens, month.requests), (total, said.len() as u64));
    }

    #[test]
    fn totals_have_a_bound_and_the_latest_stay(days in vec(0_u64..2_000, 1..60)) {
        let mut registry = with_key();
        for (sequence, day) in (1..).zip(&days) {
            prop_assert_eq!(registry.apply(&report(1, 1, sequence, day * DAY_MS, 1)), Reply::Done);
        }
        let usage = registry.key_usage(&KeyId("0a".to_owned())).unwrap();
        prop_assert!(usage.days.len() <= limits::USAGE_DAYS_MAX && usage.months.len() <= limits::USAGE_MONTHS_MAX);
        let last = days.iter().max().unwrap();
        let expected = days.iter().filter(|day| *day == last).count() as u64;
        prop_assert_eq!(usage.day(last * DAY_MS).requests, expected);
    }
}

#[test]
fn a_gateway_that_is_gone_for_longest_is_forgotten() {
    let mut registry = with_key();
    let most = limits::USAGE_GATEWAYS_MAX as u64;
    for gateway in 1..=most + 1 {
        assert_eq!(registry.apply(&report(gateway, 100 + gateway, 1, DAY_MS, 1)), Reply::Done);
    }
    assert_eq!(registry.usage_mark(1), UsageMark::default());
    assert_eq!(registry.usage_mark(2), UsageMark { life: 102, sequence: 1 });
}

#[test]
fn a_report_has_a_most_of_keys() {
    let mut registry = with_key();
    let of = |count: usize| Command::CountUsage {
        gateway: 1,
        life: 1,
        sequence: 1,
        at_unix_ms: 1,
        used: (0..count).map(|number| (KeyId(format!("{number:x}")), used(1))).collect(),
    };
    assert!(matches!(registry.apply(&of(limits::USAGE_KEYS_MAX + 1)), Reply::Refused(_)));
    assert_eq!(registry.apply(&of(limits::USAGE_KEYS_MAX)), Reply::Done);
    assert!(registry.key_usage(&KeyId("0".to_owned())).is_none(), "of no key that there is");
}
