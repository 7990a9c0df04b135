//! Every command in every phase of a process: exactly what comes of it.
//!
//! `tests/matrix.txt` is the whole table; `UPDATE=1` writes it. It is the proof that nothing was forgotten: a command in
//! a phase where it makes no sense is listed with `nothing`.

#[cfg(test)]
mod script;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::Path;

    use supervisor::{Limits, ModelState, Supervisor};

    use super::script::{key, tell};

    /// How to get model `a` (40 of 100 bytes) into each phase, at second 20. Its process is number 1.
    const PHASES: [(&str, &[&str]); 13] = [
        ("unknown", &[]),
        ("being prepared", &["@0 want a=0"]),
        ("being spawned", &["@20 want a=40"]),
        ("spawned", &["@20 want a=40", "@20 started 1 501"]),
        ("loading", &["@20 want a=40", "@20 started 1 501", "@20 hello 1"]),
        ("ready", &["@20 want a=40", "@20 started 1 501", "@20 hello 1", "@20 loaded 1 40"]),
        ("draining", &["@20 want a=40", "@20 started 1 501", "@20 hello 1", "@20 loaded 1 40", "@20 want"]),
        ("asked to stop", &["@20 want a=40", "@20 started 1 501", "@20 hello 1", "@20 want"]),
        (
            "asked to stop after a failure",
            &["@20 want a=40", "@20 hello 1", "@20 load-failed 1 final bad header"],
        ),
        ("killed as hung", &["@0 want a=40", "@1 hello 1", "@2 loaded 1 40", "@20 wake"]),
        ("killed after ignoring a stop", &["@0 want a=40", "@1 hello 1", "@2 want", "@20 wake"]),
        ("crashed", &["@0 want a=40", "@20 exited 1 signal=11 it hurt"]),
        ("failed for good", &["@0 want a=40", "@20 unresolvable a final no such folder"]),
    ];

    /// Each at second 21.
    const COMMANDS: [&str; 21] = [
        "want a=40",
        "want a=50",
        "want a=0",
        "want",
        "want a=40 b=70",
        "unresolvable a retry it is gone",
        "unresolvable a final it is gone",
        "started 1 501",
        "start-failed 1 no memory",
        "hello 1",
        "loaded 1 30",
        "loaded 1 60",
        "loaded 1 101",
        "load-failed 1 out of memory",
        "load-failed 1 final out of memory",
        "progress 1 0.04",
        "drained 1",
        "exited 1 code=0",
        "exited 1 signal=9 farewell",
        "drain",
        "wake",
    ];

    fn in_phase(steps: &[&str]) -> Supervisor {
        let mut supervisor = Supervisor::new(Limits::default(), 100);
        for step in steps {
            tell(&mut supervisor, step);
        }
        supervisor
    }

    #[test]
    fn every_command_in_every_phase_does_what_the_table_says() {
        let mut table = String::new();
        for (phase, steps) in PHASES {
            let before = in_phase(steps);
            writeln!(table, "# {phase}").unwrap();
            for command in COMMANDS {
                let mut supervisor = before.clone();
                let effects = tell(&mut supervisor, &format!("@21 {command}"));
                let effects = if effects.is_empty() { "nothing".to_owned() } else { effects.join(" | ") };
                writeln!(table, "{command}\n  {effects}").unwrap();
            }
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/matrix.txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &table).unwrap();
        }
        assert!(fs::read_to_string(file).unwrap() == table, "the table differs; it is:\n{table}");
    }

    #[test]
    fn the_phases_are_different_ones() {
        let phases: Vec<_> = PHASES.iter().map(|(_, steps)| in_phase(steps)).collect();
        for (index, phase) in phases.iter().enumerate() {
            assert!(!phases[..index].contains(phase), "{} is an earlier phase", PHASES[index].0);
        }
    }

    #[test]
    fn every_phase_ends_with_the_model_gone_when_it_is_no_longer_wanted() {
        for (phase, steps) in PHASES {
            let mut supervisor = in_phase(steps);
            tell(&mut supervisor, "@21 want");
            tell(&mut supervisor, "@22 exited 1 code=0");
            assert_eq!(supervisor.models().count(), 0, "{phase}");
            assert_eq!((supervisor.reserved_bytes(), supervisor.next_deadline()), (0, None), "{phase}");
        }
    }

    #[test]
    fn every_phase_leads_to_ready_when_the_model_is_wanted_anew() {
        for (phase, steps) in PHASES {
            let mut supervisor = in_phase(steps);
            tell(&mut supervisor, "@21 want");
            tell(&mut supervisor, "@22 want a=40");
            if supervisor.explain(key("a")).unwrap().state == ModelState::Stopping {
                tell(&mut supervisor, "@23 exited 1 code=0");
            }
            let incarnation = supervisor.explain(key("a")).unwrap().incarnation;
            let number = incarnation.unwrap_or_else(|| panic!("{phase}: not started")).0;
            tell(&mut supervisor, &format!("@24 hello {number}"));
            tell(&mut supervisor, &format!("@25 loaded {number} 40"));
            let state = supervisor.explain(key("a")).unwrap().state.to_string();
            assert_eq!(state, format!("ready in process {number}, 40 bytes"), "{phase}");
        }
    }
}
