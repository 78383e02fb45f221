//! The switch in front of every condition; part of the library only in `cargo xtask mutants`.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Of condition `n`, `2n + 1` is the mutant that is always true and `2n + 2` the one that is always false.
pub static MUTANT: AtomicUsize = AtomicUsize::new(0);

pub fn on(condition: usize, is_true: bool) -> bool {
    match MUTANT.load(Ordering::Relaxed).checked_sub(2 * condition + 1) {
        Some(0) => true,
        Some(1) => false,
        _ => is_true,
    }
}
