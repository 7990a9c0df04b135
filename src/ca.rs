//! `mlx-serving ca`: the authority of the cluster, and putting another one in its place.
//!
//! Owns the words for how far a rotation is, and the wait. Refuses to abandon anybody unless it is said twice, and to interpret: what
//! it prints is what the API says.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use ureq::http::Method;

use crate::api::Api;
use crate::cli::{Ca, CaAction, CaLook, Output};
use crate::exit::{Exit, failure};
use crate::moment::utc;
use crate::table::{aligned, array, number, row, text};

const PATH: &str = "/api/v1/admin/ca";
const ROTATE: &str = "/api/v1/admin/ca/rotate";

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) fn run(options: &Ca) -> anyhow::Result<()> {
    match &options.action {
        None => look(&options.look),
        Some(CaAction::Status { look: options }) => look(options),
        Some(CaAction::Rotate { abandon_absent: true, they_join_anew, api, .. }) => {
            abandon(&Api::of(api)?, *they_join_anew)
        }
        Some(CaAction::Rotate { no_wait, patience, api, .. }) => {
            let api = Api::of(api)?;
            let begun = api.call(Method::POST, ROTATE, Some(&json!({})))?;
            if *no_wait {
                return print(&shown(&begun));
            }
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let waiting = wait(api, &begun, Duration::from_secs(*patience));
            let over = runtime.context("starting the runtime")?.block_on(waiting)?;
            print(&format!("{}\n", text(&over["authority"])))
        }
    }
}

fn look(options: &CaLook) -> anyhow::Result<()> {
    let ca = Api::of(&options.api)?.get(PATH)?;
    print(&match options.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&ca)?),
        Output::Table => shown(&ca),
    })
}

fn abandon(api: &Api, they_join_anew: bool) -> anyhow::Result<()> {
    if !they_join_anew {
        let ca = api.get(PATH)?;
        let words = format!(
            "{}: with the former authority their certificates end at once, and each of them has to join again with a new token: if \
             that is meant, say so with --they-join-anew",
            missing(&ca["rotation"])
        );
        return Err(failure(Exit::Refused, words));
    }
    let over = api.call(Method::POST, ROTATE, Some(&json!({"abandon_absent": true})))?;
    print(&format!("{}\n", text(&over["authority"])))
}

/// Looks until the rotation is over, and says what changes. Returns the authority then.
async fn wait(api: Api, begun: &Value, patience: Duration) -> anyhow::Result<Value> {
    let api = std::sync::Arc::new(api);
    let number = begun["rotation"]["number"].as_u64().unwrap_or_default();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (mut said, mut changed) = (String::new(), Instant::now());
    loop {
        let ca = ask(&api, &mut interrupt).await?;
        if ca["rotations"].as_u64().unwrap_or_default() >= number {
            tell("it is over: the former authority is trusted no more; make a new backup");
            return Ok(ca);
        }
        let words = missing(&ca["rotation"]);
        if words != said {
            tell(&words);
            (said, changed) = (words, Instant::now());
        } else if changed.elapsed() >= patience {
            return Err(failure(Exit::Degraded, left_on(&ca["rotation"])));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = interrupt.recv() => return Err(interrupted()),
        }
    }
}

/// A coordinator that leads no more is no reason to give up: another one does within seconds.
async fn ask(api: &std::sync::Arc<Api>, interrupt: &mut Signal) -> anyhow::Result<Value> {
    let asked = std::sync::Arc::clone(api);
    let look = tokio::task::spawn_blocking(move || asked.get(PATH));
    tokio::select! {
        ca = look => ca.context("asking the service")?,
        _ = interrupt.recv() => Err(interrupted()),
    }
}

fn interrupted() -> anyhow::Error {
    failure(Exit::Interrupted, "the rotation goes on; see how far it is with `mlx-serving ca`")
}

