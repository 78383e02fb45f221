//! What has to be said in BPF instructions, because rustc or LLVM would say it in a way that the verifier
//! refuses, or could not say it at all.

use core::arch::asm;
use core::cell::UnsafeCell;

/// An array of words in the program's data, which all CPUs share.
///
/// A static instead of a map: its address is an immediate, so that a look-up is one load.
pub(crate) struct Words<const N: usize>(UnsafeCell<[u32; N]>);

// SAFETY: a word is read, written or exchanged by one instruction, and any value of it is valid.
unsafe impl<const N: usize> Sync for Words<N> {}

impl<const N: usize> Words<N> {
    pub(crate) const fn new() -> Self {
        const { assert!(N.is_power_of_two(), "an index is bounded by a mask") };
        Self(UnsafeCell::new([0; N]))
    }

    /// The word at `index`, modulo the length.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> u32 {
        // SAFETY: within the array.
        unsafe { self.at(index).read_volatile() }
    }

    /// The words of a row of `R`: with one bound for all of them.
    #[inline(always)]
    pub(crate) fn row<const R: usize>(&self, index: usize) -> impl Iterator<Item = u32> {
        const { assert!(N.is_multiple_of(R), "rows fill the array") };
        let row = self.0.get().cast::<[u32; R]>().wrapping_add(opaque(index as u64) as usize % (N / R));
        // SAFETY: within the array.
        (0..R).map(move |number| unsafe { (&raw const (*row)[number]).read_volatile() })
    }

    #[inline(always)]
    pub(crate) fn set(&self, index: usize, word: u32) {
        // SAFETY: within the array.
        unsafe { self.at(index).write_volatile(word) }
    }

    /// Writes `new` if the word is `old`, and returns whether it was.
    #[inline(always)]
    pub(crate) fn replace(&self, index: usize, old: u32, new: u32) -> bool {
        // SAFETY: within the array, which is in a map value.
        unsafe { compare_exchange(self.at(index), old, new) == old }
    }

    #[inline(always)]
    fn at(&self, index: usize) -> *mut u32 {
        // Where LLVM proves that the index is in bounds, and leaves out the mask, Linux 6.1 has lost sight of it.
        self.0.get().cast::<u32>().wrapping_add(opaque(index as u64) as usize % N)
    }
}

/// `value`, of which LLVM is to know nothing.
///
/// The verifier knows a register's range only from comparisons of that very register; LLVM likes to
/// compare a copy (`n - 1 < MAX`, `end - p >= N`) or to drop a check that it can prove itself.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: one register is moved to itself. (Without any instruction two line numbers would share an
    // offset, which the kernel refuses.)
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// The bounds of a loop, which LLVM is not to unroll.
#[inline(always)]
pub(crate) fn rounds(count: u32) -> core::ops::Range<u64> {
    0..opaque(u64::from(count))
}

/// Forgets what registers hold of memory: LLVM reads it again, and the verifier finds unknown values.
///
/// At the head of a loop this lets the verifier see that one round is like the one before.
#[inline(always)]
pub(crate) fn fence() {
    // SAFETY: one register is moved to itself, as in `opaque`.
    unsafe { asm!("{0} = {0}", inout(reg) 0_u64 => _, options(nostack, preserves_flags)) };
}

/// The `N` bytes at `at`, which need not be aligned.
///
/// LLVM's BPF target loads what may be misaligned byte by byte, unless it is told that it need not
/// (`allows-misaligned-mem-access`); then it also splits the stack in ways that the verifier refuses.
///
/// # Safety
///
/// `at..at + N` must be readable, as the verifier sees it.
#[inline(always)]
pub(crate) unsafe fn load<const N: usize>(at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let mut offset = 0;
    macro_rules! words {
        ($($word:ty, $size:literal, $instruction:literal;)*) => {$(
            while N - offset >= $size {
                let word: u64;
                // SAFETY: within `N` bytes, which the caller vouches for.
                unsafe {
                    asm!(
                        $instruction,
                        out(reg) word,
                        in(reg) at + offset,
                        options(pure, readonly, nostack, preserves_flags),
                    );
                }
                bytes[offset..offset + $size].copy_from_slice(&(word as $word).to_ne_bytes());
                offset += $size;
            }
        )*};
    }
    words! {
        u64, 8, "{0} = *(u64 *)({1} + 0)";
        u32, 4, "{0} = *(u32 *)({1} + 0)";
        u16, 2, "{0} = *(u16 *)({1} + 0)";
        u8, 1, "{0} = *(u8 *)({1} + 0)";
    }
    bytes
}

/// Sets all of `value` to zero, word by word: what LLVM calls for larger values does it byte by byte.
///
/// # Safety
///
/// `T` must be of 8-byte words, aligned so, for which zero is valid.
#[inline(always)]
pub(crate) unsafe fn clear<T>(value: &mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    let words = (&raw mut *value).cast::<u64>();
    for index in 0..size_of::<T>() / 8 {
        // SAFETY: within the value. Volatile, lest LLVM make a call of it.
        unsafe { words.add(index).write_volatile(0) };
    }
}

/// Stores a word at `at`, which need not be aligned.
///
/// # Safety
///
/// `at..at + 4` must be writable, as the verifier sees it.
#[inline(always)]
pub(crate) unsafe fn store(at: *mut u8, word: u32) {
    // SAFETY: the caller vouches for the four bytes.
    unsafe { asm!("*(u32 *)({0} + 0) = {1}", in(reg) at, in(reg) u64::from(word), options(nostack)) };
}

/// Replaces `*word` by `new` if it is `old`, and returns what it was.
///
/// # Safety
///
/// `word` must point into a map value, at an offset that is a multiple of 4.
#[inline(always)]
unsafe fn compare_exchange(word: *mut u32, old: u32, new: u32) -> u32 {
    let mut seen = u64::from(old);
    // SAFETY: `BPF_CMPXCHG` (kernel ≥ 5.12) on 4 bytes that the caller vouches for.
    unsafe {
        asm!(
            "w0 = cmpxchg32_32(r1 + 0, w0, w2)",
            inout("r0") seen,
            in("r1") word,
            in("r2") u64::from(new),
            options(nostack),
        );
    }
    seen as u32
}
