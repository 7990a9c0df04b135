//! `mlx-serving audit`: what administrators did, and whether the trail is as it was written.
//!
//! Owns the table and the check. The chain is worked out here, from what the API says: a coordinator that lies about its own
//! trail has to lie consistently, and a hash that was noted earlier finds that too.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::Value;
use server::trail::{self, AuditEntry};
use ureq::http::Method;

use crate::api::Api;
use crate::cli::{Audit, Output};
use crate::moment;
use crate::table::{aligned, array, number, row, text};

pub(crate) fn run(options: &Audit) -> anyhow::Result<()> {
    let trail = Api::of(&options.call.api)?.call(Method::GET, "/api/v1/admin/audit", None)?;
    let out = match (options.verify, options.call.output) {
        (true, _) => checked(&trail, options.contains.as_deref())?,
        (false, Output::Json) => format!("{}\n", serde_json::to_string_pretty(&trail)?),
        (false, Output::Table) => table(&trail),
    };
    std::io::stdout().write_all(out.as_bytes())?;
    Ok(())
}

fn table(trail: &Value) -> String {
    let mut rows = vec![row(["NUMBER", "WHEN", "BY", "WHAT", "OUTCOME"])];
    rows.extend(array(&trail["entries"]).map(|entry| {
        let at = entry["at_unix_ms"].as_u64().map_or_else(|| "-".to_owned(), moment::utc);
        vec![
            number(&entry["number"]),
            at,
            text(&entry["by"]),
            text(&entry["action"]),
            text(&entry["outcome"]),
        ]
    }));
    aligned(&rows)
}

fn checked(document: &Value, contains: Option<&str>) -> anyhow::Result<String> {
    let entries: Vec<AuditEntry> =
        serde_json::from_value(document["entries"].clone()).context("reading the audit trail")?;
    trail::verify(&entries).context("the audit trail is broken")?;
    let hashes: Vec<_> = array(&document["entries"]).map(|entry| text(&entry["hash"])).collect();
    if let Some(noted) = contains
        && !hashes.iter().any(|hash| hash == noted)
    {
        anyhow::bail!(
            "no entry of the audit trail has the hash {noted}; the oldest that is kept is number {}",
            entries.first().map_or(0, |entry| entry.number)
        );
    }
    Ok(match (entries.last(), hashes.last()) {
        (Some(last), Some(hash)) => {
            format!("{} entries, unbroken up to number {}: {hash}\n", entries.len(), last.number)
        }
        _ => "no entries\n".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a registry chained them.
    fn sample() -> Value {
        let snapshot = include_str!("../coordinator/registry/tests/golden/snapshot.json");
        serde_json::from_str::<Value>(snapshot).expect("JSON")["audit"].clone()
    }

    #[test]
    fn each_entry_has_a_line() {
        let expected = "\
NUMBER  WHEN                 BY       WHAT                      OUTCOME
1       1970-01-01 00:00:01  local-1  add secret 3 to key 0a1b  done
2       1970-01-01 00:00:01  0a1b     drain node 1              already_so
3       1970-01-01 00:00:01  local-1  promote coordinator 4     begun
";
        assert_eq!(table(&sample()), expected);
    }

    #[test]
    fn a_trail_that_is_as_it_was_written_says_its_last_hash() {
        let (trail, entries) = (sample(), sample()["entries"].clone());
        let (first, last) = (text(&entries[0]["hash"]), text(&entries[2]["hash"]));
        let expected = format!("3 entries, unbroken up to number 3: {last}\n");
        assert_eq!(checked(&trail, None).expect("unbroken"), expected);
        assert_eq!(checked(&trail, Some(&first)).expect("there"), expected);
        let error = checked(&trail, Some("00")).expect_err("not there").to_string();
        assert!(error.contains("00") && error.contains("number 1"), "{error}");
        assert_eq!(checked(&serde_json::json!({"entries": []}), None).expect("empty"), "no entries\n");
    }

    #[test]
    fn a_trail_that_was_touched_is_broken_and_says_where() {
        let mut trail = sample();
        trail["entries"][1]["action"] = "drain node 2".into();
        let error = format!("{:#}", checked(&trail, None).expect_err("broken"));
        assert!(error.contains("entry 2 is not as it was written"), "{error}");
        let mut shorter = sample();
        shorter["entries"].as_array_mut().expect("entries").remove(0);
        assert!(checked(&shorter, None).is_ok(), "the oldest are forgotten");
    }
}
