//! What happens when a collection of facts is full: what gives way, in which order, and when nothing can.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use registry::{
        Bounded, Command, Digest, Field, Fingerprint, JobId, JobRun, KeptAnswer, Life, ModelName,
        ModelSource, NodeId, Refusal, Registry, Reply, ResponseChange, Tenant, limits,
    };

    use super::script::command;

    /// Agents 1 and 2.
    fn farm() -> Registry {
        let mut registry = Registry::default();
        for line in [
            "found farm at=1",
            "token t secret=a role=agent expires=9",
            "admit mini-01 key=01 token=t secret=a at=2",
            "admit mini-02 key=02 token=t secret=a at=2",
        ] {
            assert!(!matches!(registry.apply(&command(line)), Reply::Refused(_)), "{line}");
        }
        registry
    }

    fn apply(registry: &mut Registry, line: &str) -> Reply {
        registry.apply(&command(line))
    }

    fn done(registry: &mut Registry, line: &str) {
        assert_eq!(apply(registry, line), Reply::Done, "{line}");
    }

    fn full(what: Bounded, limit: usize) -> Reply {
        Reply::Refused(Refusal::TooMany { what, limit })
    }

    #[test]
    fn a_policy_too_many_is_refused_until_one_is_the_default_again() {
        let mut registry = farm();
        for number in 0..limits::MODEL_POLICIES_MAX {
            done(&mut registry, &format!("policy m{number} min=1"));
        }
        let too_many = full(Bounded::ModelPolicies, limits::MODEL_POLICIES_MAX);
        assert_eq!(apply(&mut registry, "policy more min=1"), too_many);
        assert_eq!(apply(&mut registry, "policy more"), Reply::AlreadySo, "the default needs no place");
        done(&mut registry, "policy m7 min=2");
        done(&mut registry, "policy m7");
        done(&mut registry, "policy more min=1");
        assert_eq!(registry.policies().count(), limits::MODEL_POLICIES_MAX);
    }

    #[test]
    fn golden_ids_of_a_model_that_nobody_offers_give_way_by_name() {
        let mut registry = farm();
        done(&mut registry, "want 1 a0000 demo");
        for number in 0..limits::GOLDENS_MAX {
            done(&mut registry, &format!("golden a{number:04} card=01 ids=1"));
        }
        let golden = |registry: &Registry, name: &str| {
            registry.golden(&ModelName::new(name).unwrap(), "01").map(<[u32]>::to_vec)
        };
        done(&mut registry, "golden more card=01 ids=2");
        assert_eq!(golden(&registry, "a0000"), Some(vec![1]), "it is offered");
        assert_eq!(golden(&registry, "a0001"), None);
        assert_eq!(golden(&registry, "a0002"), Some(vec![1]));
        assert_eq!(golden(&registry, "more"), Some(vec![2]));
        // A known one takes no place from another.
        done(&mut registry, "golden a0005 card=02 ids=3");
        assert_eq!(golden(&registry, "a0002"), Some(vec![1]));
    }

    #[test]
    fn golden_ids_too_many_are_refused_only_when_every_model_is_offered() {
        let mut registry = farm();
        let nodes = limits::GOLDENS_MAX / limits::MODELS_PER_NODE_MAX;
        for node in 3..=nodes {
            apply(&mut registry, &format!("admit mini key=a{node:x} token=t secret=a at=2"));
        }
        for number in 0..limits::GOLDENS_MAX {
            let node = number / limits::MODELS_PER_NODE_MAX + 1;
            done(&mut registry, &format!("want {node} m{number} demo"));
            done(&mut registry, &format!("golden m{number} card=01 ids=1"));
        }
        let too_many = full(Bounded::Goldens, limits::GOLDENS_MAX);
        assert_eq!(apply(&mut registry, "golden more card=01 ids=1"), too_many);
        done(&mut registry, "unwant 1 m9");
        done(&mut registry, "golden more card=01 ids=1");
        assert_eq!(registry.golden(&ModelName::new("m9").unwrap(), "01"), None);
    }

    #[test]
    fn a_full_node_forgets_the_breaker_that_moved_longest_ago_of_a_model_it_offers_no_more() {
        let mut registry = farm();
        done(&mut registry, "breaker 1 * open generation=9 opens=1 at=1 because it is hot");
        done(&mut registry, "want 1 kept demo");
        done(&mut registry, "breaker 1 kept open generation=9 opens=1 at=2 because it hung");
        for number in 1..limits::BREAKERS_PER_NODE_MAX {
            // m1 moved last but one, m2 longest ago.
            let at = if number == 1 { 900 } else { number + 10 };
            done(&mut registry, &format!("want 1 m{number} demo"));
            let moved = format!("breaker 1 m{number} open generation=9 opens=1 at={at} because it hung");
            done(&mut registry, &moved);
            done(&mut registry, &format!("unwant 1 m{number}"));
        }
        assert_eq!(registry.breakers().count(), limits::BREAKERS_PER_NODE_MAX + 1);
        let there = |registry: &Registry, name: &str| {
            registry.breakers().any(|(_, model, _)| model.is_some_and(|model| model.as_str() == name))
        };
        // One that is there moves in place.
        done(&mut registry, "breaker 1 kept closed generation=10 opens=0 at=3 because it answers");
        assert!(there(&registry, "m2"));
        done(&mut registry, "want 1 new demo");
        done(&mut registry, "breaker 1 new open generation=1 opens=1 at=990 because it hung");
        assert_eq!(registry.breakers().count(), limits::BREAKERS_PER_NODE_MAX + 1);
        assert!(!there(&registry, "m2") && there(&registry, "m1") && there(&registry, "kept"));
        assert!(there(&registry, "m3") && there(&registry, "new"));
        assert!(registry.breakers().any(|(_, model, _)| model.is_none()), "the node's own takes no place");
    }

    #[test]
    fn of_many_charged_requests_the_one_whose_last_death_is_oldest_is_forgotten() {
        let mut registry = farm();
        for number in 0..limits::CHARGES_MAX {
            done(&mut registry, &format!("charge {number:x} node=1 at={}", 1000 + number));
        }
        // The first is charged anew, so the second is now the oldest.
        done(&mut registry, "charge 0 node=2 at=9000");
        done(&mut registry, "charge ffff node=1 at=5");
        assert_eq!(registry.charges().count(), limits::CHARGES_MAX);
        assert_eq!(registry.deaths(Fingerprint(1)), 0);
        assert_eq!(registry.deaths(Fingerprint(0)), 2);
        assert_eq!(registry.deaths(Fingerprint(0xffff)), 1, "a new one is always taken");
        done(&mut registry, "charge fffe node=1 at=9001");
        assert_eq!(registry.deaths(Fingerprint(0xffff)), 0, "its death was the oldest");
        // A pardon makes room.
        done(&mut registry, "pardon 2");
        done(&mut registry, "charge fffd node=1 at=9002");
        assert_eq!(registry.deaths(Fingerprint(3)), 1);
        // What is refused displaces nothing.
        assert!(matches!(apply(&mut registry, "charge fffc node=7 at=9003"), Reply::Refused(_)));
        assert_eq!(registry.deaths(Fingerprint(3)), 1);
    }

    #[test]
    fn of_charges_equally_old_the_lowest_fingerprint_is_forgotten() {
        let mut registry = farm();
        for number in (0..limits::CHARGES_MAX).rev() {
            done(&mut registry, &format!("charge {number:x} node=1 at=1000"));
        }
        done(&mut registry, "charge ffff node=1 at=1000");
        assert_eq!(registry.deaths(Fingerprint(0)), 0);
        assert_eq!(registry.deaths(Fingerprint(1)), 1);
    }

    #[test]
    fn of_many_deaths_by_one_request_the_last_are_remembered() {
        let mut registry = farm();
        for at in 0..limits::DEATHS_PER_CHARGE_MAX {
            done(&mut registry, &format!("charge ab node=1 at={}", 100 + at));
        }
        done(&mut registry, "charge ab node=2 at=100");
        let deaths = |registry: &Registry| -> Vec<(u64, u64)> {
            let charges = registry.charges().flat_map(|(_, charge)| charge.deaths());
            charges.map(|death| (death.at_unix_ms, death.node.0)).collect()
        };
        assert_eq!(registry.deaths(Fingerprint(0xab)), limits::DEATHS_PER_CHARGE_MAX);
        assert_eq!(deaths(&registry)[..2], [(100, 2), (101, 1)], "node 1 at 100 gave way");
        assert_eq!(apply(&mut registry, "charge ab node=2 at=100"), Reply::AlreadySo);
        done(&mut registry, "charge ab node=2 at=200");
        assert_eq!(deaths(&registry)[0], (101, 1));
    }

    #[test]
    fn of_many_quarantines_the_one_that_ends_first_is_forgotten() {
        let mut registry = farm();
        for number in 0..limits::QUARANTINES_MAX {
            done(&mut registry, &format!("quarantine {number:x} at=10 until={}", 1000 + number));
        }
        let held = |registry: &Registry, number| registry.quarantined(Fingerprint(number), 20).is_some();
        // The first is lengthened, so the second ends first.
        done(&mut registry, "quarantine 0 at=11 until=9000");
        done(&mut registry, "quarantine ffff at=12 until=13");
        assert_eq!(registry.quarantines().count(), limits::QUARANTINES_MAX);
        assert!(held(&registry, 0) && !held(&registry, 1) && held(&registry, 2));
        assert!(!held(&registry, 0xffff), "it is over at 13");
        done(&mut registry, "quarantine fffe at=14 until=9001");
        assert!(held(&registry, 2), "one that is over goes first");
        assert!(registry.quarantines().all(|(fingerprint, _)| fingerprint != Fingerprint(0xffff)));
    }

    #[test]
    fn a_quarantine_holds_until_its_end_and_says_it() {
        let mut registry = farm();
        done(&mut registry, "quarantine ab at=10 until=20");
        let until = |now| registry.quarantined(Fingerprint(0xab), now).map(|known| known.until_unix_ms);
        assert_eq!([until(0), until(19), until(20), until(21)], [Some(20), Some(20), None, None]);
        assert_eq!(registry.quarantined(Fingerprint(0xac), 15), None);
    }

    fn begin(number: u64, tenant: u64, at_unix_ms: u64) -> Command {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let (job, request) = (JobId(Digest(id)), Digest([1; 32]));
        let run = JobRun { replica: 1, life: Life(1), number };
        Command::BeginJob { job, tenant: Tenant(tenant), request, run, at_unix_ms }
    }

    /// So many jobs, begun at 2; each tenant has its share. Taken from a snapshot, because one by one takes its time.
    fn with_jobs(count: usize) -> Registry {
        let mut first = farm();
        assert_eq!(first.apply(&begin(0, 0, 2)), Reply::Done);
        let mut facts = serde_json::to_value(&first).unwrap();
        let jobs = facts["jobs"].as_object_mut().unwrap();
        let job = jobs.values().next().unwrap().clone();
        for number in 1..count {
            let mut job = job.clone();
            job["tenant"] = format!("{:016x}", number / limits::JOBS_PER_TENANT_MAX).into();
            jobs.insert(format!("{number:016x}{:048}", 0), job);
        }
        serde_json::from_value(facts).unwrap()
    }

    #[test]
    fn a_tenant_that_has_its_share_of_jobs_begins_no_more_until_one_is_over() {
        let most = limits::JOBS_PER_TENANT_MAX;
        let mut registry = with_jobs(most);
        assert_eq!(registry.apply(&begin(9_999, 0, 2)), full(Bounded::JobsOfTenant, most));
        assert_eq!(registry.apply(&begin(9_999, 1, 2)), Reply::Done);
        assert_eq!(registry.apply(&begin(9_998, 0, 2 + limits::JOB_RUN_MS)), Reply::Done);
    }

    fn deferred(number: u64, tenant: u64, at_unix_ms: u64) -> Command {
        let Command::BeginJob { job, run, .. } = begin(number, tenant, at_unix_ms) else {
            panic!("begun otherwise")
        };
        let question = KeptAnswer { digest: Digest([1; 32]), bytes: 1, holders: [1].into() };
        let change = ResponseChange::Begin { tenant: Tenant(tenant), key: None, question, run, at_unix_ms };
        Command::ChangeResponse { response: job, change }
    }

    #[test]
    fn only_so_many_responses_run_without_their_clients_and_the_end_of_one_makes_room() {
        let mut registry = farm();
        done(&mut registry, "raise 4 at=2");
        let (share, most) = (limits::RESPONSES_RUNNING_PER_TENANT_MAX, limits::RESPONSES_RUNNING_MAX);
        for number in 0..most {
            let tenant = u64::try_from(number / share).unwrap();
            assert_eq!(registry.apply(&deferred(u64::try_from(number).unwrap(), tenant, 2)), Reply::Done);
        }
        let more = |registry: &mut Registry, tenant| registry.apply(&deferred(9_999, tenant, 2));
        assert_eq!(more(&mut registry, 0), full(Bounded::RunningResponsesOfTenant, share));
        assert_eq!(more(&mut registry, 99), full(Bounded::RunningResponses, most));
        let Command::ChangeResponse { response, .. } = deferred(7, 0, 2) else { panic!("begun otherwise") };
        let dropped = Command::ChangeResponse { response, change: ResponseChange::Drop };
        assert_eq!(registry.apply(&dropped), Reply::Done);
        assert_eq!(more(&mut registry, 0), Reply::Done);
    }

    #[test]
    fn where_all_jobs_are_taken_none_begins_until_one_is_over() {
        let most = limits::JOBS_MAX;
        let mut registry = with_jobs(most);
        assert_eq!(registry.apply(&begin(99_999, 99, 2)), full(Bounded::Jobs, most));
        assert_eq!(registry.jobs().count(), most);
        let over = 2 + limits::JOB_RUN_MS;
        assert_eq!(registry.apply(&begin(99_999, 99, over)), Reply::Done);
        assert_eq!(registry.jobs().count(), 1, "those that are over are forgotten with that");
    }

    #[test]
    fn texts_and_lists_at_their_bounds_are_taken_and_beyond_refused() {
        let mut registry = farm();
        done(&mut registry, "want 1 m demo");
        let reason = "x".repeat(limits::BREAKER_WHY_BYTES_MAX);
        let moved = "breaker 1 m open generation=1 opens=1 at=1 because";
        let card = "0".repeat(limits::CARD_DIGEST_BYTES_MAX);
        let ids = vec!["7"; limits::GOLDEN_IDS_MAX].join(",");
        for (line, what) in [
            (format!("{moved} {reason}x"), Field::BreakerWhy),
            (format!("{moved} it\u{1b}[2J hung"), Field::BreakerWhy),
            (format!("golden m card={card}0 ids=1"), Field::CardDigest),
            ("golden m card=0g ids=1".to_owned(), Field::CardDigest),
            (format!("golden m card={card} ids={ids},7"), Field::GoldenIds),
        ] {
            assert_eq!(apply(&mut registry, &line), Reply::Refused(Refusal::Malformed { what }), "{line}");
        }
        let none = Command::SetGolden {
            model: ModelName::new("m").unwrap(),
            card_digest: card.clone(),
            ids: Vec::new(),
        };
        let malformed = Refusal::Malformed { what: Field::GoldenIds };
        assert_eq!(registry.apply(&none), Reply::Refused(malformed));
        done(&mut registry, &format!("{moved} {reason}"));
        done(&mut registry, &format!("golden m card={card} ids={ids}"));
    }

    #[test]
    fn every_model_that_a_node_may_offer_may_be_placed_there() {
        let mut registry = farm();
        done(&mut registry, &format!("budget 1 {}", limits::MODELS_PER_NODE_MAX));
        for number in 0..limits::MODELS_PER_NODE_MAX {
            let (node, model) = (NodeId(1), ModelName::new(&format!("m{number}")).unwrap());
            registry.apply(&Command::WantModel { node, model, source: ModelSource::Demo });
            done(&mut registry, &format!("place 1 m{number} 1"));
        }
        assert_eq!(registry.placed_on(NodeId(1)).count(), limits::MODELS_PER_NODE_MAX);
        assert_eq!(registry.reserved_bytes(NodeId(1)), limits::MODELS_PER_NODE_MAX as u64);
    }
}
