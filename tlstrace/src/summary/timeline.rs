//! When things happened, in steps that grow with the period.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Class;
use crate::engine::timestamp::Timestamp;

/// Most steps: as many as can be told apart in a picture.
const MAX_STEPS: u64 = 120;
/// Lengths of a step in milliseconds, each a multiple of the one before, so that steps merge without remainder.
const LENGTHS: [u64; 17] = [
    100,
    500,
    1_000,
    5_000,
    10_000,
    30_000,
    60_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    10_800_000,
    43_200_000,
    86_400_000,
    604_800_000,
    2_419_200_000,
    // Five years: 120 of them are more than a timestamp can tell.
    157_248_000_000,
];

/// Counts by time.
#[derive(Clone, Debug)]
pub struct Timeline {
    length: Duration,
    /// By number since 1970; those without an entry are not there.
    steps: BTreeMap<u64, Step>,
}

/// What happened within one step.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Step {
    pub handshakes: u64,
    /// By verdict.
    pub failures: BTreeMap<Arc<str>, u64>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { length: Duration::from_millis(LENGTHS[0]), steps: BTreeMap::new() }
    }
}

impl Timeline {
    /// How long a step is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// When a step begins, by its number.
    pub fn begin(&self, step: u64) -> Timestamp {
        let nanos = u128::from(step) * self.length.as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Numbers of the first and the last step.
    pub fn range(&self) -> Option<(u64, u64)> {
        Some((*self.steps.first_key_value()?.0, *self.steps.last_key_value()?.0))
    }

    /// Steps in which something was judged, by their number.
    pub fn steps(&self) -> impl Iterator<Item = (u64, &Step)> {
        self.steps.iter().map(|(number, step)| (*number, step))
    }

    pub(super) fn add(&mut self, time: Timestamp, verdict: &Arc<str>, class: Class, count: u64) {
        let step = self.steps.entry(number(time, self.length)).or_default();
        step.handshakes += count;
        if class == Class::Failure {
            *step.failures.entry(Arc::clone(verdict)).or_default() += count;
        }
        self.fit();
    }

    pub(super) fn take_back(&mut self, time: Timestamp, verdict: &str, class: Class) {
        let Some(step) = self.steps.get_mut(&number(time, self.length)) else { return };
        step.handshakes = step.handshakes.saturating_sub(1);
        if class == Class::Failure
            && let Some(count) = step.failures.get_mut(verdict)
        {
            *count = count.saturating_sub(1);
        }
    }

    /// Makes steps longer until there are not too many.
    fn fit(&mut self) {
        let fits = |(first, last): (u64, u64)| last - first < MAX_STEPS;
        while !self.range().is_none_or(fits) {
            let longer = LENGTHS.into_iter().map(Duration::from_millis).find(|length| *length > self.length);
            let Some(longer) = longer else { return };
            let mut steps = BTreeMap::<u64, Step>::new();
            for (step, counts) in std::mem::take(&mut self.steps) {
                let merged = steps.entry(number(self.begin(step), longer)).or_default();
                merged.handshakes += counts.handshakes;
                for (verdict, count) in counts.failures {
                    *merged.failures.entry(verdict).or_default() += count;
                }
            }
            self.length = longer;
            self.steps = steps;
        }
    }
}

fn number(time: Timestamp, length: Duration) -> u64 {
    u64::try_from(u128::from(time.as_nanos()) / length.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_795_341_600_000_000_000).after(Duration::from_millis(millis))
    }

    #[test]
    fn steps_grow_with_the_period_and_nothing_is_lost() {
        let verdict = Arc::from("sni_missing");
        let mut timeline = Timeline::default();
        for hour in 0..1000 {
            timeline.add(at(hour * 3_600_000), &verdict, Class::Failure, 1);
            timeline.add(at(hour * 3_600_000 + 1), &verdict, Class::Success, 1);
        }
        let (first, last) = timeline.range().unwrap();
        assert_eq!(timeline.length(), Duration::from_hours(12));
        assert!(last - first < MAX_STEPS);
        assert!(timeline.begin(first) <= at(0) && timeline.begin(last) <= at(999 * 3_600_000));
        let sum = |count: fn(&Step) -> u64| timeline.steps().map(|(_, step)| count(step)).sum::<u64>();
        assert_eq!(sum(|step| step.handshakes), 2000);
        assert_eq!(sum(|step| step.failures.values().sum()), 1000);
    }

    #[test]
    fn no_pair_of_times_makes_too_many_steps() {
        let verdict = Arc::from("sni_missing");
        let mut timeline = Timeline::default();
        timeline.add(Timestamp::default(), &verdict, Class::Failure, 1);
        timeline.add(Timestamp::from_nanos(u64::MAX), &verdict, Class::Failure, 1);
        let (first, last) = timeline.range().unwrap();
        assert!(last - first < MAX_STEPS, "{timeline:?}");
    }

    #[test]
    fn what_was_taken_back_is_gone_from_where_it_was() {
        let (before, after) = (Arc::from("reset"), Arc::from("sni_missing"));
        let mut timeline = Timeline::default();
        timeline.add(at(0), &before, Class::Failure, 1);
        timeline.add(at(5000), &after, Class::Failure, 1);
        timeline.take_back(at(0), "reset", Class::Failure);
        let steps: Vec<_> = timeline.steps().map(|(_, step)| step.failures.values().sum::<u64>()).collect();
        assert_eq!(steps, [0, 1]);
    }
}
