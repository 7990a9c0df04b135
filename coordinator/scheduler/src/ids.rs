//! The numbers that name things. Owns one type per kind of thing, so that a node is never taken for a model; refuses names,
//! which only people read and which the shell keeps ([`crate::Names`]).

/// A request, for its whole life. The shell must not reuse the number of a request that ended: late events of the old one
/// could not be told from the new one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// One try of a request on one node: 1 for the first dispatch, one more for each after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u32);

/// A Mac with an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// A model as clients ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelId(pub u32);

/// Whose key a request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantId(pub u32);

/// A runtime: a model on a node. What breakers, widths and learned rates are kept for.
pub type Lane = (NodeId, ModelId);

/// The hash of one block of a prompt and of all blocks before it, salted with the tenant: equal only for equal prefixes of one
/// tenant. Made by the gateway; means nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block(pub u64);

/// What a client says belongs together (a session header, `prompt_cache_key`), salted with the tenant and hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// The hash of all that decides what a request does to a runtime: model, prompt, sampling, bound. A client that sends the
/// same request again sends the same fingerprint. Keyed by the gateway, so that nobody can aim at another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// One life of a breaker: grows with each move out of a state. News of work begun under an older one is late and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);
