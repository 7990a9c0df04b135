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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelId(pub u32);

/// Whose key a request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantId(pub u32);
