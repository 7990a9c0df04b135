//! The language of the scenarios: one command a line.
//!
//! Owns its parsing. Refuses a line it does not understand, so that a typing error is no silent success.
//!
//! ```text
//! found room at=1000
//! token t1 secret=a role=agent expires=100 uses=1
//! admit mini-07 key=07 token=t1 secret=a at=50
//! want 1 qwen3-4b hub:mlx-community/Qwen3-4B-4bit
//! unwant 1 qwen3-4b
//! budget 1 10GiB
//! place 1 qwen3-4b 3GiB
//! unplace 1 qwen3-4b
//! policy qwen3-4b pinned min=1 max=2 idle=600
//! drain 1
//! undrain 1
//! breaker 1 qwen3-4b open generation=1 opens=1 at=50 until=60 because three runtimes died in a row
//! breaker 1 * closed generation=2 opens=0 at=70 because the probe was answered
//! charge ab node=1 at=50
//! quarantine ab at=50 until=90
//! pardon ab
//! golden qwen3-4b card=0a ids=9707,11,1879
//! raise 2 at=50
//! found-sealed room key=0a at=50
//! seal-ca key=0a at=50
//! rotate-ca 1 begin certificate=two key=0b hash=0c at=50 until=90
//! rotate-ca 1 moved members=0,3 at=51
//! rotate-ca 1 end at=52
//! rotate-ca 1 abandon at=53
//! revoke 1
//! revoke-founder at=50
//! revoke-token t1
//! lock-voters 1 seat=2@two:1,3@three:1 promote=4 remove=5,6 by=1 at=50
//! unlock-voters 1
//! key 0a secret=a name=ci scopes=inference,read models=x,y expires=90 at=50
//! change-key 0a revision=1 name=ci scopes=inference
//! key-secret 0a 2 secret=b at=60
//! drop-secret 0a 1
//! revoke-key 0a at=70
//! usage gateway=1 life=7 sequence=1 at=80 0a=2+30+4
//! note local-1 done at=80 because promote coordinator 3
//! by local-1 at=80: revoke-key 0a at=70
//! begin j of=7 asks=hi run=1.a.1 at=90
//! take j from=1.a.1 run=2.b.1 at=91
//! end j run=2.b.1 answer=yes bytes=3 on=2,3 at=92
//! drop-job j run=2.b.1
//! forget-jobs at=99
//! response r begin of=7 key=0a asks=a:10@1+2 run=1.a.3 at=99
//! response r keep run=1.a.3 progress=b:5@1+2
//! response r cancel shown=b answer=c:7@1+2 at=99
//! response s store of=7 answer=d:9@1+2 run=1.a.4 at=99
//! response r drop
//! file f1 of=7 name=in.jsonl pieces=a:10@1+2,b:5@2+3 at=99 until=200
//! batch b1 begin of=7 key=0a reads=f1 as=chat says=team:red run=1.a.2 at=100
//! batch b1 take from=1.a.2 run=2.b.2
//! batch b1 open run=2.b.2 lines=3 at=101
//! batch b1 keep run=2.b.2 after=0 completed=1 failed=1 output=x:9@1+2 errors=y:8@1+2 at=102
//! batch b1 cancel at=103
//! batch b1 end cancelled run=2.b.2 output=f2 errors=f3 at=104
//! drop-file f1
//! forget-files at=300
//! ```

mod batches;
pub(crate) mod jobs;
mod responses;

use std::collections::BTreeMap;

use registry::{
    Allowance, BreakerState, CaStep, ClusterId, ClusterVersion, Command, Fingerprint, Grant, KeyId,
    ModelName, ModelPolicy, ModelSource, NodeId, Outcome, Role, Scope, TokenId, Used, VoterChange,
};

/// A line in parts: `verb names... key=value... because reason`.
struct Line<'a> {
    text: &'a str,
    names: Vec<&'a str>,
    settings: BTreeMap<&'a str, &'a str>,
    reason: &'a str,
}

