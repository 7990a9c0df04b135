//! The naive registry's idea of usage: every report that counted is kept, and added up when somebody asks.

use std::collections::BTreeMap;

use proptest::prelude::*;
use registry::{KeyId, Refusal, Registry, Reply, UsageMark, Used};

use crate::oracle::Oracle;

/// A report that counted.
pub(crate) struct Report {
    gateway: u64,
    mark: UsageMark,
    at_unix_ms: u64,
    /// Of keys that there were.
    used: BTreeMap<KeyId, Used>,
}

impl Oracle {
    pub(crate) fn count_usage(
        &mut self,
        (gateway, life, sequence): (u64, u64, u64),
        at_unix_ms: u64,
        used: &BTreeMap<KeyId, Used>,
    ) -> Result<Reply, Refusal> {
        let told = UsageMark { life, sequence };
        let lived: Vec<_> = self
            .reports
            .iter()
            .filter(|report| report.gateway == gateway)
            .map(|report| report.mark)
            .collect();
        let known = lived.last().copied().unwrap_or_default();
        if life == known.life && (lived.contains(&told) || sequence <= known.sequence) {
            return Ok(Reply::AlreadySo);
        }
        let before = UsageMark { life, sequence: sequence - 1 };
        let begins = sequence == 1 && lived.iter().all(|mark| mark.life < life);
        if !begins && before != known {
            return Err(Refusal::UsageOutOfTurn { gateway, told, known });
        }
        let there = |key: &KeyId| self.keys.iter().any(|known| known.is(key));
        let used =
            used.iter().filter(|(key, _)| there(key)).map(|(key, used)| (key.clone(), *used)).collect();
        self.reports.push(Report { gateway, mark: told, at_unix_ms, used });
        Ok(Reply::Done)
    }
}

pub(crate) fn compare_usage(registry: &Registry, oracle: &Oracle) -> Result<(), TestCaseError> {
    // The generator's days: the last seven of January 1970 and the first five of February.
    for (key, _) in registry.keys() {
        for day in 25..36_u64 {
            let at_unix_ms = day * 86_400_000;
            let total = |matches: &dyn Fn(u64) -> bool| {
                let reports = oracle.reports.iter().filter(|report| matches(report.at_unix_ms / 86_400_000));
                reports
                    .filter_map(|report| report.used.get(key))
                    .fold(Used::default(), |sum, used| sum.plus(*used))
            };
            let usage = registry.key_usage(key).cloned().unwrap_or_default();
            prop_assert_eq!(usage.month(at_unix_ms), total(&|other| (other < 31) == (day < 31)));
            // Days that are forgotten are nothing; the others are all there.
            let of_day = usage.day(at_unix_ms);
            prop_assert!(of_day == total(&|other| other == day) || of_day == Used::default());
        }
    }
    Ok(())
}
