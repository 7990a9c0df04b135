//! What the scheduler may know of a request besides its size, from its body and its caller.
//!
//! Owns `service_tier`, `prompt_cache_key`, `user` and `cache_salt`, and the making of [`Traits`]. A header decides before the
//! body, because whoever sets it (a proxy, an operator) means it for all bodies. Refuses to hand on a word of the prompt or of a
//! client: what leaves here is hashed.

use prost::Message as _;
use proto::v1::Sampling;
use scheduler::Class;

use super::fields::Fields;
use crate::gateway::caller::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::gateway::prefix::Prefix;
use crate::generation::Traits;

/// What a body says about it.
#[derive(Debug, Default)]
pub(crate) struct Said {
    class: Option<Class>,
    pub(crate) prompt_cache_key: Option<String>,
    pub(crate) user: Option<String>,
    cache_salt: Option<String>,
}

/// Where a request comes from and how it wants to be treated: the same for all of its wishes.
pub(crate) struct Origin {
    caller: Caller,
    class: Class,
    session: Option<u64>,
    cache_salt: Option<String>,
    /// The tier that serves it, where the client asked for one.
    pub(crate) service_tier: Option<&'static str>,
}

impl Said {
    pub(crate) fn take(body: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            class: class(body)?,
            prompt_cache_key: body.string("prompt_cache_key")?,
            user: body.string("user")?,
            cache_salt: cache_salt(body)?,
        })
    }
}

impl Origin {
    /// `ignored` hears of names that came to nothing, because another one counts or they are too long.
    pub(crate) fn new(mut caller: Caller, said: Said, ignored: &mut Vec<String>) -> Self {
        ignored.append(&mut caller.ignored);
        let mut session = caller.session;
        for (key, name) in [("prompt_cache_key", said.prompt_cache_key), ("user", said.user)] {
            let Some(name) = name else { continue };
            match (session, caller.session(name.as_bytes())) {
                (None, Some(named)) => session = Some(named),
                (Some(_), _) | (None, None) => ignored.push(key.to_owned()),
            }
        }
        let class = caller.class.or(said.class).unwrap_or(Class::Interactive);
        let service_tier = said.class.map(|_| tier(class));
        Self { caller, class, session, cache_salt: said.cache_salt, service_tier }
    }

    /// Worked out once for all wishes with this prompt.
    pub(crate) fn prefix(&self, model: &str, prompt: &[u32]) -> Prefix {
        let tenant = self.caller.tenant.to_le_bytes();
        let root = self.caller.keys.prompts.derived(&[&tenant, model.as_bytes()]);
        Prefix::of(root, prompt, self.cache_salt.as_deref())
    }

    pub(crate) fn traits(&self, prefix: &Prefix, work: &Work<'_>) -> Traits {
        let cached = self.caller.cache;
        Traits {
            tenant: self.caller.tenant,
            class: self.class,
            session: self.session,
            blocks: if cached { prefix.blocks.clone() } else { [].into() },
            fingerprint: work.fingerprint(prefix),
            cache_salt: if cached { self.salt() } else { String::new() },
        }
    }

    fn salt(&self) -> String {
        let own = self.cache_salt.as_deref().unwrap_or_default();
        let salt = self.caller.keys.salts.number(&[&self.caller.tenant.to_le_bytes(), own.as_bytes()]);
        format!("{salt:016x}")
    }
}

/// What a wish asks of a runtime, beside its prompt.
pub(crate) struct Work<'a> {
    pub(crate) max_tokens: u32,
    pub(crate) sampling: &'a Sampling,
    pub(crate) stop_ids: &'a [u32],
    pub(crate) top_logprobs: Option<u32>,
}

impl Work<'_> {
    /// Everything that decides what a runtime does with it. The prefix brings the tenant, the model and the prompt.
    fn fingerprint(&self, prefix: &Prefix) -> u64 {
        let stop_ids: Vec<u8> = self.stop_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let top_logprobs = self.top_logprobs.map(u32::to_le_bytes);
        prefix.prompt.number(&[
            &self.max_tokens.to_le_bytes(),
            &self.sampling.encode_to_vec(),
            &stop_ids,
            top_logprobs.as_ref().map_or(&[], <[u8; 4]>::as_slice),
        ])
    }
}

/// OpenAI's tiers. `flex` is work that nobody waits for; there is nothing to pay more for, so the rest are one.
fn class(body: &mut Fields) -> Result<Option<Class>, ApiError> {
    match body.string("service_tier")?.as_deref() {
        None => Ok(None),
        Some("flex") => Ok(Some(Class::Batch)),
        Some("auto" | "default" | "priority" | "scale") => Ok(Some(Class::Interactive)),
        Some(_) => {
            let message = "Invalid value for 'service_tier': it must be 'auto', 'default', 'flex', 'scale' or 'priority'.";
            Err(ApiError::invalid("invalid_value", "service_tier", message))
        }
    }
}

/// What is told back is what was done, not what was asked for.
fn tier(class: Class) -> &'static str {
    match class {
        Class::Interactive => "default",
        Class::Batch => "flex",
    }
}

fn cache_salt(body: &mut Fields) -> Result<Option<String>, ApiError> {
    match body.string("cache_salt")? {
        Some(salt) if !(1..=limits::CACHE_SALT_BYTES_MAX).contains(&salt.len()) => {
            let message =
                format!("'cache_salt' must have between 1 and {} bytes.", limits::CACHE_SALT_BYTES_MAX);
            Err(ApiError::invalid("invalid_value", "cache_salt", message))
        }
        salt => Ok(salt),
    }
}
