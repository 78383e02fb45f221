//! Texts that fit: broken or cut to a width, and numbers in few columns.

use std::time::Duration;

use ratatui::text::Span as Text;

/// Lines of at most `width` columns; a word that is longer is cut.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut at = 0;
    for word in text.split(' ') {
        let mut word = word;
        loop {
            let columns = Text::raw(word).width();
            let space = usize::from(at > 0);
            let Some(line) = lines.last_mut() else { return lines };
            if at + space + columns <= width {
                if at > 0 {
                    line.push(' ');
                }
                line.push_str(word);
                at += space + columns;
                break;
            }
            if at == 0 {
                let end = fitting(word, width.max(1));
                line.push_str(&word[..end]);
                word = &word[end..];
                if word.is_empty() {
                    break;
                }
            }
            lines.push(String::new());
            at = 0;
        }
    }
    lines
}

/// How many bytes of a word fill a line; at least one character.
fn fitting(word: &str, width: usize) -> usize {
    let mut columns = 0;
    let mut ends = word.char_indices().map(|(at, c)| (at + c.len_utf8(), &word[at..at + c.len_utf8()]));
    let mut end = ends.next().map_or(word.len(), |(end, c)| {
        columns += Text::raw(c).width();
        end
    });
    for (next, c) in ends {
        columns += Text::raw(c).width();
        if columns > width {
            break;
        }
        end = next;
    }
    end
}

pub(super) fn ellipsis(text: &str, width: usize) -> String {
    if Text::raw(text).width() <= width {
        return text.to_owned();
    }
    let end = fitting(text, width.saturating_sub(1));
    format!("{}…", &text[..end])
}

/// `12,345`
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most five columns: `9999`, `12.3k`, `1.2M`.
pub(super) fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..100_000 => format!("{}.{}k", count / 1000, count % 1000 / 100),
        100_000..1_000_000 => format!("{}k", count / 1000),
        1_000_000..1_000_000_000 => format!("{}.{}M", count / 1_000_000, count % 1_000_000 / 100_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}

/// Four columns, unless it is very many: `0.02`, `4.2`, `1234`.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        ..0.1 => format!("{rate:.2}"),
        ..100.0 => format!("{rate:.1}"),
        _ => format!("{rate:.0}"),
    }
}

/// `100%`, `95.8%`; never 100 % when something failed.
pub(super) fn percent(share: f64) -> String {
    if share >= 1.0 { "100%".to_owned() } else { format!("{:.1}%", (share * 100.0).min(99.9)) }
}

/// At most five columns: `0.3ms`, `12ms`, `1.5s`.
pub(super) fn time(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..10_000 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{}ms", micros / 1000),
        1_000_000..100_000_000 => format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000),
        _ => format!("{}s", micros / 1_000_000),
    }
}

/// `48 s`, `12 min`, `3 h 20 min`
pub(super) fn period(period: Duration) -> String {
    let seconds = period.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_within_what_is_too_long() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a abcdefgh b", 3), ["a", "abc", "def", "gh", "b"]);
        assert_eq!(wrap("東京都", 4), ["東京", "都"], "by columns, not by characters");
        assert_eq!(wrap("東", 1), ["東"], "at least one character");
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(ellipsis("api.example.com", 15), "api.example.com");
        assert_eq!(ellipsis("api.example.com", 8), "api.exa…");
    }

    #[test]
    fn numbers_take_few_columns() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([9999, 12_345, 123_456, 1_234_567].map(short), ["9999", "12.3k", "123k", "1.2M"]);
        assert_eq!([0.0, 0.012, 4.25, 1234.5].map(rate), ["0", "0.01", "4.2", "1234"]);
        let times = [312, 12_345, 1_500_000, 120_000_000].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(times, ["0.3ms", "12ms", "1.5s", "120s"]);
        let periods = [119, 120, 7199, 12_000].map(|seconds| period(Duration::from_secs(seconds)));
        assert_eq!(periods, ["119 s", "2 min", "119 min", "3 h 20 min"]);
    }

    #[test]
    fn a_share_is_whole_only_where_nothing_failed() {
        assert_eq!([1.0, 0.999_99, 0.958, 0.0].map(percent), ["100%", "99.9%", "95.8%", "0.0%"]);
    }
}
