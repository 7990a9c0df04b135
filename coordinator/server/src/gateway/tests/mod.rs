//! The gateway's tests: a real router, real tokenizers, and a cluster that plays a script.
//!
//! Owns the stage (`stage`), the tokenizers (`cards`) and one file for each promise. Each test's name is the sentence it proves.

pub(crate) mod cards;
mod stage;
mod facts;
mod filing;
mod drawer;
mod speaking;
mod templates;
mod detokenising;
mod stopping;
mod framing;
mod asking;
mod batching;
mod marking;
mod refusing;
mod any_request;
mod chatting;
mod streaming;
mod transcripts;
mod breaking;
mod flowing;
mod wire;
mod completing;
mod scoring;
mod routing;
mod viewing;
mod telling;
mod measuring;
mod membering;
mod rotating;
mod grouping;
mod guarding;
mod naming_hosts;
mod holding_keys;
mod answering_once;
mod taking_over;
mod going_on;
mod passing;
mod revoking;
mod administering;
mod treating_models;
mod responding;
mod deferring;
mod standing_still;
mod beginning_once;
mod taking_turns;