/// Reads one line of a scenario.
pub(crate) fn command(text: &str) -> Command {
    if let Some((who, asked)) = text.strip_prefix("by ").and_then(|text| text.split_once(": ")) {
        let (by, at) = who.split_once(" at=").unwrap();
        return command(asked).audited(by, at.parse().unwrap());
    }
    let (before, reason) = text.split_once(" because ").unwrap_or((text, ""));
    let mut words = before.split_whitespace();
    let verb = words.next().unwrap();
    let (settings, names): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
    let settings = settings.iter().filter_map(|word| word.split_once('=')).collect();
    let line = Line { text, names, settings, reason };
    about_membership(verb, &line)
        .or_else(|| about_models(verb, &line))
        .or_else(|| about_health(verb, &line))
        .or_else(|| about_voters(verb, &line))
        .or_else(|| about_keys(verb, &line))
        .or_else(|| jobs::about(verb, &line))
        .or_else(|| batches::about(verb, &line))
        .or_else(|| responses::about(verb, &line))
        .unwrap_or_else(|| panic!("not a command: {text}"))
}

fn about_membership(verb: &str, line: &Line<'_>) -> Option<Command> {
    Some(match verb {
        "found" => Command::FoundCluster {
            cluster: ClusterId(line.name(0).to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: line.number("at"),
        },
        "found-sealed" => Command::FoundSealed {
            cluster: ClusterId(line.name(0).to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            sealed_ca_key: line.set("key").to_owned(),
            at_unix_ms: line.number("at"),
        },
        "seal-ca" => {
            Command::SealCa { sealed_ca_key: line.set("key").to_owned(), at_unix_ms: line.number("at") }
        }
        "rotate-ca" => Command::RotateCa {
            number: line.name(0).parse().unwrap(),
            step: ca_step(line),
            at_unix_ms: line.number("at"),
        },
        "token" => Command::IssueJoinToken {
            id: TokenId(line.name(0).to_owned()),
            secret_hash: hash(line.set("secret")),
            role: role(line.set("role")),
            expires_at_unix_ms: line.number("expires"),
            uses: line.optional("uses").map(|uses| u32::try_from(uses).unwrap()),
            name: line.settings.get("name").map(|name| (*name).to_owned()),
        },
        "admit" => Command::AdmitNode {
            token: TokenId(line.set("token").to_owned()),
            secret_hash: hash(line.set("secret")),
            name: line.name(0).to_owned(),
            public_key: line.set("key").to_owned(),
            at_unix_ms: line.number("at"),
        },
        "revoke-token" => Command::RevokeJoinToken { id: TokenId(line.name(0).to_owned()) },
        "revoke-founder" => Command::RevokeFounder { at_unix_ms: line.number("at") },
        "revoke" => Command::RevokeNode { node: line.node() },
        "drain" => Command::DrainNode { node: line.node(), draining: true },
        "raise" => Command::RaiseVersion {
            to: ClusterVersion(line.name(0).parse().unwrap()),
            at_unix_ms: line.number("at"),
        },
        "undrain" => Command::DrainNode { node: line.node(), draining: false },
        _ => return None,
    })
}

fn ca_step(line: &Line<'_>) -> CaStep {
    match line.name(1) {
        "begin" => CaStep::Begin {
            ca_certificate_pem: line.set("certificate").to_owned(),
            cross_certificate_pem: "certificate".to_owned(),
            sealed_ca_key: line.set("key").to_owned(),
            sealed_hash_key: line.set("hash").to_owned(),
            until_unix_ms: line.number("until"),
        },
        "moved" => {
            CaStep::Move { members: line.list("members").map(|id| NodeId(id.parse().unwrap())).collect() }
        }
        "end" => CaStep::End { abandon: false },
        "abandon" => CaStep::End { abandon: true },
        word => panic!("not a step of a rotation: {word}"),
    }
}

fn about_models(verb: &str, line: &Line<'_>) -> Option<Command> {
    let on = || (line.node(), model(line.name(1)));
    Some(match verb {
        "want" => {
            let (node, model) = on();
            Command::WantModel { node, model, source: source(line.name(2)) }
        }
        "unwant" => {
            let (node, model) = on();
            Command::UnwantModel { node, model }
        }
        "budget" => Command::SetBudget { node: line.node(), bytes: bytes(line.name(1)) },
        "place" => {
            let (node, model) = on();
            Command::PlaceModel { node, model, bytes: bytes(line.name(2)) }
        }
        "unplace" => {
            let (node, model) = on();
            Command::UnplaceModel { node, model }
        }
        "policy" => Command::SetModelPolicy {
            model: model(line.name(0)),
            policy: ModelPolicy {
                pinned: line.names.get(1) == Some(&"pinned"),
                replicas_min: u32::try_from(line.optional("min").unwrap_or(0)).unwrap(),
                replicas_max: u32::try_from(line.optional("max").unwrap_or(0)).unwrap(),
                idle_unload_s: line.optional("idle"),
            },
        },
        "golden" => Command::SetGolden {
            model: model(line.name(0)),
            card_digest: line.set("card").to_owned(),
            ids: line.set("ids").split(',').map(|id| id.parse().unwrap()).collect(),
        },
        _ => return None,
    })
}

fn about_health(verb: &str, line: &Line<'_>) -> Option<Command> {
    let fingerprint = || Fingerprint(u64::from_str_radix(line.name(0), 16).unwrap());
    Some(match verb {
        "breaker" => Command::MoveBreaker {
            node: line.node(),
            model: (line.name(1) != "*").then(|| model(line.name(1))),
            state: state(line.name(2)),
            generation: u32::try_from(line.number("generation")).unwrap(),
            opens: u32::try_from(line.number("opens")).unwrap(),
            until_unix_ms: line.optional("until"),
            why: line.reason.to_owned(),
            at_unix_ms: line.number("at"),
        },
        "charge" => Command::ChargeDeath {
            fingerprint: fingerprint(),
            node: NodeId(line.number("node")),
            at_unix_ms: line.number("at"),
        },
        "quarantine" => Command::QuarantineRequest {
            fingerprint: fingerprint(),
            at_unix_ms: line.number("at"),
            until_unix_ms: line.number("until"),
        },
        "pardon" => Command::PardonRequest { fingerprint: fingerprint() },
        _ => return None,
    })
}

fn about_voters(verb: &str, line: &Line<'_>) -> Option<Command> {
    let number = || line.name(0).parse().unwrap();
    let ids = |key| line.list(key).map(|id| id.parse().unwrap()).collect();
    Some(match verb {
        "lock-voters" => Command::LockVoters {
            change: VoterChange {
                number: number(),
                seat: line.list("seat").map(seat).collect(),
                promote: ids("promote"),
                remove: ids("remove"),
                by: line.number("by"),
                at_unix_ms: line.number("at"),
            },
        },
        "unlock-voters" => Command::UnlockVoters { number: number() },
        _ => return None,
    })
}

fn about_keys(verb: &str, line: &Line<'_>) -> Option<Command> {
    let key = || KeyId(line.name(0).to_owned());
    let (secret_hash, at) = (|| hash(line.set("secret")), || line.number("at"));
    let number = || line.name(1).parse().unwrap();
    Some(match verb {
        "key" => Command::CreateKey {
            key: key(),
            grant: grant(line),
            secret_hash: secret_hash(),
            at_unix_ms: at(),
        },
        "change-key" => {
            Command::ChangeKey { key: key(), revision: line.number("revision"), grant: grant(line) }
        }
        "key-secret" => Command::AddKeySecret {
            key: key(),
            number: number(),
            secret_hash: secret_hash(),
            at_unix_ms: at(),
        },
        "usage" => {
            let told = ["gateway", "life", "sequence", "at"];
            let of_keys = line.settings.iter().filter(|(name, _)| !told.contains(name));
            Command::CountUsage {
                gateway: line.number("gateway"),
                life: line.number("life"),
                sequence: line.number("sequence"),
                at_unix_ms: at(),
                used: of_keys.map(|(key, numbers)| (KeyId((*key).to_owned()), used(numbers))).collect(),
            }
        }
        "note" => Command::Note {
            by: line.name(0).to_owned(),
            at_unix_ms: at(),
            action: line.reason.to_owned(),
            outcome: outcome(line.name(1)),
        },
        "drop-secret" => Command::DropKeySecret { key: key(), number: number() },
        "revoke-key" => Command::RevokeKey { key: key(), at_unix_ms: at() },
        _ => return None,
    })
}

fn grant(line: &Line<'_>) -> Grant {
    let models: std::collections::BTreeSet<_> = line.list("models").map(model).collect();
    Grant {
        name: line.set("name").to_owned(),
        scopes: line.list("scopes").map(scope).collect(),
        models: (!models.is_empty()).then_some(models),
        expires_at_unix_ms: line.optional("expires"),
        allowance: Allowance {
            requests_per_minute: line.optional("rpm"),
            tokens_per_minute: line.optional("tpm"),
            concurrent_requests: line.optional("concurrency"),
            tokens_per_month: line.optional("monthly"),
        },
    }
}

/// `requests+prompt tokens+answer tokens`.
fn used(word: &str) -> Used {
    let mut numbers = word.split('+').map(|number| number.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    Used { requests: next(), prompt_tokens: next(), answer_tokens: next() }
}

fn outcome(word: &str) -> Outcome {
    let all = [Outcome::Begun, Outcome::Done, Outcome::AlreadySo, Outcome::Refused];
    *all.iter().find(|outcome| outcome.name() == word).unwrap_or_else(|| panic!("not an outcome: {word}"))
}

fn scope(word: &str) -> Scope {
    *Scope::ALL.iter().find(|scope| scope.name() == word).unwrap_or_else(|| panic!("not a scope: {word}"))
}

fn seat(word: &str) -> (u64, String) {
    let (replica, address) = word.split_once('@').unwrap();
    (replica.parse().unwrap(), address.to_owned())
}

impl<'a> Line<'a> {
    fn list(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.settings.get(key).into_iter().flat_map(|list| list.split(','))
    }

    fn name(&self, index: usize) -> &'a str {
        self.names.get(index).unwrap_or_else(|| panic!("too short: {}", self.text))
    }

    fn node(&self) -> NodeId {
        NodeId(self.name(0).parse().unwrap())
    }

    fn set(&self, key: &str) -> &'a str {
        self.settings.get(key).unwrap_or_else(|| panic!("no {key}= in: {}", self.text))
    }

    fn number(&self, key: &str) -> u64 {
        self.set(key).parse().unwrap()
    }

    fn optional(&self, key: &str) -> Option<u64> {
        self.settings.get(key).map(|number| number.parse().unwrap())
    }
}

/// A hash that is as good as any: the word, repeated.
fn hash(word: &str) -> [u8; 32] {
    let mut bytes = word.bytes().cycle();
    std::array::from_fn(|_| bytes.next().unwrap())
}

fn role(word: &str) -> Role {
    match word {
        "agent" => Role::Agent,
        "coordinator" => Role::Coordinator,
        "client" => Role::Client,
        _ => panic!("not a role: {word}"),
    }
}

fn model(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

fn bytes(word: &str) -> u64 {
    match word.strip_suffix("GiB") {
        Some(number) => number.parse::<u64>().unwrap() << 30,
        None => word.parse().unwrap(),
    }
}

fn state(word: &str) -> BreakerState {
    match word {
        "closed" => BreakerState::Closed,
        "degraded" => BreakerState::Degraded,
        "open" => BreakerState::Open,
        "probing" => BreakerState::Probing,
        "slow-start" => BreakerState::SlowStart,
        _ => panic!("not a state: {word}"),
    }
}

fn source(word: &str) -> ModelSource {
    match word.split_once(':') {
        Some(("path", path)) => ModelSource::Path(path.to_owned()),
        Some(("hub", id)) => ModelSource::Hub(id.to_owned()),
        Some(_) => panic!("not a source: {word}"),
        None if word == "demo" => ModelSource::Demo,
        None => panic!("not a source: {word}"),
    }
}
