//! How much of a flow is copied or reported, at most. The engine relies on the same numbers.

/// Most payload bytes copied per direction of a flow, record headers included.
pub const MAX_COPIED: u32 = 64 * 1024;

/// Most encrypted records whose headers are reported per direction.
pub const MAX_ENCRYPTED_RECORDS: u8 = 32;

/// Once one direction is done, this many encrypted records of the other end the flow.
pub const ENOUGH_ENCRYPTED_RECORDS: u8 = 8;

/// Most bytes copied of the start of a stream that is not TLS.
pub const MAX_NOT_TLS: u32 = 16;

/// Most segments with payload that are reported of a flow that is not TLS.
pub const MAX_NOT_TLS_REPORTED: u32 = 32;

/// A flow with this many segments with payload and still no TLS is not followed any more.
pub const MAX_NOT_TLS_SEGMENTS: u32 = 64;

/// A flow with this many segments is not followed any more, whatever it is.
pub const MAX_SEGMENTS: u32 = 1024;

/// Most acknowledgements without payload that are reported per direction.
pub const MAX_ACKNOWLEDGEMENTS: u8 = 32;

/// A stream's first payload begins at most so many bytes behind its SYN: what is farther away belongs to
/// another flow.
pub const MAX_FIRST_WINDOW: u32 = 64 * 1024;
