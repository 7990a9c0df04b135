//! One runtime: a model that is resident on a node, with its rows.
//!
//! Owns what a step of this runtime does and takes: one token for each decoding row, and a chunk of the one prefill under
//! way. Prefills are served one after another in order of arrival. Refuses to know the clock and the other runtimes of its
//! node; the node asks it for a [`Turn`] and tells it how many rounds have passed.

use std::collections::VecDeque;

use scheduler::{ModelId, RequestId};

use super::curve::Curve;
use super::row::{Decode, Notice, Prefill, Row};
use super::samples::Samples;
use crate::cache::Cache;
use crate::hardware::Speed;
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
    prefill: Option<Prefill>,
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
    /// Prompt tokens in each round.
    chunk: u32,
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
            prefill: None,
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
        self.rows.len() + usize::from(self.prefill.is_some())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running() == 0 && self.waiting.is_empty()
    }

    /// The row that may start its prefill as soon as there is memory for it.
    pub(crate) fn next_in_line(&self, rows_max: u32) -> Option<&Row> {
        let open = self.phase == Phase::Ready && self.prefill.is_none();
        self.waiting.front().filter(|_| open && self.rows.len() < rows_max as usize)
    }

    /// The first of the line starts its prefill.
    pub(crate) fn start_next(&mut self, work: &Workload) {
        let Some(row) = self.waiting.pop_front() else { return };
        self.reserved_tokens += u64::from(row.reserve);
        let blocks = self.cache.matched(work.prompt(row.chain)) as u32;
        // The last token of a prompt is always computed: its output is the first token of the answer.
        let cached = (blocks * BLOCK_TOKENS).min(row.prompt.saturating_sub(1));
        let left = row.prompt - cached;
        self.prefill = Some(Prefill { row, cached, left, context: cached, started: false, spent_s: 0.0 });
    }

    /// What the lane will do in each round from now on; nothing when it has nothing to do.
    pub(crate) fn plan(&mut self, slowdown: f64) -> Option<Turn> {
        self.turn = None;
        if self.phase != Phase::Ready || self.running() == 0 {
            return None;
        }
        let (decode, steps) = self.decode_turn();
        let (prefill, chunks, chunk) = self.prefill_turn();
        let (decode, prefill) = (decode.scaled(slowdown), prefill.scaled(slowdown));
        self.turn = Some(Turn { decode, prefill, chunk, rounds: steps.min(chunks) });
        self.turn
    }

    fn decode_turn(&self) -> (Curve, u64) {
        let Some(ends) = self.rows.iter().map(|row| row.ends).min() else {
            return (Curve::default(), u64::MAX);
        };
        let rows = self.rows.len() as f64;
        let first = self.speed.step_s(rows, self.kv_tokens);
        let curve = Curve { lead: 0.0, first, growth: self.speed.kv_token_s * rows };
        (curve.scaled(self.noise / rows), ends - self.steps)
    }

    /// Whole chunks while there are any before the last one, which may be shorter.
    fn prefill_turn(&self) -> (Curve, u64, u32) {
        let Some(prefill) = &self.prefill else { return (Curve::default(), u64::MAX, 0) };
        let whole = u64::from(prefill.left.saturating_sub(1) / self.chunk);
        let (chunk, rounds) = if whole > 0 { (self.chunk, whole) } else { (prefill.left, 1) };
        let tokens = f64::from(chunk);
        let curve = Curve {
            lead: if prefill.started { 0.0 } else { self.speed.overhead_s },
            first: self.speed.chunk_s(tokens, f64::from(prefill.context)),
            growth: self.speed.attention_pair_s * tokens * tokens,
        };
        (curve.scaled(prefill.row.noise), rounds, chunk)
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
        let rows = self.rows.len();
        if rows > 0 {
            if turn.chunk == 0 {
                self.samples.add(rows as u32, alone, rounds, self.kv_tokens, elapsed_s);
            }
            self.steps += rounds;
            self.kv_tokens += rows as f64 * rounds as f64;
            self.share_s += turn.decode.seconds(rounds) / rows as f64;
            self.end_rows(work, out);
        }
        self.pass_prefill(&turn, rounds, work, out);
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

    fn pass_prefill(&mut self, turn: &Turn, rounds: u64, work: &Workload, out: &mut Vec<Notice>) {
        let Some(prefill) = &mut self.prefill else { return };
        let tokens = turn.chunk * rounds as u32;
        prefill.started = true;
        prefill.left -= tokens;
        prefill.context += tokens;
        prefill.spent_s += turn.prefill.seconds(rounds);
        if prefill.left > 0 {
            return;
        }
        let Prefill { row, cached, spent_s, .. } = *prefill;
        if row.poison {
            out.push(Notice::Poisoned { model: self.model });
            return;
        }
        self.prefill = None;
        self.cache.insert(work.prompt(row.chain));
        out.push(Notice::Began { request: row.request, attempt: row.attempt, cached, prefill_s: spent_s });
        if row.output > 1 {
            self.join(row, spent_s);
        } else {
            self.reserved_tokens -= u64::from(row.reserve);
            out.push(self.ended(&row, spent_s, 0.0, work));
        }
    }

    fn join(&mut self, row: Row, prefill_s: f64) {
        self.kv_tokens += f64::from(row.prompt + 1);
        self.noise += row.noise;
        let ends = self.steps + u64::from(row.output - 1);
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
        if let Some(prefill) = self.prefill.take_if(|prefill| prefill.row.request == request) {
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
        let prefill = self.prefill.take();
        out.extend(prefill.map(|prefill| dropped(&prefill.row, 0, prefill.spent_s)));
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
            chunk: 0,
            rounds: 0,
        });
        let share_s = self.share_s + turn.decode.seconds(rounds) / self.rows.len().max(1) as f64;
        for decode in &self.rows {
            tell(decode.row.request, decode.prefill_s + share_s - decode.joined_s);
        }
        if let Some(prefill) = &self.prefill {
            tell(prefill.row.request, prefill.spent_s + turn.prefill.seconds(rounds));
        }
    }
}

fn dropped(row: &Row, generated: u32, gpu_s: f64) -> Notice {
    Notice::Dropped { request: row.request, attempt: row.attempt, generated, gpu_s }
}
