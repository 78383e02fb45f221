//! How many handshakes there were, and how many failed, in the last minute, ten minutes, hour and day.

use std::time::Duration;

use crate::engine::timestamp::Timestamp;

/// Buckets of each span.
pub const BUCKETS: usize = 60;

/// A length of time to look back on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Span {
    #[default]
    Minute,
    TenMinutes,
    Hour,
    Day,
}

impl Span {
    /// The shortest first.
    pub const ALL: [Self; 4] = [Self::Minute, Self::TenMinutes, Self::Hour, Self::Day];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "1 min",
            Self::TenMinutes => "10 min",
            Self::Hour => "1 h",
            Self::Day => "24 h",
        }
    }

    /// In seconds.
    pub const fn seconds(self) -> u64 {
        self.bucket_seconds() * BUCKETS as u64
    }

    /// The next longer one, and after the longest the shortest.
    pub const fn next(self) -> Self {
        match self {
            Self::Minute => Self::TenMinutes,
            Self::TenMinutes => Self::Hour,
            Self::Hour => Self::Day,
            Self::Day => Self::Minute,
        }
    }

    /// The shortest that holds so much time; the longest, if none does.
    pub fn holding(time: Duration) -> Self {
        let holds = |span: &Self| time.as_secs() < span.seconds();
        Self::ALL.into_iter().find(holds).unwrap_or(Self::Day)
    }

    /// Of a [`Bucket`].
    pub const fn bucket_seconds(self) -> u64 {
        match self {
            Self::Minute => 1,
            Self::TenMinutes => 10,
            Self::Hour => 60,
            Self::Day => 24 * 60,
        }
    }
}

/// Counts over time, in every [`Span`].
#[derive(Clone, Debug, Default)]
pub struct Series {
    rings: [Ring; Span::ALL.len()],
}

/// What there was in a part of a span.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bucket {
    pub handshakes: u32,
    pub failures: u32,
}

/// The buckets of one span. A bucket's number is its time since 1970, in buckets.
#[derive(Clone, Debug)]
struct Ring {
    buckets: [Bucket; BUCKETS],
    /// Number of the newest bucket.
    newest: u64,
}

impl Series {
    /// Counts what came at `time`; what is older than a span is left out of it.
    pub fn add(&mut self, time: Timestamp, counted: Bucket) {
        for (span, ring) in Span::ALL.into_iter().zip(&mut self.rings) {
            ring.add(time.as_secs() / span.bucket_seconds(), counted);
        }
    }

    /// The span that ends at `now`, oldest bucket first.
    pub fn until(&self, now: Timestamp, span: Span) -> [Bucket; BUCKETS] {
        let ring = Span::ALL.into_iter().zip(&self.rings).find(|(of, _)| *of == span);
        ring.map_or([Bucket::default(); BUCKETS], |(_, ring)| {
            ring.until(now.as_secs() / span.bucket_seconds())
        })
    }
}

impl Bucket {
    pub fn plus(self, other: Self) -> Self {
        Self {
            handshakes: self.handshakes.saturating_add(other.handshakes),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

impl Ring {
    fn add(&mut self, number: u64, counted: Bucket) {
        let new = number.saturating_sub(self.newest).min(BUCKETS as u64);
        for passed in 0..new {
            *self.at(number - passed) = Bucket::default();
        }
        self.newest = self.newest.max(number);
        if self.newest - number < BUCKETS as u64 {
            let bucket = self.at(number);
            *bucket = bucket.plus(counted);
        }
    }

    fn until(&self, now: u64) -> [Bucket; BUCKETS] {
        let mut copy = self.clone();
        copy.add(now, Bucket::default());
        let oldest = copy.newest + 1;
        std::array::from_fn(|i| *copy.at(oldest + i as u64))
    }

    fn at(&mut self, number: u64) -> &mut Bucket {
        let place = usize::try_from(number % BUCKETS as u64).unwrap_or_default();
        &mut self.buckets[place]
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self { buckets: [Bucket::default(); BUCKETS], newest: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Bucket = Bucket { handshakes: 1, failures: 0 };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_795_341_600_000_000_000).after(Duration::from_secs(seconds))
    }

    fn sum(buckets: &[Bucket]) -> u32 {
        buckets.iter().map(|bucket| bucket.handshakes).sum()
    }

    #[test]
    fn a_span_holds_what_came_in_it_and_ends_now() {
        let mut series = Series::default();
        (0..120).for_each(|second| series.add(at(second), ONE));
        assert_eq!(sum(&series.until(at(119), Span::Minute)), 60);
        assert_eq!(sum(&series.until(at(149), Span::Minute)), 30);
        assert_eq!(sum(&series.until(at(200), Span::Minute)), 0);
        assert_eq!(sum(&series.until(at(200), Span::TenMinutes)), 120);
        assert_eq!(series.until(at(119), Span::TenMinutes)[BUCKETS - 1].handshakes, 10);
    }

    #[test]
    fn what_comes_late_counts_where_it_belongs_and_what_comes_too_late_does_not() {
        let mut series = Series::default();
        for second in [100, 70, 30] {
            series.add(at(second), ONE);
        }
        let minute = series.until(at(100), Span::Minute);
        assert_eq!((sum(&minute), minute[BUCKETS - 1 - 30]), (2, ONE));
        assert_eq!(sum(&series.until(at(100), Span::Hour)), 3);
    }

    #[test]
    fn the_shortest_span_that_holds_it_all() {
        let span = |seconds| Span::holding(Duration::from_secs(seconds));
        assert_eq!(
            [span(0), span(59), span(60), span(86_400)],
            [Span::Minute, Span::Minute, Span::TenMinutes, Span::Day]
        );
    }
}
