//! How regularly a client comes: probes do, people do not.

use std::time::Duration;

use crate::engine::timestamp::Timestamp;

/// Visits that make a rhythm.
const MIN_VISITS: u32 = 5;
/// A rhythm's intervals vary by less than this part of their mean (`DIAGNOSIS.md` §9).
const MAX_VARIATION: f64 = 0.2;

/// The times at which one client did the same thing, condensed as they come (Welford's method).
#[derive(Clone, Copy, Debug, Default)]
pub struct Visits {
    count: u32,
    last: Timestamp,
    mean: f64,
    squares: f64,
}

impl Visits {
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The interval between visits, if there were enough and they are regular, a visit at `now` included.
    pub fn period(&self, now: Timestamp) -> Option<Duration> {
        let mut visits = *self;
        visits.add(now);
        let intervals = f64::from(visits.count.saturating_sub(1));
        if visits.count < MIN_VISITS || visits.mean <= 0.0 {
            return None;
        }
        let deviation = (visits.squares / intervals).sqrt();
        (deviation < MAX_VARIATION * visits.mean).then(|| Duration::from_secs_f64(visits.mean))
    }

    pub(super) fn add(&mut self, time: Timestamp) {
        if self.count > 0 {
            let interval = time.since(self.last).as_secs_f64();
            // A pause of many periods begins anew.
            if self.count > 2 && interval > 10.0 * self.mean {
                *self = Self { count: 1, last: time, ..Self::default() };
                return;
            }
            let delta = interval - self.mean;
            self.mean += delta / f64::from(self.count);
            self.squares += delta * (interval - self.mean);
        }
        self.count = self.count.saturating_add(1);
        self.last = self.last.max(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(seconds: &[u64]) -> Option<u64> {
        let mut visits = Visits::default();
        let (last, earlier) = seconds.split_last().unwrap();
        for second in earlier {
            visits.add(Timestamp::from_nanos(second * 1_000_000_000));
        }
        visits.period(Timestamp::from_nanos(last * 1_000_000_000)).map(|period| period.as_secs())
    }

    #[test]
    fn regular_visits_have_a_period() {
        assert_eq!(visits(&[100, 110, 120, 130, 140]), Some(10));
        assert_eq!(visits(&[100, 111, 120, 131, 140, 150]), Some(10));
        assert_eq!(visits(&[100, 110, 120]), None);
        assert_eq!(visits(&[100, 101, 130, 131, 190, 195]), None);
        assert_eq!(visits(&[100, 100, 100, 100, 100]), None);
    }
}