fn left_on(rotation: &Value) -> String {
    format!(
        "{}; the rotation goes on until they have moved, and ends without them at {}: start them, or end it now with \
         `mlx-serving ca rotate --abandon-absent`",
        missing(rotation),
        until(rotation)
    )
}

/// Who is awaited, by name.
fn missing(rotation: &Value) -> String {
    let awaited: Vec<_> = array(&rotation["awaited"])
        .map(|member| format!("{} ({})", text(&member["id"]), text(&member["name"])))
        .collect();
    match awaited.as_slice() {
        [] => format!("{}, and nobody is missing", have_moved(rotation)),
        [one] => format!("{}; {one} is missing", have_moved(rotation)),
        more => format!("{}; {} are missing", have_moved(rotation), more.join(", ")),
    }
}

fn have_moved(rotation: &Value) -> String {
    let members = number(&rotation["moved"]);
    if members == "1" { "1 member has moved".to_owned() } else { format!("{members} members have moved") }
}

fn until(rotation: &Value) -> String {
    rotation["until_unix_ms"].as_u64().map_or_else(|| "-".to_owned(), utc)
}

fn shown(ca: &Value) -> String {
    let at = ca["last_ended_at_unix_ms"].as_u64();
    let last = at.map_or_else(String::new, |at| format!(", the last time at {}", utc(at)));
    let mut said =
        format!("authority {}, rotated {} times{last}\n", text(&ca["authority"]), number(&ca["rotations"]));
    let rotation = &ca["rotation"];
    if rotation.is_null() {
        return said;
    }
    let began = rotation["began_at_unix_ms"].as_u64().map_or_else(|| "-".to_owned(), utc);
    said.push_str(&format!(
        "rotation {} since {began}, until {} at the latest; until then {} is trusted as well\n",
        number(&rotation["number"]),
        until(rotation),
        text(&rotation["former_authority"])
    ));
    said.push_str(&format!("{}; these are missing:\n", have_moved(rotation)));
    let mut rows = vec![row(["ID", "NAME"])];
    rows.extend(array(&rotation["awaited"]).map(|member| vec![text(&member["id"]), text(&member["name"])]));
    said.push_str(&aligned(&rows));
    said
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn tell(words: &str) {
    eprintln!("{words}");
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(awaited: &[(&str, &str)]) -> Value {
        let awaited: Vec<_> = awaited.iter().map(|(id, name)| json!({"id": id, "name": name})).collect();
        json!({"number": 2, "former_authority": "aa", "began_at_unix_ms": 0, "until_unix_ms": 3_600_000, "moved": 4,
               "awaited": awaited})
    }

    #[test]
    fn who_is_missing_is_named_and_until_when_it_is_waited_for() {
        let one = rotation(&[("agent-7", "mini-07")]);
        assert_eq!(missing(&one), "4 members have moved; agent-7 (mini-07) is missing");
        let two = missing(&rotation(&[("coordinator-3", "head"), ("agent-7", "mini-07")]));
        assert_eq!(two, "4 members have moved; coordinator-3 (head), agent-7 (mini-07) are missing");
        assert_eq!(missing(&rotation(&[])), "4 members have moved, and nobody is missing");
        assert_eq!(have_moved(&json!({"moved": 1})), "1 member has moved");
        let words = left_on(&one);
        assert!(words.contains(&utc(3_600_000)) && words.contains("--abandon-absent"), "{words}");
    }

    #[test]
    fn the_authority_is_shown_with_the_rotation_that_is_under_way() {
        let mut ca = json!({"authority": "bb", "rotations": 1, "last_ended_at_unix_ms": 0, "rotation": null});
        assert_eq!(shown(&ca), format!("authority bb, rotated 1 times, the last time at {}\n", utc(0)));
        ca["rotation"] = rotation(&[("agent-7", "mini-07")]);
        let said = shown(&ca);
        assert!(said.contains("until then aa is trusted as well\n"), "{said}");
        assert!(
            said.ends_with("4 members have moved; these are missing:\nID       NAME\nagent-7  mini-07\n"),
            "{said}"
        );
    }
}
