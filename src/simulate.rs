//! `mlx-serving simulate`: the real scheduler in a room of simulated Macs, beside the policies it must beat.
//!
//! Owns the way from flags to options and the printing. Refuses to know what is simulated: that is the simulator's.

use std::io::Write as _;
use std::time::Instant;

use anyhow::anyhow;

use crate::cli::{Output, Simulate};

pub(crate) fn run(options: &Simulate) -> anyhow::Result<()> {
    let started = Instant::now();
    let asked = simulation::Options {
        preset: options.preset.clone(),
        file: options.file.as_ref().map(|path| path.display().to_string()),
        trace: options.trace.as_ref().map(|path| path.display().to_string()),
        policies: options.policy.clone(),
        load: options.load,
        hours: options.hours,
        seeds: options.seeds,
        first_seed: options.first_seed,
        json: options.output == Output::Json,
        by_tenant: options.by_tenant,
        checked: options.checked,
    };
    let text = simulation::simulate(&asked).map_err(|words| anyhow!(words))?;
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    // Not part of the answer: the same seed prints the same bytes.
    writeln!(std::io::stderr(), "{:.1} s", started.elapsed().as_secs_f64())?;
    Ok(())
}
