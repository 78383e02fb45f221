//! Points in time, as segments carry them.

use std::num::NonZeroU64;
use std::time::Duration;

/// Nanoseconds since 1970-01-01T00:00:00Z, without leap seconds.
///
/// One more is kept, so that none is 0 and an [`Option`] takes no more room: of every connection there are dozens.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(NonZeroU64);

impl Timestamp {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.as_nanos() / 1_000_000_000
    }

    /// What [`Display`](std::fmt::Display) gave: RFC 3339 in UTC, with any fraction of a second or none.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
        let number =
            |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let fields = |text: &str, separator| -> Option<[u64; 3]> {
            let fields: Option<Vec<_>> = text.split(separator).map(number).collect();
            fields?.try_into().ok()
        };
        let ([year, month, day], [hour, minute, second]) = (fields(date, '-')?, fields(time, ':')?);
        let in_range = (1970..=2554).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !in_range || hour > 23 || minute > 59 || second > 60 || fraction.len() > 9 {
            return None;
        }
        let nanos = if fraction.is_empty() { 0 } else { number(&format!("{fraction:0<9}"))? };
        // The inverse of `Civil::of`: years begin in March.
        let shifted_year = if month <= 2 { year - 1 } else { year };
        let shifted_month = (month + 9) % 12;
        let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
        let days =
            365 * shifted_year + shifted_year / 4 - shifted_year / 100 + shifted_year / 400 + day_of_year;
        let seconds = days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second;
        Some(Self::from_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
    }

    /// Time since `earlier`, zero where `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// This point in time and `duration` before it, no earlier than 1970.
    pub fn before(self, duration: Duration) -> Self {
        Self::from_nanos(
            self.as_nanos().saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This point in time and `duration` after it, saturating at the end of the range (year 2554).
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Default for Timestamp {
    /// The beginning of 1970.
    fn default() -> Self {
        Self::from_nanos(0)
    }
}

impl std::fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds: `2026-11-22T10:00:00.123456Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.as_nanos() % 1_000_000_000 / 1000;
        let Civil { year, month, day, hour, minute, second } = Civil::of(self.as_secs().cast_signed());
        // Every line has one, and padding seven numbers by `write!` takes longer than all else in it.
        let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or_default();
        let two = |value: u8| [b'0' + value / 10 % 10, b'0' + value % 10];
        let year = year.unsigned_abs();
        let [y3, y2, y1, y0] = [1000, 100, 10, 1].map(|unit| digit(year / unit));
        let [[m1, m0], [d1, d0], [h1, h0], [n1, n0], [s1, s0]] = [month, day, hour, minute, second].map(two);
        let [f5, f4, f3, f2, f1, f0] = [100_000, 10_000, 1000, 100, 10, 1].map(|unit| digit(micros / unit));
        let text = [
            y3, y2, y1, y0, b'-', m1, m0, b'-', d1, d0, b'T', h1, h0, b':', n1, n0, b':', s1, s0, b'.', f5,
            f4, f3, f2, f1, f0, b'Z',
        ];
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// A point in time in UTC, in the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Civil {
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Civil {
    /// From seconds since 1970-01-01T00:00:00Z, which may be negative.
    ///
    /// Days become a date as in Howard Hinnant's *chrono-Compatible Low-Level Date Algorithms*: years begin in
    /// March, so that the leap day is the last one, and 400 years are one era.
    pub fn of(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400) + 719_468;
        let second_of_day = seconds.rem_euclid(86_400);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let small = |value: i64| u8::try_from(value).unwrap_or(0);
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(day),
            hour: small(second_of_day / 3600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339() {
        assert_eq!(Timestamp::from_nanos(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            Timestamp::from_nanos(1_795_341_600_123_456_789).to_string(),
            "2026-11-22T10:00:00.123456Z"
        );
        assert_eq!(Timestamp::from_nanos(951_782_400_000_000_000).to_string(), "2000-02-29T00:00:00.000000Z");
    }

    #[test]
    fn what_was_printed_can_be_read_back() {
        for nanos in [0, 951_782_400_000_000_000, 1_709_164_799_999_999_000, 1_795_341_600_123_456_000] {
            let time = Timestamp::from_nanos(nanos);
            assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }
        let parse = |text| Timestamp::parse(text).map(Timestamp::as_nanos);
        assert_eq!(parse("2000-02-29T00:00:00Z"), Some(951_782_400_000_000_000));
        assert_eq!(parse("1970-01-01T00:00:00.5Z"), Some(500_000_000));
        for bad in ["", "2000-02-29", "2000-02-29T00:00:00", "2000-13-01T00:00:00Z", "2000-01-01T+1:00:00Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_before_1970_are_dates() {
        let Civil { year, month, day, .. } = Civil::of(-1);
        assert_eq!((year, month, day), (1969, 12, 31));
    }
}
