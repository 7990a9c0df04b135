//! What came out of an experiment, as a table and as JSON.
//!
//! Owns the two forms, which say the same and nothing of the machine they were made on. Refuses to show a latency without the
//! shed rate beside it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::bounds::Bounds;
use crate::experiment::Experiment;
use crate::metrics::{Latencies, Score};

/// The results of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// All that decides what came out.
    pub experiment: Experiment,
    /// How many nodes.
    pub nodes: usize,
    /// What no policy can beat, mean over the seeds.
    pub bounds: Bounds,
    /// One for each policy.
    pub rows: Vec<Row>,
}

/// One policy's results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub policy: String,
    /// By seed.
    pub runs: Vec<(u64, Score)>,
}

impl Row {
    pub(crate) fn new(policy: &str) -> Self {
        Self { policy: policy.to_string(), runs: Vec::new() }
    }

    pub(crate) fn add(&mut self, seed: u64, score: Score) {
        self.runs.push((seed, score));
    }

    /// A number of the score, mean over the seeds.
    pub fn mean(&self, number: impl Fn(&Score) -> f64) -> f64 {
        self.runs.iter().map(|(_, score)| number(score)).sum::<f64>() / self.runs.len().max(1) as f64
    }
}

impl Report {
    pub(crate) fn new(experiment: &Experiment, nodes: usize, bounds: Bounds, rows: Vec<Row>) -> Self {
        Self { experiment: experiment.clone(), nodes, bounds, rows }
    }

    /// All numbers, as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The numbers that matter, as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = self.heading();
        let mut lines = vec![COLUMNS.map(str::to_string).to_vec()];
        lines.extend(self.rows.iter().map(|row| self.line(row)));
        text.push_str(&aligned(&lines));
        text
    }

    fn heading(&self) -> String {
        let bounds = &self.bounds;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{}: {} nodes, {:.0} requests a seed, {} seeds, load {:.2}",
            self.experiment.name, self.nodes, bounds.requests, self.experiment.seeds, bounds.offered_load
        );
        let _ = writeln!(
            text,
            "bounds: alone TTFT {:.2} s, completion {:.2} s; pooled completion {:.2} s; hits {:.1} %",
            bounds.isolation_first_token_s,
            bounds.isolation_completion_s,
            bounds.pooled_completion_s,
            bounds.hit_rate * 100.0
        );
        text
    }

    fn line(&self, row: &Row) -> Vec<String> {
        let number = |pick: fn(&Score) -> f64| format!("{:.2}", row.mean(pick));
        let percent = |pick: fn(&Score) -> f64| format!("{:.1}", row.mean(pick) * 100.0);
        let completion_s = row.mean(|score| score.all.completion.mean);
        let gap = |bound_s: f64| format!("{:.2}", completion_s / bound_s.max(1e-9));
        let hits = row.mean(|score| score.hit_rate) / self.bounds.hit_rate.max(1e-9);
        let fairness: Vec<f64> = row.runs.iter().filter_map(|(_, score)| score.fairness).collect();
        let mean_fairness = fairness.iter().sum::<f64>() / fairness.len().max(1) as f64;
        vec![
            row.policy.clone(),
            number(|score| score.all.first_token.mean),
            number(|score| score.all.first_token.p50),
            number(|score| score.all.first_token.p95),
            number(|score| score.all.first_token.p99),
            number(|score| score.all.completion.mean),
            number(|score| score.all.completion.p50),
            number(|score| score.all.completion.p95),
            number(|score| score.all.completion.p99),
            percent(|score| score.all.shed),
            gap(self.bounds.isolation_completion_s),
            gap(self.bounds.pooled_completion_s),
            percent(|score| score.hit_rate),
            if self.bounds.hit_rate > 0.0 { format!("{hits:.2}") } else { "-".to_string() },
            format!("{:.0}", row.mean(|score| score.loads as f64)),
            if fairness.is_empty() { "-".to_string() } else { format!("{mean_fairness:.3}") },
            format!("{:.0}", row.mean(|score| score.wait_s_max)),
            format!("{}", row.runs.iter().map(|(_, score)| score.violations).sum::<usize>()),
            number(|score| score.virtual_hours),
        ]
    }

    /// Latencies of each tenant under each policy, for the first seed.
    #[must_use]
    pub fn tenants(&self) -> String {
        let mut lines = vec![TENANT_COLUMNS.map(str::to_string).to_vec()];
        for row in &self.rows {
            let Some((_, score)) = row.runs.first() else { continue };
            let groups = score.by_tenant.iter().map(|(tenant, group)| (format!("tenant {tenant}"), group));
            let classes = score.by_class.iter().map(|(class, group)| (class.clone(), group));
            lines.extend(classes.chain(groups).map(|(name, group)| group_line(&row.policy, name, group)));
        }
        aligned(&lines)
    }
}

const COLUMNS: [&str; 19] = [
    "policy",
    "TTFT mean",
    "p50",
    "p95",
    "p99",
    "done mean",
    "p50",
    "p95",
    "p99",
    "shed %",
    "/alone",
    "/pool",
    "hit %",
    "/max",
    "loads",
    "Jain",
    "wait max",
    "broken laws",
    "hours",
];

const TENANT_COLUMNS: [&str; 9] =
    ["policy", "group", "requests", "TTFT mean", "p50", "p95", "p99", "done mean", "shed %"];

fn group_line(policy: &str, group: String, latencies: &Latencies) -> Vec<String> {
    let first = latencies.first_token;
    vec![
        policy.to_string(),
        group,
        latencies.requests.to_string(),
        format!("{:.2}", first.mean),
        format!("{:.2}", first.p50),
        format!("{:.2}", first.p95),
        format!("{:.2}", first.p99),
        format!("{:.2}", latencies.completion.mean),
        format!("{:.1}", latencies.shed * 100.0),
    ]
}

/// The first column to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [["policy", "p50"], ["jsq", "12.25"]].map(|line| line.map(str::to_string).to_vec());
        assert_eq!(aligned(&lines), "policy    p50\njsq     12.25\n");
    }
}
