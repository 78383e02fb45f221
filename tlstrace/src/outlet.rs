//! Output that never makes its producer wait: a bounded queue, and a thread that writes.
//!
//! A live trace must go on draining the ring while its reader is paused, slow, or a full disk. What finds no room
//! in the queue is dropped as a whole and counted. What a pipe takes at once is written without the thread: to wake it
//! and to put it to sleep again took a third of a quiet trace's CPU time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::{Errno, ReadWriteFlags, pwritev2};

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
    /// Where the thread writes to, as long as that can be written to without waiting.
    shortcut: Option<File>,
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
    /// An error has cut off the last message that went out.
    is_cut: bool,
    is_closed: bool,
    is_ending: bool,
    /// Somebody waits for what is queued to be written: else there is nobody to wake, which takes a system call.
    is_awaited: bool,
}

/// Messages one behind the other.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// How many of the bytes are written.
    written: usize,
    /// Where each message ends that is not written, or not as a whole.
    ends: VecDeque<usize>,
    /// The first of these is written in part.
    is_begun: bool,
}

impl Outlet {
    /// Begins to write to `out`.
    pub fn new(out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with_capacity(CAPACITY, out)
    }

    /// As [`Outlet::new`], and past the thread what `file` takes without waiting: a pipe does since Linux 6.5
    /// (commit afed6271f5b0), most files on disks and terminals do not.
    pub fn to_file(file: File) -> io::Result<Self> {
        Self::to_file_with_capacity(CAPACITY, file)
    }

    /// As [`Outlet::new`], with room for so many bytes.
    pub fn with_capacity(capacity: usize, out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::made_by(capacity, || out)
    }

    fn to_file_with_capacity(capacity: usize, file: File) -> io::Result<Self> {
        let shortcut = file.try_clone()?;
        let mut outlet = Self::with_capacity(capacity, file)?;
        outlet.shortcut = Some(shortcut);
        Ok(outlet)
    }

