//! What both sides of tlstrace's ring buffer speak.
//!
//! The BPF program writes [`event::SegmentHeader`]s and userspace reads them back with a checked
//! [`event::decode`]; both walk packet headers through [`load::Load`], so a live packet and a packet
//! of a capture file are parsed by the same code. Nothing here allocates and nothing trusts a length
//! that came from the wire.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a call costs a BPF program more than the step, and hides the packet's bounds from the verifier"
)]

pub mod choice;
pub mod config;
pub mod encapsulation;
pub mod event;
pub mod flow;
pub mod framing;
pub mod gate;
pub mod glance;
pub mod limits;
pub mod link;
pub mod load;
pub mod net;
pub mod packet;
pub mod skip;
pub mod symbols;
pub mod table;
pub mod tcp;
