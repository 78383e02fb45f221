//! Output that never makes its producer wait: a bounded queue, and a thread that writes.
//!
//! A live trace must go on draining the ring while its reader is paused, slow, or a full disk. What finds no room
//! in the queue is dropped as a whole and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that may wait for a slow reader: seconds of output under heavy load. The thread holds as many again.
pub const CAPACITY: usize = 8 << 20;
/// Most bytes of one write, so that progress shows, and of what is written between two flushes without being queued.
const MOST_AT_ONCE: usize = 64 << 10;
/// Bytes of an empty queue's room that are kept for the next burst.
const MOST_KEPT: usize = 1 << 20;
/// How long an end is put off for a reader that takes nothing.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The producer's end. Each call of [`Write::write`] is one message, which is taken whole or not at all; messages go
/// out at [`Write::flush`].
///
/// That fails with [`io::ErrorKind::BrokenPipe`] once nobody reads any more, as may a write, and with nothing else.
#[derive(Debug)]
pub struct Outlet {
    shared: Arc<Shared>,
    capacity: usize,
    /// What was written since the last flush: the lock is the thread's as much as ours.
    unflushed: Batch,
}

/// The other handle of an [`Outlet`].
#[derive(Clone, Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
}

/// Messages that never arrived.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lost {
    /// There was no room in the queue: the reader is too slow, or has stopped reading.
    pub no_room: u64,
    /// Writing failed.
    pub failed: u64,
    /// How it failed the last time.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something was queued, or written, or the end came.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Batch,
    /// The thread has a batch in its hands, of which so many messages are not written yet.
    in_hand: u64,
    /// Grows with every write.
    writes: u64,
    lost: Lost,
    is_closed: bool,
    is_ending: bool,
    /// Somebody waits for what is queued to be written: else there is nobody to wake, which takes a system call.
    is_awaited: bool,
}

/// Messages one behind the other.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: VecDeque<usize>,
}

impl Outlet {
    /// Begins to write to `out`.
    pub fn new(out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with_capacity(CAPACITY, out)
    }

    /// As [`Outlet::new`], with room for so many bytes.
    pub fn with_capacity(capacity: usize, out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::made_by(capacity, || out)
    }

    /// As [`Outlet::with_capacity`], to what the thread that writes has made for itself at once.
    pub fn made_by<W: Write>(capacity: usize, make: impl FnOnce() -> W + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("output".to_owned());
        thread.spawn(move || of_thread.write_all_to(&mut make()))?;
        Ok(Self { shared, capacity, unflushed: Batch::default() })
    }

    /// To ask what was lost while something else writes.
    pub fn monitor(&self) -> Monitor {
        Monitor { shared: Arc::clone(&self.shared) }
    }
}

impl Monitor {
    /// What was lost so far.
    pub fn lost(&self) -> Lost {
        self.shared.lock().lost.clone()
    }

    /// Waits until all is written, or until nothing was taken for as long as `patience`. What is then left counts as
    /// lost, and nothing can be written any more.
    pub fn finish(&self, patience: Duration) -> Lost {
        let mut state = self.shared.lock();
        state.is_awaited = true;
        self.shared.changed.notify_all();
        while !state.is_idle() && !state.is_closed {
            let writes = state.writes;
            let waited = self.shared.changed.wait_timeout_while(state, patience, |state| {
                state.writes == writes && !state.is_idle() && !state.is_closed
            });
            let timed_out;
            (state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            if timed_out.timed_out() {
                break;
            }
        }
        if !state.is_closed {
            state.lost.no_room += state.queue.ends.len() as u64 + state.in_hand;
        }
        state.queue = Batch::default();
        state.in_hand = 0;
        state.is_closed = true;
        state.is_ending = true;
        self.shared.changed.notify_all();
        state.lost.clone()
    }
}

impl Outlet {
    /// Queues what was written; what finds no room is lost.
    fn hand_over(&mut self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.shared.lock();
        if state.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let no_room = state.queue.append(&mut self.unflushed, self.capacity);
        state.lost.no_room += no_room;
        Ok(state)
    }
}

impl Write for Outlet {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.unflushed.push(message);
        if self.unflushed.bytes.len() >= MOST_AT_ONCE {
            drop(self.hand_over()?);
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let state = self.hand_over()?;
        let is_thread_idle = state.in_hand == 0 && !state.queue.bytes.is_empty();
        // The thread wants the lock as soon as it wakes.
        drop(state);
        if is_thread_idle {
            self.shared.changed.notify_all();
        }
        Ok(())
    }
}

impl Drop for Outlet {
    /// Does not wait: see [`Monitor::finish`].
    fn drop(&mut self) {
        self.shared.lock().is_ending = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and counts would still be right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: takes what is queued and writes it.
    fn write_all_to(&self, out: &mut dyn Write) {
        let mut batch = Batch::default();
        let mut is_in_message = false;
        loop {
            batch.clear();
            let mut state = self.lock();
            state.in_hand = 0;
            if state.is_awaited {
                self.changed.notify_all();
            }
            let idle = |state: &mut State| state.queue.bytes.is_empty() && !state.is_ending;
            state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            if state.queue.bytes.is_empty() {
                return;
            }
            std::mem::swap(&mut state.queue, &mut batch);
            state.in_hand = batch.ends.len() as u64;
            drop(state);
            if let Err(error) = self.write(&mut batch, out, &mut is_in_message) {
                let mut state = self.lock();
                if error.kind() == io::ErrorKind::BrokenPipe {
                    state.is_closed = true;
                    self.changed.notify_all();
                    return;
                }
                state.lost.failed += batch.ends.len() as u64;
                state.lost.error = Some(error.to_string());
            }
        }
    }

    /// Writes a batch; after an error, what is left of it was not written.
    fn write(&self, batch: &mut Batch, out: &mut dyn Write, is_in_message: &mut bool) -> io::Result<()> {
        // What an earlier error cut off must not swallow the message behind it.
        if *is_in_message {
            out.write_all(b"\n")?;
            *is_in_message = false;
        }
        let mut written = 0;
        while let Some(rest) = batch.bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match out.write(rest.get(..MOST_AT_ONCE).unwrap_or(rest)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let mut done = 0;
            let mut message_begins = 0;
            while batch.ends.front().is_some_and(|end| *end <= written) {
                message_begins = batch.ends.pop_front().unwrap_or(0);
                done += 1;
            }
            *is_in_message = match done {
                0 => true,
                _ => message_begins < written,
            };
            let mut state = self.lock();
            state.in_hand = state.in_hand.saturating_sub(done);
            state.writes += 1;
            if state.is_awaited {
                self.changed.notify_all();
            }
        }
        out.flush()
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.bytes.is_empty() && self.in_hand == 0
    }
}

impl Batch {
    fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.ends.push_back(self.bytes.len());
    }