    /// As [`Outlet::with_capacity`], to what the thread that writes has made for itself at once.
    pub fn made_by<W: Write>(capacity: usize, make: impl FnOnce() -> W + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("output".to_owned());
        thread.spawn(move || of_thread.write_all_to(&mut make()))?;
        Ok(Self { shared, capacity, unflushed: Batch::default(), shortcut: None })
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
    /// Writes or queues what there is; what finds no room is lost.
    fn hand_over(&mut self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.shared.lock();
        if state.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // The thread has nothing to write, and gets nothing while we hold the lock: the order stays.
        if state.is_idle()
            && !state.is_cut
            && let Some(file) = &self.shortcut
            && !self.unflushed.is_empty()
        {
            let bytes = IoSlice::new(self.unflushed.rest());
            match pwritev2(file, &[bytes], u64::MAX, ReadWriteFlags::NOWAIT) {
                Ok(len) => _ = self.unflushed.advance(len),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // The file does not know the flag, or the thread meets the error again and tells it.
                Err(_) => self.shortcut = None,
            }
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
        let is_thread_idle = state.in_hand == 0 && !state.queue.is_empty();
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
        loop {
            batch.clear();
            let mut state = self.lock();
            state.in_hand = 0;
            if state.is_awaited {
                self.changed.notify_all();
            }
            let idle = |state: &mut State| state.queue.is_empty() && !state.is_ending;
            state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            if state.queue.is_empty() {
                return;
            }
            std::mem::swap(&mut state.queue, &mut batch);
            state.in_hand = batch.ends.len() as u64;
            let mut is_cut = std::mem::take(&mut state.is_cut);
            drop(state);
            if let Err(error) = self.write(&mut batch, out, &mut is_cut) {
                let mut state = self.lock();
                if error.kind() == io::ErrorKind::BrokenPipe {
                    state.is_closed = true;
                    self.changed.notify_all();
                    return;
                }
                state.is_cut = is_cut || batch.is_begun;
                state.lost.failed += batch.ends.len() as u64;
                state.lost.error = Some(error.to_string());
            }
        }
    }

    /// Writes a batch; after an error, what is left of it was not written.
    fn write(&self, batch: &mut Batch, out: &mut dyn Write, is_cut: &mut bool) -> io::Result<()> {
        // What an earlier error cut off must not swallow the message behind it.
        if *is_cut {
            out.write_all(b"\n")?;
            *is_cut = false;
        }
        while !batch.is_empty() {
            let rest = batch.rest();
            let done = match out.write(rest.get(..MOST_AT_ONCE).unwrap_or(rest)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => batch.advance(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
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
        self.queue.is_empty() && self.in_hand == 0
    }
}

impl Batch {
    fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.ends.push_back(self.bytes.len());
    }

    fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// What is not written.
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Notes that so many bytes more are written; says how many messages that ends.
    fn advance(&mut self, len: usize) -> u64 {
        self.written += len;
        self.is_begun |= len > 0;
        let mut done = 0;
        while let Some(&end) = self.ends.front().filter(|end| **end <= self.written) {
            self.ends.pop_front();
            self.is_begun = end < self.written;
            done += 1;
        }
        done
    }

    /// Takes the messages of another batch, which is empty then, as long as no more than so many bytes are together.
    /// Returns how many were too many. A message that is begun must be the first, and all with it is taken.
    fn append(&mut self, other: &mut Self, capacity: usize) -> u64 {
        if self.is_empty() && (other.is_begun || other.rest().len() <= capacity) {
            std::mem::swap(self, other);
            other.clear();
            return 0;
        }
        let mut begin = other.written;
        let mut no_room = 0;
        for &end in &other.ends {
            let message = other.bytes.get(begin..end).unwrap_or_default();
            if self.rest().len() + message.len() > capacity {
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
        self.written = 0;
        self.is_begun = false;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::fd::OwnedFd;

    use super::*;

    const LINE: &[u8; 1000] = &{
        let mut line = [b'x'; 1000];
        line[999] = b'\n';
        line
    };

    /// An outlet to a pipe by its thread only, and one that goes past the thread.
    fn to_pipes(capacity: usize) -> [(Outlet, io::PipeReader); 2] {
        let [(to_thread, by_thread), (to_file, past_thread)] = [io::pipe().unwrap(), io::pipe().unwrap()];
        let file = File::from(OwnedFd::from(past_thread));
        [
            (Outlet::with_capacity(capacity, by_thread).unwrap(), to_thread),
            (Outlet::to_file_with_capacity(capacity, file).unwrap(), to_file),
        ]
    }

    #[test]
    fn what_a_pipe_takes_at_once_is_in_it_when_the_flush_returns() {
        let (mut reader, writer) = io::pipe().unwrap();
        if let Err(error) = pwritev2(&writer, &[IoSlice::new(b"-")], u64::MAX, ReadWriteFlags::NOWAIT) {
            assert_eq!(error, Errno::OPNOTSUPP, "before Linux 6.5");
            return;
        }
        let mut outlet = Outlet::to_file(File::from(OwnedFd::from(writer))).unwrap();
        outlet.write_all(b"one\n").unwrap();
        outlet.write_all(b"two\n").unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(reader.read(&mut bytes).unwrap(), 1, "nothing before the flush");
        outlet.flush().unwrap();
        let len = reader.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"one\ntwo\n");
    }

    #[test]
    fn a_message_that_fits_into_the_pipe_in_part_comes_whole_and_before_the_next() {
        for (mut outlet, reader) in to_pipes(CAPACITY) {
            let long = vec![b'x'; 300_000];
            for message in [b"first\n", &long[..], b"\n", b"last\n"] {
                outlet.write_all(message).unwrap();
                outlet.flush().unwrap();
            }
            let reading =
                thread::spawn(move || BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>());
            assert_eq!(outlet.monitor().finish(PATIENCE), Lost::default());
            drop(outlet);
            let lengths: Vec<_> = reading.join().unwrap().iter().map(String::len).collect();
            assert_eq!(lengths, [5, 300_000, 4]);
        }
    }

    #[test]
    fn a_paused_reader_costs_messages_and_neither_time_nor_memory() {
        for (mut outlet, reader) in to_pipes(100_000) {
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
        for (mut outlet, reader) in to_pipes(CAPACITY) {
            for _ in 0..1000 {
                outlet.write_all(LINE).unwrap();
            }
            outlet.flush().unwrap();
            let lost = outlet.monitor().finish(Duration::from_millis(50));
            assert!((900..1000).contains(&lost.no_room), "all but what the pipe holds: {lost:?}");
            assert_eq!(outlet.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            drop(reader);
        }
    }

    #[test]
    fn a_closed_pipe_is_told_to_the_producer() {
        for (mut outlet, reader) in to_pipes(CAPACITY) {
            drop(reader);
            outlet.write_all(b"x\n").unwrap();
            outlet.flush().unwrap_or_else(|error| assert_eq!(error.kind(), io::ErrorKind::BrokenPipe));
            outlet.monitor().finish(PATIENCE);
            assert_eq!(outlet.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }

    #[test]
    fn a_full_disk_is_counted_and_named() {
        let mut outlet = Outlet::to_file(File::options().write(true).open("/dev/full").unwrap()).unwrap();
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
