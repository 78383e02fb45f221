//! The pure engine: segments in, verdicts out. No clock, no socket, no task: time is the timestamp
//! inside each segment.

pub mod segment;
pub mod timestamp;
