//! Tenants, their conversations and the requests these make.
//!
//! Owns the drawing of a workload from its plan: each tenant begins sessions at its own pace and with its own system prompt;
//! each turn of a session asks with all that was said before. Turn by turn the chain of prompt blocks grows, and nobody
//! else's blocks equal a tenant's. Refuses feedback: the next turn comes when the trace says, not when the answer is read, so
//! that every policy gets the same requests.

use scheduler::{At, Block, Class, ModelId, RequestId, SessionKey, Span, TenantId};

use super::lengths::{self, Quantiles};
use super::traces::TraceLine;
use super::{Source, WorkloadPlan};
use crate::random::{Purpose, Random, mixed, zipf};
use crate::request::{BLOCK_TOKENS, Chain, Request, Truth, Workload};

/// How the conversations of a source look.
struct Recipe {
    first: Quantiles,
    further: Quantiles,
    answer: Quantiles,
    turns_mean: f64,
    /// Of each tenant, in turn.
    system_tokens: &'static [u32],
    /// Who will ask again starts with so much shorter a text: long documents are asked about once.
    first_of_many: f64,
    variations: &'static [f64],
    /// All tenants' sessions come from one stream, which has the variation.
    pooled: bool,
}

const THINK_MEDIAN_S: f64 = 123.0;
/// A quarter of the pauses is longer than five minutes.
const THINK_SIGMA: f64 = 1.3;
/// No turn starts sooner than this after the one before.
const THINK_S_MIN: f64 = 5.0;
const CONTEXT_TOKENS_MAX: u32 = 131_072;
/// What clients set as their bound, in turn by tenant.
const MAX_TOKENS: [u32; 3] = [2_048, 4_096, 1_024];

const AZURE_CHAT: Recipe = Recipe {
    first: lengths::AZURE_CHAT_PROMPT,
    further: lengths::AZURE_CHAT_PROMPT,
    answer: lengths::AZURE_CHAT_ANSWER,
    turns_mean: 1.0,
    system_tokens: &[0],
    first_of_many: 1.0,
    variations: &[1.09],
    pooled: true,
};

const AZURE_CODE: Recipe = Recipe {
    first: lengths::AZURE_CODE_PROMPT,
    further: lengths::AZURE_CODE_PROMPT,
    answer: lengths::AZURE_CODE_ANSWER,
    variations: &[13.2],
    ..AZURE_CHAT
};

const CONVERSATION: Recipe = Recipe {
    first: lengths::CONVERSATION_FIRST,
    further: lengths::CONVERSATION_FURTHER,
    answer: lengths::CONVERSATION_ANSWER,
    turns_mean: 1.63,
    system_tokens: &[1_000, 0, 2_500, 0, 6_100, 0, 1_000],
    first_of_many: 0.3,
    variations: &[1.0, 1.0, 3.5, 1.0, 1.0, 1.0, 3.5, 1.0, 1.0, 13.0],
    pooled: false,
};

pub(super) struct Builder<'a> {
    plan: &'a WorkloadPlan,
    recipe: Recipe,
    models: Vec<f64>,
    tenants: Vec<f64>,
    seed: u64,
}

/// What a tenant's sessions have in common.
#[derive(Clone, Copy)]
struct Tenant {
    id: TenantId,
    system_tokens: u32,
    max_tokens: u32,
}

impl<'a> Builder<'a> {
    pub(super) fn new(plan: &'a WorkloadPlan, models: usize, seed: u64) -> Self {
        let recipe = match plan.source {
            Source::AzureChat => AZURE_CHAT,
            Source::AzureCode => AZURE_CODE,
            Source::Conversation | Source::Trace(_) => CONVERSATION,
        };
        let tenants = zipf(plan.tenants.max(1) as usize, plan.tenant_zipf);
        Self { plan, recipe, models: zipf(models, plan.model_zipf), tenants, seed }
    }

    /// Requests at `per_s` for `span_s` seconds, and those of the flooding tenant.
    pub(super) fn draw(&self, per_s: f64, span_s: f64, flood_per_s: f64) -> Workload {
        let mut work = Workload::default();
        let sessions_per_s = per_s / self.recipe.turns_mean;
        let variation = |index: usize| {
            let own = &self.plan.variations;
            let all = if own.is_empty() { self.recipe.variations } else { own };
            all[index % all.len()]
        };
        if self.recipe.pooled {
            let mut choices = Random::new(self.seed, Purpose::Choices, 0);
            self.stream(&mut work, 0, variation(0), (0.0, span_s), sessions_per_s, |_| {
                choices.weighted(&self.tenants)
            });
        } else {
            for (index, share) in self.tenants.iter().enumerate() {
                let rate = sessions_per_s * share;
                self.stream(&mut work, index, variation(index), (0.0, span_s), rate, |_| index);
            }
        }
        if flood_per_s > 0.0 {
            let (flooder, middle) = (self.tenants.len(), (span_s / 3.0, span_s * 2.0 / 3.0));
            let rate = flood_per_s / self.recipe.turns_mean;
            self.stream(&mut work, flooder, 1.0, middle, rate, |_| flooder);
        }
        work.in_order()
    }

