//! What both sides of tlstrace's ring buffer speak.
//!
//! The BPF program writes [`event::SegmentHeader`]s and userspace reads them back with a checked
//! [`event::decode`]; both walk packet headers through [`load::Load`], so a live packet and a packet
//! of a capture file are parsed by the same code. Nothing here allocates and nothing trusts a length
//! that came from the wire.
#![no_std]

pub mod event;
pub mod load;
pub mod skip;
pub mod symbols;
