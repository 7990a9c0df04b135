//! Codes of the token streams that the agent itself gives; a runtime's own codes (`proto/runtime-frames.md`) pass through.
//!
//! Owns their values: a coordinator decides by them whether a request, a node or nothing at all is to blame.

use quinn::VarInt;

/// With FINISH_FAILED: the model is not ready here, is being unloaded, or this Mac is draining. Nobody's fault.
pub const NOT_LOADED: &str = "not_loaded";
/// With FINISH_FAILED: every slot of the model is taken. Nobody's fault.
pub const BUSY: &str = "busy";
/// With FINISH_FAILED: the runtime process ended or was killed while the attempt ran. Tokens sent before are valid.
pub const RUNTIME_LOST: &str = "runtime_lost";

/// Stream reset and STOP_SENDING: the request could not be read, or did not arrive in time. The agent does not know the attempt's
/// number, so it cannot say more in a frame.
pub const RESET_BAD_START: VarInt = VarInt::from_u32(1);

/// Connection close: the agent ends.
pub const CLOSE_STOPPING: VarInt = VarInt::from_u32(0);
/// Connection close: a newer connection took over, or this one gave no sign of life after a new session.
pub const CLOSE_REPLACED: VarInt = VarInt::from_u32(1);
