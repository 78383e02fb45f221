//! The state that a source writes and the screen reads, each on a thread of its own.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::State;
use crate::engine::timestamp::Timestamp;
use crate::entry::{Details, Entry};
use crate::sink::{Observer, Sink};
use crate::summary::CaptureTotals;
use crate::verdict::Verdict;

/// Shared by its clones. As a [`Sink`] it takes verdicts, as a [`Write`] notices, a line each.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<State>>);

impl Board {
    pub fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// To be held for a moment: the source waits meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic the program ends; until then counts may be off by one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Board {
    fn emit(&mut self, verdict: &Verdict, _observer: &Observer, _out: &mut Vec<u8>) -> io::Result<()> {
        self.lock().add(&Entry::of(verdict), || Details::of(verdict));
        Ok(())
    }

    fn advance_to(&mut self, now: Timestamp, _out: &mut Vec<u8>) -> io::Result<()> {
        self.lock().advance_to(now);
        Ok(())
    }

    fn observe_capture(&mut self, totals: &CaptureTotals) {
        self.lock().set_capture(totals.clone());
    }
}

impl Write for Board {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        text.lines().filter(|line| !line.is_empty()).for_each(|line| self.lock().note(line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