    /// Sessions of one stream of arrivals.
    fn stream(
        &self,
        work: &mut Workload,
        number: usize,
        variation: f64,
        (from_s, to_s): (f64, f64),
        per_s: f64,
        mut tenant: impl FnMut(u64) -> usize,
    ) {
        let mut arrivals = Random::new(self.seed, Purpose::Arrivals, number as u64);
        let mut lengths = Random::new(self.seed, Purpose::Lengths, number as u64);
        let mut at = from_s;
        for session in 0_u64.. {
            at += arrivals.gamma(variation) / per_s;
            if at >= to_s || per_s <= 0.0 {
                return;
            }
            let tenant = self.tenant(tenant(session));
            let key = mixed(mixed(self.seed ^ (number as u64) << 40) ^ session);
            self.session(work, tenant, key, at, to_s, &mut lengths);
        }
    }

    fn tenant(&self, index: usize) -> Tenant {
        let systems = self.recipe.system_tokens;
        let system = f64::from(systems[index % systems.len()]);
        Tenant {
            id: TenantId(index as u32),
            system_tokens: (system * self.plan.length_scale) as u32,
            max_tokens: MAX_TOKENS[index % MAX_TOKENS.len()],
        }
    }

    /// All turns of a session that begin before `to_s`.
    fn session(
        &self,
        work: &mut Workload,
        tenant: Tenant,
        key: u64,
        mut at_s: f64,
        to_s: f64,
        random: &mut Random,
    ) {
        let (turns, scale) = (random.geometric(self.recipe.turns_mean), self.plan.length_scale);
        let model = ModelId(random.weighted(&self.models) as u32);
        let class = if random.unit() < self.plan.batch_share { Class::Batch } else { Class::Interactive };
        let (first, mut said) = (work.requests.len(), tenant.system_tokens);
        for turn in 0..turns {
            let text = match turn {
                0 if turns == 1 => self.recipe.first.draw(random, scale),
                0 => self.recipe.first.draw(random, scale * self.recipe.first_of_many),
                _ => self.recipe.further.draw(random, scale),
            };
            let prompt_tokens = said.saturating_add(text);
            let answer = self.recipe.answer.draw(random, scale).min(tenant.max_tokens);
            let poison = random.unit() < self.plan.poison_share;
            if prompt_tokens > CONTEXT_TOKENS_MAX || at_s >= to_s {
                break;
            }
            said = prompt_tokens.saturating_add(answer);
            let arrived = At((at_s * 1e6) as u64);
            let truth = Truth { output_tokens: answer, poison };
            let asked = (tenant.id, class, model, tenant.max_tokens, SessionKey(key));
            let chain = Chain { start: 0, prompt: prompt_tokens / BLOCK_TOKENS, whole: said / BLOCK_TOKENS };
            work.requests.push(self.request(arrived, asked, prompt_tokens, chain, truth));
            at_s += random.log_normal(THINK_MEDIAN_S, THINK_SIGMA).max(THINK_S_MIN);
        }
        chain_up(work, first, tenant, key, said);
    }

    fn request(
        &self,
        arrived: At,
        (tenant, class, model, max_tokens, session): (TenantId, Class, ModelId, u32, SessionKey),
        prompt_tokens: u32,
        chain: Chain,
        truth: Truth,
    ) -> Request {
        let deadline = arrived + Span((self.plan.deadline_s * 1e6) as u64);
        Request {
            id: RequestId(0),
            arrived,
            tenant,
            class,
            model,
            prompt_tokens,
            max_tokens,
            deadline,
            session,
            chain,
            truth,
        }
    }

    /// A trace's requests, with tenants, models and blocks; each line that shares blocks with another shares its chain.
    /// # Errors
    /// The line that asks for a model there is not.
    pub(super) fn dress(&self, lines: &[TraceLine]) -> Result<Workload, String> {
        let (mut work, scale) = (Workload::default(), self.plan.length_scale);
        let mut random = Random::new(self.seed, Purpose::Choices, 0);
        for (number, line) in lines.iter().enumerate() {
            let tenant = self.tenant(random.weighted(&self.tenants));
            let model = line.model.unwrap_or_else(|| random.weighted(&self.models) as u32);
            if model as usize >= self.models.len() {
                return Err(format!("line {} asks for model {model} of {}", number + 1, self.models.len()));
            }
            let prompt = ((f64::from(line.prompt_tokens) * scale) as u32).max(1);
            let answer = ((f64::from(line.output_tokens) * scale) as u32).max(1);
            let blocks = line.blocks(prompt, scale, number as u64);
            let chain = Chain {
                start: work.blocks.len() as u32,
                prompt: blocks.len() as u32,
                whole: blocks.len() as u32,
            };
            let key = SessionKey(blocks.first().map_or(number as u64, |block| block.0));
            work.blocks.extend(blocks);
            let most = line.max_tokens.unwrap_or(tenant.max_tokens).max(answer);
            let asked = (tenant.id, Class::Interactive, ModelId(model), most, key);
            let truth = Truth { output_tokens: answer, poison: random.unit() < self.plan.poison_share };
            work.requests.push(self.request(At(line.at_us), asked, prompt, chain, truth));
        }
        Ok(work.in_order())
    }
}

/// One chain for all turns of a session, the blocks of the system prompt being those of all sessions of its tenant.
fn chain_up(work: &mut Workload, first: usize, tenant: Tenant, key: u64, tokens: u32) {
    let start = work.blocks.len() as u32;
    let salt = mixed(u64::from(tenant.id.0) ^ TENANT_SALT);
    let of_system = tenant.system_tokens / BLOCK_TOKENS;
    work.blocks.extend((0..tokens / BLOCK_TOKENS).map(|index| {
        let text = if index < of_system { salt } else { salt ^ key };
        Block(mixed(text ^ u64::from(index)))
    }));
    work.requests[first..].iter_mut().for_each(|request| request.chain.start = start);
}

const TENANT_SALT: u64 = 0x7e4a_9715;
