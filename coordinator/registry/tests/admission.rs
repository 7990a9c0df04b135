//! The decision about a machine at the door, for every kind of token and every kind of key.
//!
//! `tests/admission.txt` is the whole table; `UPDATE=1` writes it.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::Path;

    use registry::{Registry, Reply, TokenId};

    use super::script::command;

    /// Node 1 lives, node 2 is revoked; both are agents.
    const BEFORE: [&str; 9] = [
        "found room at=1",
        "token good secret=a role=agent expires=100",
        "token once secret=a role=agent expires=100 uses=1",
        "token old secret=a role=agent expires=50",
        "token head secret=a role=coordinator expires=100",
        "token admin secret=a role=client expires=100",
        "admit mini-01 key=01 token=good secret=a at=10",
        "admit mini-02 key=02 token=once secret=a at=10",
        "revoke 2",
    ];

    const TOKENS: [(&str, &str); 8] = [
        ("a good token", "token=good secret=a"),
        ("an unknown token", "token=nothing secret=a"),
        ("a wrong secret", "token=good secret=b"),
        ("an expired token", "token=old secret=a"),
        ("a spent token", "token=once secret=a"),
        ("a wrong secret of a spent token", "token=once secret=b"),
        ("a token for coordinators", "token=head secret=a"),
        ("a token for clients", "token=admin secret=a"),
    ];

    const KEYS: [(&str, &str); 4] = [
        ("a new key", "key=03"),
        ("the key of node 1", "key=01"),
        ("the key of revoked node 2", "key=02"),
        ("a key that is none", "key=O1"),
    ];

    #[test]
    fn every_machine_at_the_door_gets_the_answer_in_the_table() {
        let mut before = Registry::default();
        for line in BEFORE {
            assert!(!matches!(before.apply(&command(line)), Reply::Refused(_)), "{line}");
        }
        let mut table = String::new();
        for (token, shown) in TOKENS {
            for (key, with) in KEYS {
                let mut registry = before.clone();
                let reply = registry.apply(&command(&format!("admit mini-03 {with} {shown} at=60")));
                let now = match &reply {
                    Reply::NodeAdmitted { node, again } => {
                        let again = if *again { ", again" } else { "" };
                        let role = registry.node(*node).expect("admitted").role;
                        format!("node {node}{again}, {role}")
                    }
                    Reply::Refused(refusal) => format!("refused: {refusal}"),
                    Reply::Done | Reply::AlreadySo => panic!("not an answer to a joiner: {reply:?}"),
                };
                writeln!(table, "{token} with {key}:\n  {now}").unwrap();
            }
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admission.txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &table).unwrap();
        }
        assert!(fs::read_to_string(file).unwrap() == table, "the table differs; it is:\n{table}");
    }

    #[test]
    fn only_a_new_node_spends_a_use() {
        let mut registry = Registry::default();
        let used =
            |registry: &Registry| registry.token(&TokenId("twice".to_owned())).map_or(0, |token| token.used);
        for (line, uses_then) in [
            ("found room at=1", 0),
            ("token twice secret=a role=agent expires=100 uses=2", 0),
            ("admit mini-01 key=01 token=twice secret=b at=10", 0),
            ("admit mini-01 key=01 token=twice secret=a at=100", 0),
            ("admit mini-01 key=01 token=twice secret=a at=10", 1),
            ("admit mini-01 key=01 token=twice secret=a at=11", 1),
            ("revoke 1", 1),
            ("admit mini-01 key=01 token=twice secret=a at=12", 1),
            ("admit mini-01 key=02 token=twice secret=a at=13", 2),
            ("admit mini-03 key=03 token=twice secret=a at=14", 2),
        ] {
            registry.apply(&command(line));
            assert_eq!(used(&registry), uses_then, "after {line}");
        }
    }
}
