//! How long something took, as a histogram of fixed size.

use std::time::Duration;

/// Buckets per doubling: a quantile is right to within a fifth.
const PER_OCTAVE: u64 = 4;
/// Up to 2³³ µs, more than two hours.
const BUCKETS: usize = 128;

/// Counts of durations, in buckets that grow with them.
#[derive(Clone, Debug)]
pub struct Latency {
    buckets: [u32; BUCKETS],
    count: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0 }
    }
}

impl Latency {
    pub fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket(micros).min(BUCKETS - 1)) {
            *bucket = bucket.saturating_add(1);
            self.count += 1;
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// What `percent` of the durations do not exceed; none if there is none.
    pub fn quantile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut below = 0;
        let at = self.buckets.iter().position(|count| {
            below += u64::from(*count);
            below >= rank
        })?;
        Some(Duration::from_micros(upper_bound(at as u64)))
    }
}

/// Four buckets a doubling, from 4 µs on; below, one a microsecond.
fn bucket(micros: u64) -> usize {
    let Some(octave) = micros.checked_ilog2().filter(|octave| *octave >= 2) else {
        return usize::try_from(micros).unwrap_or(0);
    };
    let within = (micros >> (octave - 2)) & (PER_OCTAVE - 1);
    usize::try_from(u64::from(octave - 1) * PER_OCTAVE + within).unwrap_or(usize::MAX)
}

/// The longest duration in a bucket, in microseconds.
fn upper_bound(bucket: u64) -> u64 {
    let (octave, within) = (bucket / PER_OCTAVE + 1, bucket % PER_OCTAVE);
    if octave < 2 { within } else { ((PER_OCTAVE + within + 1) << (octave - 2)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        for micros in (0..5000).chain([1 << 20, (1 << 33) - 1]) {
            let bound = upper_bound(bucket(micros) as u64);
            assert!(bound >= micros && bound - micros <= micros / 4, "{micros} µs in a bucket up to {bound}");
            assert_eq!(bucket(bound), bucket(micros));
            assert_eq!(bucket(bound + 1), bucket(micros) + 1);
        }
    }

    #[test]
    fn quantiles_are_near_what_was_put_in() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(50), None);
        (1..=100).for_each(|millis| latency.add(Duration::from_millis(millis)));
        latency.add(Duration::MAX);
        for (percent, millis) in [(50, 51), (99, 100)] {
            let quantile = latency.quantile(percent).unwrap();
            let off = quantile.abs_diff(Duration::from_millis(millis));
            assert!(off <= Duration::from_millis(millis / 4), "p{percent} = {quantile:?}");
        }
        assert!(latency.quantile(100).unwrap() > Duration::from_hours(2));
    }
}
