//! Codes of the token streams that the agent itself gives; a runtime's own codes (`proto/runtime-frames.md`) pass through.
//!
//! Owns their values: a coordinator decides by them whether a request, a node or nothing at all is to blame.

use quinn::VarInt;

/// With FINISH_FAILED: the model is not ready here, is being unloaded, or this Mac is draining. Nobody's fault.
pub const NOT_LOADED: &str = "not_loaded";
/// With FINISH_FAILED: every slot of the model is taken. Nobody's fault.
pub const BUSY: &str = "busy";
/// With FINISH_FAILED: the runtime process ended while the attempt ran, or did not end when it was asked to. Tokens sent before
/// are valid; so they are with the next two.
pub const RUNTIME_LOST: &str = "runtime_lost";
/// With FINISH_FAILED: the runtime made no progress and was killed.
pub const RUNTIME_HUNG: &str = "runtime_hung";
/// With FINISH_FAILED: the runtime sent what is no frame, or no frame that may come then, and was killed.
pub const RUNTIME_GARBLED: &str = "runtime_garbled";

/// Stream reset and STOP_SENDING: the request could not be read, or did not arrive in time. The agent does not know the attempt's
/// number, so it cannot say more in a frame.
pub const RESET_BAD_START: VarInt = VarInt::from_u32(1);

/// Connection close: the agent ends, or the coordinator is none of its cluster any more.
pub const CLOSE_STOPPING: VarInt = VarInt::from_u32(0);
/// Connection close: a newer connection took over, or this one gave no sign of life after a new session.
pub const CLOSE_REPLACED: VarInt = VarInt::from_u32(1);
