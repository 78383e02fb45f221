//! A summary for people: what failed, what it has in common, where, and which certificates are about to expire.

use std::fmt::{self, Display, Formatter};
use std::hash::Hash;

use super::{Certificate, EXPIRES_SOON, Incident, Summary, Table};
use crate::engine::timestamp::{Civil, Timestamp};
use crate::sink::Clean;
use crate::verdict::words;

/// Most incidents and certificates that are listed.
const MOST: usize = 10;
/// Most rows of a table.
const ROWS: usize = 5;

/// Shows a summary in lines of text, each ended; nothing if there is nothing to tell.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub summary: &'a Summary,
    /// Seconds east of UTC.
    pub offset: i32,
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let summary = self.summary;
        let Some((first, last)) = summary.period() else { return Ok(()) };
        let times = Times::new(summary, self.offset);
        let failures = summary.failures();
        if failures > 0 {
            writeln!(
                f,
                "{failures} of {} handshakes failed ({}), {} to {}",
                summary.handshakes(),
                Share(failures, summary.handshakes()),
                times.show(first),
                times.show(last)
            )?;
            let incidents = summary.incidents().list();
            for incident in incidents.iter().take(MOST) {
                writeln!(f, "  {}", self.incident(incident, times))?;
            }
            if incidents.len() > MOST {
                writeln!(f, "  and {} more kinds", incidents.len() - MOST)?;
            }
        }
        // One failure has been told whole by now.
        if failures > 1 {
            self.write_table(f, "listener", summary.listeners(), ToString::to_string)?;
            self.write_table(f, "server name", summary.server_names(), |name| Clean(name).to_string())?;
            self.write_table(f, "client", summary.clients(), ToString::to_string)?;
        }
        self.write_certificates(f, last)
    }
}

impl Text<'_> {
    /// What failures have in common, the most frequent first, each in a line.
    pub fn incidents(&self) -> Vec<String> {
        let times = Times::new(self.summary, self.offset);
        let incidents = self.summary.incidents().list();
        incidents.into_iter().take(MOST).map(|incident| self.incident(incident, times)).collect()
    }

    /// Certificates that end soon after `now`, the soonest first, each in a line.
    pub fn certificates(&self, now: Timestamp) -> Vec<String> {
        let expiring = self.summary.certificates().expiring(now, EXPIRES_SOON);
        expiring
            .take(MOST)
            .map(|(not_after, subject, seen)| certificate(now, not_after, subject, seen))
            .collect()
    }

    /// `412 of 430 failures: sni_missing, one JA4, 10.8.0.0/14 (37 clients), to 10.4.0.9:8443, since 14:02:11`
    fn incident(&self, incident: &Incident, times: Times) -> String {
        let all = self.summary.failures();
        let what = format!("{} of {all} failures: {}", incident.failures, incident.verdict);
        let last = times.show(incident.last);
        let when = match incident.failures {
            1 => format!("at {last}"),
            _ => format!("since {}, last at {last}", times.show(incident.first)),
        };
        let phrases = [vec![what], incident.in_common(), vec![when]].concat();
        Clean(&phrases.join(", ")).to_string()
    }

    fn write_table<K: Clone + Eq + Hash + Ord>(
        &self,
        f: &mut Formatter<'_>,
        what: &str,
        table: &Table<K>,
        show: impl Fn(&K) -> String,
    ) -> fmt::Result {
        let failing = table.failing(usize::MAX);
        let rows: Vec<_> = failing.iter().take(ROWS).map(|(key, tally)| (show(key), tally)).collect();
        let Some(width) = rows.iter().map(|(key, _)| key.chars().count()).max() else { return Ok(()) };
        let width = width.max(what.len()).min(48);
        writeln!(
            f,
            "  {what:<width$}  {:>8}  {:>11}  {:>10}  {:<8}  {:<8}  mostly",
            "failures", "of failures", "handshakes", "first", "last"
        )?;
        for (key, tally) in rows {
            let time =
                |time: Option<Timestamp>| time.map(|time| clock(time, self.offset)).unwrap_or_default();
            writeln!(
                f,
                "  {key:<width$}  {:>8}  {:>11}  {:>10}  {:<8}  {:<8}  {}",
                tally.failures,
                Share(tally.failures, self.summary.failures()).to_string(),
                tally.handshakes,
                time(tally.first_failure),
                time(tally.last_failure),
                Clean(tally.top_verdict().map_or("", |(verdict, _)| verdict)),
            )?;
        }
        if failing.len() > ROWS {
            writeln!(f, "  and {} more", failing.len() - ROWS)?;
        }
        if table.forgotten() > 0 {
            writeln!(f, "  {} that failed least were forgotten for want of room", table.forgotten())?;
        }
        Ok(())
    }

    fn write_certificates(&self, f: &mut Formatter<'_>, now: Timestamp) -> fmt::Result {
        let expiring = self.summary.certificates().expiring(now, EXPIRES_SOON).count();
        if expiring == 0 {
            return Ok(());
        }
        writeln!(f, "  certificates that have ended or end within {} days", EXPIRES_SOON.as_secs() / 86_400)?;
        self.certificates(now).iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        if expiring > MOST {
            writeln!(f, "  and {} more", expiring - MOST)?;
        }
        Ok(())
    }
}

