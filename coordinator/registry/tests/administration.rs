//! What happens at the bounds of keys and of the audit trail, one below and at each, and what is compared with what.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use registry::{
        Allowance, Bounded, BrokenTrail, Command, Field, Grant, KeyField, KeyId, KeyRefusal, ModelName,
        Refusal, Registry, Reply, Scope, limits, verify,
    };

    use super::script::command;

    fn founded() -> Registry {
        let mut registry = Registry::default();
        assert_eq!(registry.apply(&command("found room at=1")), Reply::Done);
        registry
    }

    fn after(lines: &[&str]) -> Registry {
        let mut registry = founded();
        for line in lines {
            assert_eq!(registry.apply(&command(line)), Reply::Done, "{line}");
        }
        registry
    }

    fn id(text: &str) -> KeyId {
        KeyId(text.to_owned())
    }

    fn create(registry: &mut Registry, number: usize) -> Reply {
        registry.apply(&command(&format!("key {number:04x} secret=a name=ci scopes=inference at=5")))
    }

    fn malformed(field: KeyField) -> Reply {
        Reply::Refused(Refusal::Malformed { what: Field::Key(field) })
    }

    #[test]
    fn there_is_a_most_of_live_keys_and_a_revoked_one_makes_room() {
        let mut registry = founded();
        for number in 0..limits::LIVE_KEYS_MAX {
            assert_eq!(create(&mut registry, number), Reply::Done);
        }
        let full = Refusal::TooMany { what: Bounded::LiveKeys, limit: limits::LIVE_KEYS_MAX };
        assert_eq!(create(&mut registry, limits::LIVE_KEYS_MAX), Reply::Refused(full));
        assert_eq!(registry.apply(&command("revoke-key 0007 at=6")), Reply::Done);
        assert_eq!(create(&mut registry, limits::LIVE_KEYS_MAX), Reply::Done);
    }

    #[test]
    fn the_key_that_was_revoked_first_is_forgotten_and_that_there_were_keys_is_not() {
        let mut registry = founded();
        for number in 0..=limits::REVOKED_KEYS_MAX {
            assert_eq!(create(&mut registry, number), Reply::Done);
            // Number 3 was revoked before all others.
            let at = if number == 3 { 1 } else { 10 + number };
            assert_eq!(registry.apply(&command(&format!("revoke-key {number:04x} at={at}"))), Reply::Done);
        }
        assert_eq!(registry.keys().count(), limits::REVOKED_KEYS_MAX);
        assert_eq!(registry.key(&id("0003")), None);
        assert!(registry.key(&id("0000")).is_some() && registry.is_keyed());
    }

    #[test]
    fn texts_and_lists_of_a_key_at_their_bounds_are_taken_and_beyond_refused() {
        let grant = |name: usize, models: usize| Grant {
            name: "n".repeat(name),
            scopes: [Scope::Read].into(),
            models: Some((0..models).map(|number| ModelName::new(&format!("m{number}")).unwrap()).collect()),
            expires_at_unix_ms: None,
            allowance: Allowance::default(),
        };
        let mut registry = founded();
        let mut create = |id: &str, grant: Grant| {
            let key = KeyId(id.to_owned());
            registry.apply(&Command::CreateKey { key, grant, secret_hash: [0; 32], at_unix_ms: 1 })
        };
        let (name, models, text) =
            (limits::KEY_NAME_BYTES_MAX, limits::MODELS_PER_KEY_MAX, limits::ID_BYTES_MAX);
        assert_eq!(create(&"a".repeat(text), grant(name, models)), Reply::Done);
        assert_eq!(create(&"a".repeat(text + 1), grant(1, 1)), malformed(KeyField::Id));
        assert_eq!(create("", grant(1, 1)), malformed(KeyField::Id));
        assert_eq!(create("0g", grant(1, 1)), malformed(KeyField::Id));
        assert_eq!(create("0a", grant(name + 1, 1)), malformed(KeyField::Name));
        assert_eq!(create("0a", grant(0, 1)), malformed(KeyField::Name));
        assert_eq!(create("0a", grant(1, models + 1)), malformed(KeyField::Models));
        assert_eq!(create("0a", grant(1, 0)), malformed(KeyField::Models));
        assert_eq!(
            create("0a", Grant { scopes: BTreeSet::new(), ..grant(1, 1) }),
            malformed(KeyField::Scopes)
        );
        assert_eq!(create("0a", Grant { models: None, ..grant(1, 1) }), Reply::Done);
    }

    #[test]
    fn a_change_is_checked_like_a_creation() {
        let mut registry = after(&["key 0a secret=a name=ci scopes=read at=5"]);
        let change = Command::ChangeKey {
            key: id("0a"),
            revision: 1,
            grant: Grant {
                name: "\n".to_owned(),
                scopes: [Scope::Read].into(),
                models: None,
                expires_at_unix_ms: None,
                allowance: Allowance::default(),
            },
        };
        assert_eq!(registry.apply(&change), malformed(KeyField::Name));
    }

    #[test]
    fn a_key_opens_with_its_live_secrets_and_with_nothing_else() {
        let mut registry = after(&[
            "key 0a secret=a name=ci scopes=read at=5",
            "key-secret 0a 2 secret=b at=6",
            "key 0b secret=c name=ci scopes=read at=5",
        ]);
        let hash = |word: u8| [word; 32];
        let opens = |registry: &Registry| {
            let key = registry.key(&id("0a")).unwrap();
            [b'a', b'b', b'c'].map(|word| key.opens_with(&hash(word)))
        };
        assert_eq!(opens(&registry), [true, true, false]);
        for wrong in 0..32 {
            let mut almost = hash(b'a');
            almost[wrong] ^= 1;
            assert!(!registry.key(&id("0a")).unwrap().opens_with(&almost), "byte {wrong}");
        }
        registry.apply(&command("drop-secret 0a 1"));
        assert_eq!(opens(&registry), [false, true, false]);
        registry.apply(&command("revoke-key 0a at=7"));
        assert_eq!(opens(&registry), [false; 3]);
    }

    #[test]
    fn a_grant_says_which_models_and_until_when() {
        let registry = after(&[
            "key 0a secret=a name=ci scopes=inference models=org/a,b expires=100 at=5",
            "key 0b secret=a name=ci scopes=inference at=5",
        ]);
        let (listed, any) =
            (&registry.key(&id("0a")).unwrap().grant, &registry.key(&id("0b")).unwrap().grant);
        assert_eq!(
            ["org/a", "b", "a", "org/b", ""].map(|model| listed.allows(model)),
            [true, true, false, false, false]
        );
        assert!(any.allows("whatever"));
        assert_eq!([99, 100, 101].map(|now| listed.has_expired(now)), [false, true, true]);
        assert!(!any.has_expired(u64::MAX));
    }

    #[test]
    fn two_administrators_do_not_overwrite_each_other() {
        let mut registry = after(&[
            "key 0a secret=a name=ci scopes=inference,admin at=5",
            "change-key 0a revision=1 name=ci scopes=inference",
        ]);
        let late = registry.apply(&command("change-key 0a revision=1 name=renamed scopes=inference,admin"));
        let stale = KeyRefusal::StaleRevision { key: id("0a"), revision: 1, next: 2 };
        assert_eq!(late, Reply::Refused(Refusal::Key(stale)));
    }

    #[test]
    fn only_what_ends_a_right_takes_one_away() {
        for line in
            ["revoke 1", "revoke-key 0a at=1", "drop-secret 0a 1", "by local-1 at=2: revoke-key 0a at=2"]
        {
            assert!(command(line).takes_rights_away(), "{line}");
        }
        for line in [
            "key 0a secret=a name=ci scopes=read at=1",
            "change-key 0a revision=1 name=ci scopes=read",
            "key-secret 0a 2 secret=a at=1",
            "by local-1 at=2: drain 1",
            "token t1 secret=a role=agent expires=9",
            "unwant 1 demo",
        ] {
            assert!(!command(line).takes_rights_away(), "{line}");
        }
    }

    #[test]
    fn the_trail_keeps_its_last_entries_and_their_chain() {
        let mut registry = founded();
        let over = limits::AUDIT_ENTRIES_MAX as u64 + 3;
        for number in 1..=over {
            registry.apply(&command(&format!("by local-1 at={number}: revoke 9")));
        }
        let trail = registry.audit();
        assert_eq!(trail.len(), limits::AUDIT_ENTRIES_MAX);
        assert_eq!((trail[0].number, trail[trail.len() - 1].number), (4, over));
        assert_eq!(verify(trail), Ok(()));
    }

    #[test]
    fn a_trail_that_was_rewritten_from_its_beginning_does_not_begin_at_one() {
        let registry = after(&["by local-1 at=1: key 0a secret=a name=ci scopes=read at=1"]);
        let mut forged = registry.audit().to_vec();
        assert_eq!(verify(&forged), Ok(()));
        assert_eq!(verify(&[]), Ok(()));
        forged[0].number = 0;
        assert_eq!(verify(&forged), Err(BrokenTrail::Altered { number: 0 }));
        assert_eq!(BrokenTrail::Altered { number: 7 }.to_string(), "entry 7 is not as it was written");
        assert_eq!(BrokenTrail::Gap { number: 7 }.to_string(), "entry 7 does not follow the one before it");
    }

    #[test]
    fn the_chain_is_the_same_in_every_version() {
        let registry = after(&[
            "by local-1 at=1: key 0a secret=a name=ci scopes=read at=1",
            "by 0a at=2: revoke-key 0a at=2",
        ]);
        let hashes: Vec<_> = serde_json::to_value(registry.audit())
            .unwrap()
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["hash"].as_str().unwrap()[..16].to_owned())
            .collect();
        assert_eq!(hashes, ["0b48fac6b6bca6b6", "22b122cdd46c6763"]);
    }

    #[test]
    fn an_action_is_one_line_that_fits() {
        let words = |line: &str, name: &str| {
            let mut key = command(line);
            if let Command::CreateKey { grant, .. } = &mut key {
                grant.name = name.to_owned();
            }
            let Command::Audited { action, .. } = key.audited("local-1", 1) else { panic!("audited") };
            action
        };
        let line = "key 0a secret=a name=ci scopes=read at=1";
        assert!(words(line, "a\nb\u{1b}[2J").contains("name 'a b [2J'"));
        for name in ["n".repeat(limits::AUDIT_ACTION_BYTES_MAX), "é".repeat(limits::AUDIT_ACTION_BYTES_MAX)]
        {
            let long = words(line, &name);
            assert!(long.ends_with('…') && long.len() <= limits::AUDIT_ACTION_BYTES_MAX, "{}", long.len());
            assert!(long.len() > limits::AUDIT_ACTION_BYTES_MAX - 5);
        }
        let mut registry = founded();
        let long = Command::Audited {
            by: "local-1".to_owned(),
            at_unix_ms: 1,
            action: "a".repeat(limits::AUDIT_ACTION_BYTES_MAX + 1),
            command: Box::new(command(line)),
        };
        assert_eq!(registry.apply(&long), malformed(KeyField::Action));
        assert!(!registry.is_keyed(), "what is not noted is not done");
    }
}
