//! The only clock in the tree: wall time, the kernel's event time, and how the one follows the other.
//!
//! Events carry `bpf_ktime_get_ns`, which is `CLOCK_MONOTONIC`; output carries wall time. A straight line
//! maps one to the other and is bent a little every second, so that timestamps are strictly in the order
//! of the events whatever happens to the wall clock, and no duration is ever wrong by more than a tenth.

use std::io;
use std::time::Duration;

use crate::engine::timestamp::Timestamp;

/// How often [`Clock::resynchronise`] wants to be called.
pub const RESYNCHRONISE_EVERY: Duration = Duration::from_secs(1);

/// Maps `CLOCK_MONOTONIC` to wall time.
#[derive(Debug)]
pub struct Clock {
    line: Line,
}

impl Clock {
    /// Reads both clocks.
    pub fn start() -> Self {
        let (monotonic, wall) = both_clocks();
        Self { line: Line { monotonic, wall, slope: 0 } }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.at(read(libc::CLOCK_MONOTONIC))
    }

    /// The point in time that `bpf_ktime_get_ns` called `monotonic` nanoseconds.
    pub fn at(&self, monotonic: u64) -> Timestamp {
        Timestamp::from_nanos(self.line.at(monotonic))
    }

    /// Follows what has become of the wall clock. A step of it (by hand, or by NTP after boot) is worked off
    /// at a tenth of a second per second: a jump would end or stretch every connection in flight.
    pub fn resynchronise(&mut self) {
        let (monotonic, wall) = both_clocks();
        let off = self.line.steer(monotonic, wall);
        if off > Duration::from_secs(1) {
            log::warn!("the system clock is {off:?} away from the times shown, which follow it slowly");
        }
    }
}

/// How many seconds local time is east of UTC now (`TZ`, /etc/localtime); 0 where that is not known.
pub fn utc_offset() -> i32 {
    let Ok(seconds) = libc::time_t::try_from(read(libc::CLOCK_REALTIME) / 1_000_000_000) else { return 0 };
    let mut local = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid for the call. A result other than null is `local`, filled in.
    let offset = unsafe {
        let filled = libc::localtime_r(&raw const seconds, local.as_mut_ptr());
        if filled.is_null() { 0 } else { (*filled).tm_gmtoff }
    };
    i32::try_from(offset).unwrap_or(0)
}

/// Whether something such as an NTP client steers the clock, as far as the kernel knows (`adjtimex(2)`).
pub fn is_synchronised() -> bool {
    // SAFETY: a structure of integers, for which 0 is a value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` lives throughout the call; its `modes` of 0 ask and change nothing.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    result >= 0 && result != libc::TIME_ERROR
}

/// Length of the bent part of a [`Line`], in nanoseconds.
const BEND: i64 = 1_000_000_000;
/// Steepest bend: a tenth, in nanoseconds per [`BEND`].
const STEEPEST: i64 = BEND / 10;

/// Wall time as a function of monotonic time: continuous and increasing, also across [`Line::steer`].
#[derive(Clone, Copy, Debug)]
struct Line {
    monotonic: u64,
    wall: u64,
    /// What the wall clock gains in the [`BEND`] after `monotonic`, in nanoseconds.
    slope: i64,
}

impl Line {
    fn at(self, monotonic: u64) -> u64 {
        let passed = monotonic.wrapping_sub(self.monotonic).cast_signed();
        let gained = passed.clamp(-BEND, BEND) * self.slope / BEND;
        self.wall.saturating_add_signed(passed.saturating_add(gained))
    }

    /// Bends the line at `monotonic` towards `wall`; says how far it was off.
    fn steer(&mut self, monotonic: u64, wall: u64) -> Duration {
        let here = self.at(monotonic);
        let slope = wall.wrapping_sub(here).cast_signed().clamp(-STEEPEST, STEEPEST);
        *self = Self { monotonic, wall: here, slope };
        Duration::from_nanos(wall.abs_diff(here))
    }
}

/// `CLOCK_MONOTONIC` and `CLOCK_REALTIME` of one moment, in nanoseconds: of three readings the one during
/// which this thread was interrupted least.
fn both_clocks() -> (u64, u64) {
    let mut best = (0, 0);
    let mut least = u64::MAX;
    for _ in 0..3 {
        let before = read(libc::CLOCK_MONOTONIC);
        let wall = read(libc::CLOCK_REALTIME);
        let took = read(libc::CLOCK_MONOTONIC).saturating_sub(before);
        if took <= least {
            least = took;
            best = (before + took / 2, wall);
        }
    }
    best
}

/// A clock's reading in nanoseconds.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that lives throughout the call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert!(result == 0, "clock {clock} cannot be read: {}", io::Error::last_os_error());
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_small_drift_is_caught_up_with_within_a_second() {
        let mut line = Line { monotonic: 0, wall: 100 * SECOND, slope: 0 };
        line.steer(SECOND, 101 * SECOND + 5_000);
        assert_eq!(line.at(2 * SECOND), 102 * SECOND + 5_000);
        assert_eq!(line.at(3 * SECOND), 103 * SECOND + 5_000, "the bend lasts one second");
    }

    #[test]
    fn time_runs_forwards_and_durations_stay_within_a_tenth_when_the_wall_clock_is_set_back() {
        let mut line = Line { monotonic: 0, wall: 7_200 * SECOND, slope: 0 };
        let mut last = line.at(0);
        for tick in 1..40u64 {
            let now = tick * SECOND / 4;
            if tick.is_multiple_of(4) {
                line.steer(now, 3_600 * SECOND);
            }
            let passed = line.at(now) - last;
            assert!((SECOND * 9 / 40..=SECOND / 4).contains(&passed), "{passed}");
            last = line.at(now);
        }
    }

    #[test]
    fn an_event_from_before_the_bend_stays_before_the_bend() {
        let mut line = Line { monotonic: 0, wall: 100 * SECOND, slope: 0 };
        line.steer(SECOND, 200 * SECOND);
        assert!(line.at(SECOND - 1) < line.at(SECOND));
        assert!(line.at(SECOND) < line.at(SECOND + 2));
    }

    #[test]
    fn the_clock_tells_the_time() {
        let clock = Clock::start();
        let wall = read(libc::CLOCK_REALTIME);
        assert!(clock.now().as_nanos().abs_diff(wall) < SECOND);
    }
}