/// Shows points in time as people read them.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Seconds east of UTC.
    offset: i32,
    /// With the day, where not all is of the same.
    has_days: bool,
}

impl Times {
    /// For those of a summary.
    pub fn new(summary: &Summary, offset: i32) -> Self {
        let day = |time: Timestamp| local(time, offset).div_euclid(86_400);
        let has_days = summary.period().is_some_and(|(first, last)| day(first) != day(last));
        Self { offset, has_days }
    }

    /// `14:02:11`, or `2026-11-22 14:02:11`.
    pub fn show(self, time: Timestamp) -> String {
        let clock = clock(time, self.offset);
        if self.has_days { format!("{} {clock}", self.date(time)) } else { clock }
    }

    /// `2026-11-22`.
    pub fn date(self, time: Timestamp) -> String {
        words::date(local(time, self.offset))
    }
}

fn clock(time: Timestamp, offset: i32) -> String {
    let Civil { hour, minute, second, .. } = Civil::of(local(time, offset));
    format!("{hour:02}:{minute:02}:{second:02}")
}

/// Seconds since 1970 on a clock so many seconds east of UTC.
fn local(time: Timestamp, offset: i32) -> i64 {
    time.as_secs().cast_signed() + i64::from(offset)
}

/// `2026-12-16 (in 20 days)  CN=api.example.com at 10.4.0.9:8443 for api.example.com`
fn certificate(now: Timestamp, not_after: i64, subject: &str, seen: &Certificate) -> String {
    let days = |seconds: i64| seconds / 86_400;
    let when = match not_after - now.as_secs().cast_signed() {
        left @ ..0 => format!("{} days ago", days(-left)),
        left => format!("in {} days", days(left)),
    };
    let line = format!("{} ({when})  {} at {}", words::date(not_after), Clean(subject), seen.server);
    match &seen.server_name {
        Some(name) => line + &format!(" for {}", Clean(name)),
        None => line,
    }
}

/// A part of a whole: `17.8 %`.
#[derive(Clone, Copy, Debug)]
pub struct Share(pub u64, pub u64);

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Tenths of a percent, rounded.
        let (part, whole) = (u128::from(self.0), u128::from(self.1.max(1)));
        let tenths = (part * 2000 + whole) / (whole * 2);
        match (tenths, part) {
            (0, 1..) => f.write_str("< 0.1 %"),
            _ => write!(f, "{}.{} %", tenths / 10, tenths % 10),
        }
    }
}
