//! One runtime: a model that is resident on a node, with its rows.
//!
//! Owns what a step of this runtime does and takes: a chunk of the prompts, then one token for each decoding row, those whose
//! prompt has just been read included: their first token comes with that step. Prompts are read side by side, each its share of
//! the chunk, in one call that takes for each of them what it takes for the longest. Refuses to know the clock and the other
//! runtimes of its node; the node asks it for a [`Turn`] and tells it how many rounds have passed.

use std::collections::VecDeque;

use scheduler::{ModelId, RequestId};

use super::curve::Curve;
use super::row::{Decode, Notice, Prefill, Row};
use super::samples::Samples;
use crate::cache::Cache;
use crate::hardware::Speed;
use crate::limits::{LONG_PREFILLS_MAX, PREFILLS_MAX};
use crate::request::{BLOCK_TOKENS, Workload};

/// Where a runtime is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its weights wait for the disk or for memory.
    Queued,
    /// Its weights are being read.
    Loading,
    /// It serves.
    Ready,
    /// It makes no progress and does not say so.
    Hung,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) model: ModelId,
    pub(crate) phase: Phase,
    /// It takes no new rows and leaves when the last one ends.
    pub(crate) leaving: bool,
    /// Its answers are garbage.
    pub(crate) lying: bool,
    /// The number of its load on this node, so that a late event of an old life is not taken for one of the new one.
    pub(crate) life: u32,
    pub(crate) waiting: VecDeque<Row>,
    pub(crate) samples: Samples,
    /// Prompt tokens between two decode steps.
    pub(crate) chunk: u32,
    speed: Speed,
    /// Prompts that are being read, the oldest first.
    prefills: Vec<Prefill>,
    rows: Vec<Decode>,
    cache: Cache,
    /// Tokens of KV memory set aside for the rows that hold a slot.
    pub(crate) reserved_tokens: u64,
    /// KV tokens of the decoding rows.
    kv_tokens: f64,
    noise: f64,
    steps: u64,
    /// Seconds of decoding that fall to each row, since the lane began.
    share_s: f64,
    turn: Option<Turn>,
}

/// What a lane does in each of the coming rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Turn {
    decode: Curve,
    prefill: Curve,
    /// Prompt tokens of each prefill in each round, as far as it has so many.
    share: u32,
    /// Rounds until something of this lane changes.
    pub(crate) rounds: u64,
}

impl Turn {
    pub(crate) fn curve(&self) -> Curve {
        self.decode + self.prefill
    }
}

impl Lane {
    pub(crate) fn new(model: ModelId, speed: Speed, chunk: u32, cache_blocks: usize) -> Self {
        Self {
            model,
            phase: Phase::Queued,
            leaving: false,
            lying: false,
            life: 0,
            waiting: VecDeque::new(),
            samples: Samples::default(),
            speed,
            chunk,
            prefills: Vec::new(),
            rows: Vec::new(),
            cache: Cache::new(cache_blocks),
            reserved_tokens: 0,
            kv_tokens: 0.0,
            noise: 0.0,
            steps: 0,
            share_s: 0.0,
            turn: None,
        }
    }

    /// Rows that hold a slot.
    pub(crate) fn running(&self) -> usize {
        self.rows.len() + self.prefills.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running() == 0 && self.waiting.is_empty()
    }

    /// Where in the line the row is that may start its prefill as soon as there is memory for it: the first, or the first with a
    /// short prompt while enough long ones are being read.
    pub(crate) fn next_in_line(&self, rows_max: u32, work: &Workload) -> Option<usize> {
        let full = self.running() >= rows_max as usize || self.prefills.len() >= PREFILLS_MAX;
        if full || self.phase != Phase::Ready {
            return None;
        }
        let long = self.prefills.iter().filter(|prefill| prefill.row.prompt - prefill.cached > self.chunk);
        let short_only = long.count() >= LONG_PREFILLS_MAX;
        self.waiting.iter().position(|row| {
            let cached = self.cache.length(work.prompt(row.chain)) as u32 * BLOCK_TOKENS;
            !short_only || row.prompt.saturating_sub(cached) <= self.chunk
        })
    }

    /// That row starts its prefill.
    pub(crate) fn start(&mut self, place: usize, work: &Workload) {
        let Some(row) = self.waiting.remove(place) else { return };
        self.reserved_tokens += u64::from(row.reserve);
        let blocks = self.cache.matched(work.prompt(row.chain)) as u32;
        // The last token of a prompt is always computed: its output is the first token of the answer. It is read with the others
        // here, and a runtime feeds it to the first step.
        let cached = (blocks * BLOCK_TOKENS).min(row.prompt.saturating_sub(1));
        let left = row.prompt - cached;
        self.prefills.push(Prefill { row, cached, left, context: cached, started: false, spent_s: 0.0 });
    }

