//! What the command line asks for, and the text it gets.
//!
//! Owns the way from options to an experiment and on to a text; the command line only parses and prints. Refuses to print and
//! to exit.

use crate::experiment::{Experiment, policy_names, run};
use crate::presets::{PRESETS, preset};
use crate::workload::Source;

/// Parsed options. What is absent stays as the preset or the file has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The name of a preset.
    pub preset: Option<String>,
    /// The path of an experiment in JSON.
    pub file: Option<String>,
    /// The path of a trace that replaces the workload's source.
    pub trace: Option<String>,
    /// Names of policies, or `all`.
    pub policies: Vec<String>,
    /// The share of the fleet's capacity that is asked for.
    pub load: Option<f64>,
    /// For how long requests arrive.
    pub hours: Option<f64>,
    /// How many seeds.
    pub seeds: Option<u64>,
    /// The first of them.
    pub first_seed: Option<u64>,
    /// Whether to answer in JSON.
    pub json: bool,
    /// Whether to add a table by class and tenant.
    pub by_tenant: bool,
    /// Whether to try the scheduler's laws after every event.
    pub checked: bool,
}

/// Runs what the options ask for and returns the report.
///
/// # Errors
/// What is missing, unknown or unreadable, in words for the person who typed it.
pub fn simulate(options: &Options) -> Result<String, String> {
    let experiment = experiment(options)?;
    let report = run(&experiment)?;
    if options.json {
        return Ok(report.json());
    }
    let tenants = if options.by_tenant { format!("\n{}", report.tenants()) } else { String::new() };
    Ok(format!("{}{tenants}", report.table()))
}

/// The experiment that the options describe.
///
/// # Errors
/// As [`simulate`].
fn experiment(options: &Options) -> Result<Experiment, String> {
    let mut experiment = match (&options.preset, &options.file) {
        (Some(name), None) => preset(name).ok_or_else(|| unknown(name))?,
        (None, Some(path)) => read(path)?,
        (Some(_), Some(_)) => return Err("a preset or a file, not both".to_string()),
        (None, None) => return Err(format!("name a preset or a file. {}", presets())),
    };
    if let Some(path) = &options.trace {
        experiment.workload.source = Source::Trace(path.clone());
        experiment.workload.load = None;
    }
    if options.policies.iter().any(|policy| policy == "all") {
        experiment.policies = policy_names().into_iter().map(str::to_string).collect();
    } else if !options.policies.is_empty() {
        experiment.policies.clone_from(&options.policies);
    }
    experiment.workload.load = options.load.or(experiment.workload.load);
    experiment.workload.hours = options.hours.unwrap_or(experiment.workload.hours);
    experiment.seeds = options.seeds.unwrap_or(experiment.seeds);
    experiment.first_seed = options.first_seed.unwrap_or(experiment.first_seed);
    experiment.checked |= options.checked;
    Ok(experiment)
}

fn read(path: &str) -> Result<Experiment, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))
}

fn unknown(name: &str) -> String {
    format!("no preset is called {name}. {}", presets())
}

fn presets() -> String {
    let lines = PRESETS.iter().map(|(name, meaning)| format!("\n  {name:<12} {meaning}"));
    format!("The presets are:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(preset: &str) -> Options {
        Options { preset: Some(preset.to_string()), ..Options::default() }
    }

    #[test]
    fn what_is_not_asked_for_stays_as_the_preset_has_it() {
        assert_eq!(experiment(&named("chat")), Ok(preset("chat").expect("a preset")));
    }

    #[test]
    fn options_replace_what_the_preset_has() {
        let options = Options {
            policies: vec!["jsq".to_string()],
            load: Some(0.3),
            hours: Some(0.1),
            seeds: Some(4),
            first_seed: Some(9),
            ..named("chat")
        };
        let experiment = experiment(&options).expect("an experiment");
        assert_eq!(experiment.policies, ["jsq"]);
        assert_eq!((experiment.workload.load, experiment.workload.hours), (Some(0.3), 0.1));
        assert_eq!((experiment.seeds, experiment.first_seed), (4, 9));
    }

    #[test]
    fn a_trace_keeps_its_pace_unless_a_load_is_asked_for() {
        let options = Options { trace: Some("trace.csv".to_string()), ..named("chat") };
        assert_eq!(experiment(&options).expect("an experiment").workload.load, None);
        let options = Options { load: Some(0.5), ..options };
        assert_eq!(experiment(&options).expect("an experiment").workload.load, Some(0.5));
    }

    #[test]
    fn errors_say_what_there_is() {
        let error = |options: &Options| simulate(options).expect_err("an error");
        assert!(error(&Options::default()).contains("eight-macs"));
        assert!(error(&named("nothing")).starts_with("no preset is called nothing. The presets are:"));
        let both = Options { file: Some("a.json".to_string()), ..named("chat") };
        assert_eq!(error(&both), "a preset or a file, not both");
        let no_policy = Options { policies: vec!["best".to_string()], hours: Some(0.01), ..named("chat") };
        assert!(error(&no_policy).starts_with("no policy is called best; there are mlx-serving,"));
        let no_trace = Options { trace: Some("nowhere.csv".to_string()), ..named("chat") };
        assert!(error(&no_trace).starts_with("nowhere.csv: "));
    }
}