    /// Takes the messages of another batch, which is empty then, as long as no more than so many bytes are together.
    /// Returns how many were too many.
    fn append(&mut self, other: &mut Self, capacity: usize) -> u64 {
        if self.bytes.is_empty() && other.bytes.len() <= capacity {
            std::mem::swap(self, other);
            other.clear();
            return 0;
        }
        let mut begin = 0;
        let mut no_room = 0;
        for &end in &other.ends {
            let message = other.bytes.get(begin..end).unwrap_or_default();
            if self.bytes.len() + message.len() > capacity {
                no_room += 1;
            } else {
                self.push(message);
            }
            begin = end;
        }
        other.clear();
        no_room
    }

    fn clear(&mut self) {
        if self.bytes.capacity() > MOST_KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};

    use super::*;

    const LINE: &[u8; 1000] = &{
        let mut line = [b'x'; 1000];
        line[999] = b'\n';
        line
    };

    #[test]
    fn a_paused_reader_costs_messages_and_neither_time_nor_memory() {
        let (reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::with_capacity(100_000, writer).unwrap();
        for _ in 0..10_000 {
            outlet.write_all(LINE).unwrap();
            outlet.flush().unwrap();
        }
        let lost_so_far = outlet.monitor().lost().no_room;
        assert!(lost_so_far >= 9_000, "{lost_so_far}");
        let reading =
            thread::spawn(move || BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>());
        let lost = outlet.monitor().finish(PATIENCE);
        drop(outlet);
        let lines = reading.join().unwrap();
        assert_eq!(lines.len() as u64 + lost.no_room, 10_000);
        assert_eq!(lost.no_room, lost_so_far, "what had been taken was written");
        assert!(lines.iter().all(|line| line.len() == 999), "no line is cut");
    }

    #[test]
    fn what_is_written_at_once_is_taken_message_by_message_as_long_as_there_is_room() {
        let (reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::with_capacity(10_000, writer).unwrap();
        for _ in 0..10 {
            outlet.write_all(LINE).unwrap();
        }
        outlet.write_all(b"too much\n").unwrap();
        outlet.flush().unwrap();
        assert_eq!(outlet.monitor().finish(PATIENCE).no_room, 1);
        drop(outlet);
        assert_eq!(BufReader::new(reader).lines().map_while(Result::ok).count(), 10);
    }

    #[test]
    fn an_end_does_not_wait_for_a_reader_that_never_reads() {
        let (reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::new(writer).unwrap();
        for _ in 0..1000 {
            outlet.write_all(LINE).unwrap();
        }
        outlet.flush().unwrap();
        let lost = outlet.monitor().finish(Duration::from_millis(50));
        assert!((900..1000).contains(&lost.no_room), "all but what the pipe holds: {lost:?}");
        assert_eq!(outlet.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(reader);
    }

    #[test]
    fn a_closed_pipe_is_told_to_the_producer() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut outlet = Outlet::new(writer).unwrap();
        outlet.write_all(b"x\n").unwrap();
        outlet.flush().unwrap_or_else(|error| assert_eq!(error.kind(), io::ErrorKind::BrokenPipe));
        outlet.monitor().finish(PATIENCE);
        assert_eq!(outlet.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_full_disk_is_counted_and_named() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut outlet = Outlet::new(full).unwrap();
        for _ in 0..10_000 {
            outlet.write_all(LINE).unwrap();
            outlet.flush().unwrap();
        }
        let lost = outlet.monitor().finish(PATIENCE);
        assert_eq!(lost.no_room + lost.failed, 10_000);
        assert!(lost.error.unwrap().contains("No space left"));
    }

    #[test]
    fn after_an_error_in_the_middle_the_next_message_has_a_line_of_its_own() {
        /// Takes so many bytes, fails once, and then takes the rest.
        struct Faulty(usize, io::PipeWriter);

        impl Write for Faulty {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match std::mem::replace(&mut self.0, usize::MAX) {
                    0 => Err(io::ErrorKind::StorageFull.into()),
                    room if room < bytes.len() => {
                        self.0 = 0;
                        self.1.write(&bytes[..room])
                    }
                    _ => self.1.write(bytes),
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let (mut reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::new(Faulty(5, writer)).unwrap();
        outlet.write_all(b"one\n").unwrap();
        outlet.write_all(b"two\n").unwrap();
        outlet.flush().unwrap();
        while outlet.monitor().lost().failed == 0 {
            thread::yield_now();
        }
        outlet.write_all(b"three\n").unwrap();
        outlet.flush().unwrap();
        let lost = outlet.monitor().finish(PATIENCE);
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, lost.failed), ("one\nt\nthree\n", 1));
    }
}
