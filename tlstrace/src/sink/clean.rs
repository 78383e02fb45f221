//! Text that somebody else chose, made safe for a terminal and for logs that are read line by line.

use std::fmt;

/// Shows a text without anything that moves a cursor, ends a line, reorders or hides what surrounds it.
///
/// Server names, distinguished names, interface names: whoever sends a packet may choose them.
#[derive(Clone, Copy, Debug)]
pub struct Clean<'a>(pub &'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(is_dangerous) {
            let (sound, from) = rest.split_at(at);
            f.write_str(sound)?;
            let mut chars = from.chars();
            if let Some(c) = chars.next() {
                write!(f, "{}", c.escape_unicode())?;
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}

/// Control characters, line and paragraph separators, and everything that is invisible or changes direction
/// (Unicode's `Default_Ignorable_Code_Point` and `Bidi_Control`).
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_reorders_text_comes_through() {
        let cases = [
            ("api.example.com", "api.example.com"),
            ("büro.example → ☃", "büro.example → ☃"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\r\nb\tc", "a\\u{d}\\u{a}b\\u{9}c"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}moc.elpmaxe", "\\u{202e}moc.elpmaxe"),
            ("a\u{2028}b\u{200b}", "a\\u{2028}b\\u{200b}"),
            ("\u{7f}", "\\u{7f}"),
            ("", ""),
        ];
        for (text, shown) in cases {
            assert_eq!(Clean(text).to_string(), shown);
        }
    }
}