    /// What the lane will do in each round from now on; nothing when it has nothing to do.
    pub(crate) fn plan(&mut self, slowdown: f64) -> Option<Turn> {
        self.turn = None;
        if self.phase != Phase::Ready || self.running() == 0 {
            return None;
        }
        let (prefill, chunks, share) = self.prefill_turn();
        let (decode, steps) = self.decode_turn(share);
        let (decode, prefill) = (decode.scaled(slowdown), prefill.scaled(slowdown));
        self.turn = Some(Turn { decode, prefill, share, rounds: steps.min(chunks) });
        self.turn
    }

    /// A step of the decoding rows and of those whose last share of the prompt comes before it.
    fn decode_turn(&self, share: u32) -> (Curve, u64) {
        let ends = self.rows.iter().map(|row| row.ends).min();
        let (mut rows, mut kv_tokens, mut noise) = (self.rows.len() as f64, self.kv_tokens, self.noise);
        for prefill in self.prefills.iter().filter(|prefill| prefill.left <= share && !prefill.row.poison) {
            rows += 1.0;
            kv_tokens += f64::from(prefill.row.prompt);
            noise += prefill.row.noise;
        }
        let first = self.speed.step_s(rows, kv_tokens);
        let curve = Curve { lead: 0.0, first, growth: self.speed.kv_token_s * rows };
        (curve.scaled(noise / rows.max(1.0)), ends.map_or(u64::MAX, |ends| ends - self.steps))
    }

    /// Whole shares while no prompt comes to its last one, which may be shorter.
    fn prefill_turn(&self) -> (Curve, u64, u32) {
        let Some(least) = self.prefills.iter().map(|prefill| prefill.left).min() else {
            return (Curve::default(), u64::MAX, 0);
        };
        let share = (self.chunk / self.prefills.len() as u32).max(1);
        let whole = u64::from(least.saturating_sub(1) / share);
        let longest = self.prefills.iter().map(|prefill| prefill.left.min(share)).max().unwrap_or(0);
        let curves = self.prefills.iter().map(|prefill| self.prefill_curve(prefill, longest));
        (curves.fold(Curve::default(), |sum, curve| sum + curve), whole.max(1), share)
    }

    fn prefill_curve(&self, prefill: &Prefill, tokens: u32) -> Curve {
        let tokens = f64::from(tokens);
        let curve = Curve {
            lead: if prefill.started { 0.0 } else { self.speed.overhead_s },
            first: self.speed.chunk_s(tokens, f64::from(prefill.context)),
            growth: self.speed.attention_pair_s * tokens * tokens,
        };
        curve.scaled(prefill.row.noise)
    }

    /// `rounds` of the plan have passed, in `elapsed_s` of the node; `alone` when no other lane had a turn in them.
    pub(crate) fn pass(
        &mut self,
        rounds: u64,
        elapsed_s: f64,
        alone: bool,
        work: &Workload,
        out: &mut Vec<Notice>,
    ) {
        let Some(turn) = self.turn.filter(|_| rounds > 0) else { return };
        self.pass_prefills(&turn, rounds, work, out);
        let rows = self.rows.len();
        if rows > 0 {
            let decode_s = turn.decode.seconds(rounds);
            let of_decode = decode_s / turn.curve().seconds(rounds);
            self.samples.add(rows as u32, alone, rounds, self.kv_tokens, elapsed_s * of_decode);
            self.steps += rounds;
            self.kv_tokens += rows as f64 * rounds as f64;
            self.share_s += decode_s / rows as f64;
            self.end_rows(work, out);
        }
    }

    fn end_rows(&mut self, work: &Workload, out: &mut Vec<Notice>) {
        let mut index = 0;
        while let Some(decode) = self.rows.get(index) {
            if decode.ends > self.steps {
                index += 1;
                continue;
            }
            let decode = self.take(index);
            out.push(self.ended(&decode.row, decode.prefill_s, self.share_s - decode.joined_s, work));
        }
    }

    /// Each prompt is read by its share, and the call's time is told of each in equal parts. Who is through joins the step.
    fn pass_prefills(&mut self, turn: &Turn, rounds: u64, work: &Workload, out: &mut Vec<Notice>) {
        let spent_s = turn.prefill.seconds(rounds) / self.prefills.len().max(1) as f64;
        for prefill in &mut self.prefills {
            let tokens = (turn.share * rounds as u32).min(prefill.left);
            prefill.started = true;
            prefill.left -= tokens;
            prefill.context += tokens;
            prefill.spent_s += spent_s;
        }
        if self.prefills.iter().any(|prefill| prefill.left == 0 && prefill.row.poison) {
            return out.push(Notice::Poisoned { model: self.model });
        }
        for read in self.prefills.extract_if(.., |prefill| prefill.left == 0).collect::<Vec<_>>() {
            self.join(&read, work, out);
        }
    }

