//! Patterns in which `*` stands for any text and everything else for itself.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A pattern for names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob(String);

impl Glob {
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the pattern stands for one text only.
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether the pattern stands for all of `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_by(text, |pattern, byte| pattern == byte)
    }

    /// As [`Glob::matches`], where upper and lower case mean the same, as in host names (RFC 4343).
    pub fn matches_in_any_case(&self, text: &str) -> bool {
        self.matches_by(text, |pattern, byte| pattern.eq_ignore_ascii_case(&byte))
    }

    fn matches_by(&self, text: &str, same: impl Fn(u8, u8) -> bool) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut done) = (0, 0);
        // Where to go on when the text after the last `*` does not fit: one byte more for that `*`.
        let mut retry = None;
        while let Some(byte) = text.get(done) {
            if pattern.get(at) == Some(&b'*') {
                at += 1;
                retry = Some((at, done));
            } else if pattern.get(at).is_some_and(|pattern| same(*pattern, *byte)) {
                at += 1;
                done += 1;
            } else if let Some((after_star, from)) = retry {
                at = after_star;
                done = from + 1;
                retry = Some((after_star, done));
            } else {
                return false;
            }
        }
        pattern.iter().skip(at).all(|byte| *byte == b'*')
    }
}

impl FromStr for Glob {
    type Err = Infallible;

    fn from_str(pattern: &str) -> Result<Self, Infallible> {
        Ok(Self::new(pattern))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_the_rest_for_itself() {
        let cases = [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("gke*", "gke12ab", true),
            ("*.example.com", "api.example.com", true),
            ("*.example.com", "example.com", false),
            ("ETH*", "eth0", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("**", "x", true),
            ("a?c", "abc", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn host_names_match_in_any_case() {
        assert!(Glob::new("*.EXAMPLE.com").matches_in_any_case("api.example.COM"));
    }
}
