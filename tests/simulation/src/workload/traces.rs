//! Trace files as Azure and Mooncake publish them.
//!
//! Owns the reading of two formats and what is kept of a line. Refuses compressed files and anything it cannot read in full:
//! a trace with a broken line is an error, not a shorter trace.

use scheduler::Block;
use serde::Deserialize;

use crate::random::mixed;
use crate::request::BLOCK_TOKENS;

/// One request of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceLine {
    /// Since the first request.
    pub at_us: u64,
    /// Its prompt.
    pub prompt_tokens: u32,
    /// Its answer.
    pub output_tokens: u32,
    /// The hashes of its prompt's blocks, each standing for all blocks before it too; empty when the trace has none.
    pub hashes: Vec<u64>,
}

/// Prompt tokens that one hash of a Mooncake trace stands for.
const HASH_TOKENS: f64 = 512.0;

#[derive(Deserialize)]
struct MooncakeLine {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

/// All requests of the file in its order.
///
/// # Errors
/// The file or the line that cannot be read.
pub fn read_trace(path: &str) -> Result<Vec<TraceLine>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    parse(&text, path.ends_with(".csv")).map_err(|error| format!("{path}: {error}"))
}

fn parse(text: &str, is_csv: bool) -> Result<Vec<TraceLine>, String> {
    let parse_line = if is_csv { azure } else { mooncake };
    let numbered = text.lines().enumerate().skip(usize::from(is_csv)).filter(|(_, line)| !line.is_empty());
    let mut lines: Vec<TraceLine> = numbered
        .map(|(number, line)| parse_line(line).ok_or_else(|| format!("line {} makes no sense", number + 1)))
        .collect::<Result<_, _>>()?;
    let first = lines.iter().map(|line| line.at_us).min().unwrap_or(0);
    lines.iter_mut().for_each(|line| line.at_us -= first);
    Ok(lines)
}

/// `2023-11-16 18:15:46.6805900,374,44`
fn azure(line: &str) -> Option<TraceLine> {
    let mut fields = line.split(',');
    let at_us = clock(fields.next()?)?;
    let prompt_tokens = fields.next()?.trim().parse().ok()?;
    let output_tokens = fields.next()?.trim().parse().ok()?;
    Some(TraceLine { at_us, prompt_tokens, output_tokens, hashes: Vec::new() })
}

/// Microseconds since the first of the month: no trace spans two.
fn clock(timestamp: &str) -> Option<u64> {
    let (date, time) = timestamp.trim().split_once(' ')?;
    let day: f64 = date.rsplit('-').next()?.parse().ok()?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    Some((((day * 24.0 + hour) * 60.0 + minute) * 60.0 * 1e6 + second * 1e6) as u64)
}

fn mooncake(line: &str) -> Option<TraceLine> {
    let line: MooncakeLine = serde_json::from_str(line).ok()?;
    Some(TraceLine {
        at_us: (line.timestamp * 1e3) as u64,
        prompt_tokens: line.input_length,
        output_tokens: line.output_length,
        hashes: line.hash_ids,
    })
}

impl TraceLine {
    /// The blocks of its prompt when lengths are scaled: a block is known by the hash of what it ends in.
    pub(super) fn blocks(&self, prompt_tokens: u32, scale: f64, number: u64) -> Vec<Block> {
        let of_scaled = HASH_TOKENS * scale;
        (1..=prompt_tokens / BLOCK_TOKENS)
            .map(|count| {
                let ends = f64::from(count * BLOCK_TOKENS) / of_scaled;
                let hash = self.hashes.get((ends.ceil() as usize).saturating_sub(1));
                // Two blocks that end in the same hash are told apart by their number.
                let text = hash.copied().map_or(mixed(number) ^ 1, |hash| mixed(hash) << 1);
                Block(mixed(text ^ mixed(u64::from(count))))
            })
            .collect()
    }
}