    fn join(&mut self, read: &Prefill, work: &Workload, out: &mut Vec<Notice>) {
        let Prefill { row, cached, spent_s: prefill_s, .. } = *read;
        self.cache.insert(work.prompt(row.chain));
        out.push(Notice::Began { request: row.request, attempt: row.attempt, cached, prefill_s });
        self.kv_tokens += f64::from(row.prompt);
        self.noise += row.noise;
        let ends = self.steps + u64::from(row.output);
        self.rows.push(Decode { row, ends, joined_s: self.share_s, prefill_s });
    }

    fn ended(&mut self, row: &Row, prefill_s: f64, decode_s: f64, work: &Workload) -> Notice {
        self.cache.insert(work.whole(row.chain));
        Notice::Ended {
            request: row.request,
            attempt: row.attempt,
            generated: row.output,
            prefill_s,
            gpu_s: prefill_s + decode_s,
        }
    }

    fn take(&mut self, index: usize) -> Decode {
        let decode = self.rows.remove(index);
        self.kv_tokens -= f64::from(decode.row.prompt) + self.generated(&decode);
        self.noise -= decode.row.noise;
        self.reserved_tokens -= u64::from(decode.row.reserve);
        if self.rows.is_empty() {
            (self.kv_tokens, self.noise) = (0.0, 0.0);
        }
        decode
    }

    fn generated(&self, decode: &Decode) -> f64 {
        f64::from(decode.row.output) - decode.ends.saturating_sub(self.steps) as f64
    }

    /// Takes a row out, wherever it is. The node has settled before, so no turn counts on it.
    pub(crate) fn drop_row(&mut self, request: RequestId) -> Option<Notice> {
        if let Some(index) = self.waiting.iter().position(|row| row.request == request) {
            return self.waiting.remove(index).map(|row| dropped(&row, 0, 0.0));
        }
        if let Some(index) = self.prefills.iter().position(|prefill| prefill.row.request == request) {
            let prefill = self.prefills.remove(index);
            self.reserved_tokens -= u64::from(prefill.row.reserve);
            return Some(dropped(&prefill.row, 0, prefill.spent_s));
        }
        let index = self.rows.iter().position(|decode| decode.row.request == request)?;
        Some(self.drop_decode(index))
    }

    fn drop_decode(&mut self, index: usize) -> Notice {
        let generated = self.rows.get(index).map_or(0.0, |decode| self.generated(decode)) as u32;
        let decode = self.take(index);
        dropped(&decode.row, generated, decode.prefill_s + self.share_s - decode.joined_s)
    }

    /// The runtime dies: its rows, its line and its cache are gone.
    pub(crate) fn die(&mut self, out: &mut Vec<Notice>) {
        while !self.rows.is_empty() {
            out.push(self.drop_decode(0));
        }
        out.extend(self.prefills.drain(..).map(|prefill| dropped(&prefill.row, 0, prefill.spent_s)));
        out.extend(self.waiting.drain(..).map(|row| dropped(&row, 0, 0.0)));
        self.cache.clear();
        (self.turn, self.reserved_tokens) = (None, 0);
        self.lying = false;
        self.phase = Phase::Queued;
    }

    /// Longest time that a step may take, as the agent expects it.
    pub(crate) fn expected_step_s(&self) -> f64 {
        let chunk = f64::from(self.chunk);
        self.speed.step_s(self.rows.len().max(1) as f64, self.kv_tokens) + self.speed.chunk_s(chunk, 0.0)
    }

    /// GPU seconds of each row that holds a slot, with what `rounds` of the plan add.
    pub(crate) fn served(&self, rounds: u64, mut tell: impl FnMut(RequestId, f64)) {
        let turn = self.turn.unwrap_or(Turn {
            decode: Curve::default(),
            prefill: Curve::default(),
            share: 0,
            rounds: 0,
        });
        let share_s = self.share_s + turn.decode.seconds(rounds) / self.rows.len().max(1) as f64;
        for decode in &self.rows {
            tell(decode.row.request, decode.prefill_s + share_s - decode.joined_s);
        }
        let prefill_s = turn.prefill.seconds(rounds) / self.prefills.len().max(1) as f64;
        self.prefills.iter().for_each(|prefill| tell(prefill.row.request, prefill.spent_s + prefill_s));
    }
}

fn dropped(row: &Row, generated: u32, gpu_s: f64) -> Notice {
    Notice::Dropped { request: row.request, attempt: row.attempt, generated, gpu_s }
}
