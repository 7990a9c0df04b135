//! What one command sets in motion: the scratch pad of a single `apply`.
//!
//! Owns the list of lines to look at again and of requests that entered the queue, so that each is dealt with once, after the
//! facts have settled. Refuses to outlive the command.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::effect::Effect;
use crate::ids::{ModelId, RequestId};
use crate::time::At;

#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) at: At,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// Models for which a slot may have come free or a request may have come.
    pub(crate) due: BTreeSet<ModelId>,
    /// Models whose line is another than before.
    pub(crate) changed: BTreeSet<ModelId>,
    /// Requests put into the queue, in that order.
    pub(crate) entered: Vec<RequestId>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(at: At, effects: &'a mut Vec<Effect>) -> Self {
        Self { at, effects, due: BTreeSet::new(), changed: BTreeSet::new(), entered: Vec::new() }
    }
}
