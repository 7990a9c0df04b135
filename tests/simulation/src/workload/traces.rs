//! Trace files as Azure and Mooncake publish them.
//!
//! Owns the reading of two formats and what is kept of a line; a line of Mooncake's may also say which model is asked for and
//! what the client's bound is. Refuses compressed files and anything it cannot read in full: a trace with a broken line is an
//! error, not a shorter trace.

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
    /// The number of its model; drawn when the trace has none.
    pub model: Option<u32>,
    /// The most tokens it may generate; a usual bound when the trace has none.
    pub max_tokens: Option<u32>,
}

/// Prompt tokens that one hash of a Mooncake trace stands for.
const HASH_TOKENS: f64 = 512.0;

#[derive(Deserialize)]
struct MooncakeLine {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
    model: Option<u32>,
    max_length: Option<u32>,
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
    Some(TraceLine { at_us, prompt_tokens, output_tokens, hashes: Vec::new(), model: None, max_tokens: None })
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
        model: line.model,
        max_tokens: line.max_length,
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
                let text = hash.copied().map_or(mixed(mixed(number)) | 1, |hash| mixed(hash) << 1);
                Block(mixed(text ^ mixed(u64::from(count))))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2023-11-16 18:15:46.6805900,374,44\n\
        2023-11-17 00:00:01.0000000,396,109\n";
    const MOONCAKE: &str =
        "{\"timestamp\": 40, \"input_length\": 1100, \"output_length\": 6, \"hash_ids\": [7, 8, 9]}\n";

    fn line(prompt_tokens: u32, output_tokens: u32, hashes: &[u64]) -> TraceLine {
        let hashes = hashes.to_vec();
        TraceLine { at_us: 0, prompt_tokens, output_tokens, hashes, model: None, max_tokens: None }
    }

    #[test]
    fn azure_s_lines_are_times_and_lengths() {
        let lines = parse(AZURE, true).expect("a trace");
        let line = |at_us, prompt_tokens, output_tokens| TraceLine {
            at_us,
            prompt_tokens,
            output_tokens,
            hashes: vec![],
            model: None,
            max_tokens: None,
        };
        assert_eq!(lines, [line(0, 374, 44), line(20_654_319_410, 396, 109)]);
    }

    #[test]
    fn mooncake_s_lines_carry_the_hashes_of_their_blocks() {
        let lines = parse(MOONCAKE, false).expect("a trace");
        assert_eq!(lines, [line(1_100, 6, &[7, 8, 9])]);
    }

    #[test]
    fn a_line_may_name_its_model_and_its_bound() {
        let text = MOONCAKE.replace('}', ", \"model\": 2, \"max_length\": 9}");
        let expected = TraceLine { model: Some(2), max_tokens: Some(9), ..line(1_100, 6, &[7, 8, 9]) };
        assert_eq!(parse(&text, false), Ok(vec![expected]));
    }

    #[test]
    fn a_broken_line_is_an_error_with_its_number() {
        assert_eq!(parse("header\n1,2\n", true), Err("line 2 makes no sense".to_string()));
        assert_eq!(parse("{}\n", false), Err("line 1 makes no sense".to_string()));
    }

    fn blocks(hashes: &[u64], prompt_tokens: u32, scale: f64) -> Vec<Block> {
        line(prompt_tokens, 1, hashes).blocks(prompt_tokens, scale, 3)
    }

    #[test]
    fn a_hash_of_512_tokens_is_two_blocks_and_a_quarter_of_it_half_a_block() {
        let whole = blocks(&[7, 8, 9], 1_100, 1.0);
        assert_eq!(whole.len(), 4);
        assert_eq!(blocks(&[7, 8, 1], 1_100, 1.0), whole, "the third hash has no whole block");
        assert_eq!(blocks(&[7, 1, 1], 1_100, 1.0)[..2], whole[..2]);
        assert_ne!(blocks(&[7, 1, 1], 1_100, 1.0)[2], whole[2]);
        let quarter = blocks(&[7, 8, 9], 275, 0.25);
        assert_eq!(quarter.len(), 1);
        assert_eq!(blocks(&[7, 8, 1], 275, 0.25), quarter);
        assert_ne!(blocks(&[7, 1, 1], 275, 0.25), quarter);
    }

    #[test]
    fn prompts_without_hashes_share_nothing() {
        let line = |number| line(512, 1, &[]).blocks(512, 1.0, number);
        assert_eq!(line(1).len(), 2);
        assert!(line(1).iter().all(|block| !line(2).contains(block)));
    }
}
