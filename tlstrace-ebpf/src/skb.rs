//! A packet's bytes: directly where they are linear, through the helper where they may not be.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use core::mem::MaybeUninit;
use tlstrace_common::load::Load;

use crate::machine::{self, opaque};

/// The linear part of an skb, read in place: three instructions a load.
///
/// The headers are nearly always there. The payload often is not: GRO and egress leave it in pages.
pub(crate) struct Linear {
    data: usize,
    end: usize,
    len: u32,
}

impl Linear {
    #[inline(always)]
    pub(crate) fn new(skb: &__sk_buff) -> Self {
        Self { data: skb.data as usize, end: skb.data_end as usize, len: skb.len }
    }
}

/// No header that is stepped over begins later.
const MAX_OFFSET: u32 = 0x3fff;

impl Load for Linear {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        // The verifier ties the bound to the very register that was compared.
        let at = opaque(self.data as u64 + u64::from(offset)) as usize;
        if at + N > self.end {
            return None;
        }
        // SAFETY: `at..at + N` is within `data..data_end`.
        Some(unsafe { machine::load(at) })
    }
}

/// The whole skb, read through `bpf_skb_load_bytes`.
pub(crate) struct Paged<'a>(pub(crate) &'a __sk_buff);

impl Load for Paged<'_> {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.0.len
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes `N` bytes or fails.
        unsafe {
            let failed =
                bpf_skb_load_bytes((&raw const *self.0).cast(), offset, bytes.as_mut_ptr().cast(), N as u32)
                    != 0;
            if failed { None } else { Some(bytes.assume_init()) }
        }
    }
}
