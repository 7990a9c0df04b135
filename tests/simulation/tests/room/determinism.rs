//! The same seed gives the same bytes. Owns the comparison of whole reports; refuses golden files.

use simulation::experiment::run;
use simulation::{Options, simulate};

use crate::experiment;

#[test]
fn the_same_experiment_twice_gives_the_same_bytes() {
    let mut experiment = experiment("bad-day", 0.15);
    experiment.policies = ["mlx-serving", "p2c-ewma", "expected-completion"].map(str::to_string).to_vec();
    experiment.seeds = 2;
    let text = || {
        let report = run(&experiment).expect("a report");
        format!("{}{}{}", report.json(), report.table(), report.tenants())
    };
    assert_eq!(text(), text());
}

#[test]
fn another_seed_gives_another_run_of_the_same_kind() {
    let mut experiment = experiment("chat", 0.2);
    experiment.policies = vec!["jsq".to_string()];
    let mut first = |seed| {
        experiment.first_seed = seed;
        run(&experiment).expect("a report").rows[0].runs[0].1.clone()
    };
    let (one, two) = (first(1), first(2));
    assert_ne!(one, two);
    assert!((one.all.completion.mean / two.all.completion.mean - 1.0).abs() < 0.5);
}

#[test]
fn a_policy_s_numbers_do_not_depend_on_the_company_it_runs_in() {
    let mut experiment = experiment("eight-macs", 0.1);
    let row = |experiment: &simulation::experiment::Experiment| {
        let report = run(experiment).expect("a report");
        report.rows.into_iter().find(|row| row.policy == "p2c").expect("the row")
    };
    let in_company = row(&experiment);
    experiment.policies = vec!["p2c".to_string()];
    assert_eq!(row(&experiment), in_company);
}

#[test]
fn the_text_has_a_line_for_each_policy_and_the_shed_rate_beside_the_latencies() {
    let options = Options {
        preset: Some("chat".to_string()),
        policies: vec!["all".to_string()],
        hours: Some(0.02),
        by_tenant: true,
        ..Options::default()
    };
    let text = simulate(&options).expect("a table");
    assert!(text.starts_with("chat: 8 nodes, "), "{text}");
    for name in simulation::experiment::policy_names() {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing");
    }
    assert_eq!(text.matches("shed %").count(), 2, "in each of both tables");
}

#[test]
fn the_json_names_the_experiment_it_came_from() {
    let options = Options {
        preset: Some("chat".to_string()),
        policies: vec!["jsq".to_string()],
        hours: Some(0.02),
        json: true,
        ..Options::default()
    };
    let json: serde_json::Value = serde_json::from_str(&simulate(&options).expect("json")).expect("json");
    assert_eq!(json["experiment"]["name"], "chat");
    assert_eq!(json["rows"][0]["policy"], "jsq");
    assert!(json["rows"][0]["runs"][0][1]["all"]["first_token"]["p99"].as_f64().expect("a number") > 0.0);
}
