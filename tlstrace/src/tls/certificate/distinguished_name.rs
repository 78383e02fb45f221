//! Distinguished names as text: RFC 4514, safe to print.
//!
//! Attribute types outside RFC 4514's table are dotted OIDs with a readable value instead of `#hex`, and
//! characters that would act on a terminal or a log are escaped like any other special character. Names of
//! more than [`MAX_LEN`] bytes end in `…`.

use std::{borrow::Cow, fmt::Write};

use x509_parser::{
    asn1_rs::Tag,
    x509::{AttributeTypeAndValue, X509Name},
};

/// Bytes kept of a name's text.
pub(super) const MAX_LEN: usize = 1024;

/// The whole name, most specific part first (RFC 4514 §2.1).
pub(super) fn to_text(name: &X509Name<'_>) -> Box<str> {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (at, part) in parts.iter().rev().enumerate() {
        if at > 0 {
            text.push(',');
        }
        for (at, attribute) in part.iter().enumerate() {
            if at > 0 {
                text.push('+');
            }
            push_type(&mut text, attribute);
            text.push('=');
            push_value(&mut text, attribute);
        }
        if text.len() > MAX_LEN {
            break;
        }
    }
    truncate(text)
}

/// The last, most specific common name.
pub(super) fn common_name(name: &X509Name<'_>) -> Option<Box<str>> {
    let attribute = name.iter_common_name().last()?;
    Some(printable(&value(attribute)?))
}

/// `text` with everything escaped that is not a printable character; cut to [`MAX_LEN`].
pub(super) fn printable(text: &str) -> Box<str> {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        push_character(&mut escaped, character, false);
        if escaped.len() > MAX_LEN {
            break;
        }
    }
    truncate(escaped)
}

fn truncate(mut text: String) -> Box<str> {
    if text.len() > MAX_LEN {
        text.truncate(text.floor_char_boundary(MAX_LEN));
        text.push('…');
    }
    text.into()
}

fn push_type(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type();
    // RFC 4514 §3
    let known = match oid.as_bytes() {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        // 0.9.2342.19200300.100.1.{1, 25}
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        _ => return text.push_str(&oid.to_id_string()),
    };
    text.push_str(known);
}

fn push_value(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let Some(value) = value(attribute) else {
        text.push('#');
        for byte in attribute.as_slice().iter().take(MAX_LEN / 2) {
            let _ = write!(text, "{byte:02x}");
        }
        return;
    };
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().take(MAX_LEN).enumerate() {
        // RFC 4514 §2.4: a space at either end, and `#` at the beginning.
        let at_edge = (character == ' ' && (at == 0 || at == last)) || (character == '#' && at == 0);
        if at_edge || matches!(character, ',' | '+' | '"' | ';' | '<' | '>') {
            text.push('\\');
        }
        push_character(text, character, true);
    }
}

/// The value, if it is of a string type.
fn value<'a>(attribute: &AttributeTypeAndValue<'a>) -> Option<Cow<'a, str>> {
    let value = attribute.attr_value();
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::NumericString | Tag::Ia5String | Tag::VisibleString => {
            Some(String::from_utf8_lossy(bytes))
        }
        // As everyone reads it: Latin-1.
        Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect::<String>().into()),
        Tag::BmpString => {
            let (units, _) = bytes.as_chunks();
            let units: Vec<u16> = units.iter().copied().map(u16::from_be_bytes).collect();
            Some(String::from_utf16_lossy(&units).into())
        }
        Tag::UniversalString => {
            let (units, _) = bytes.as_chunks();
            let characters = units.iter().map(|&unit| char::from_u32(u32::from_be_bytes(unit)));
            Some(characters.map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
        }
        _ => None,
    }
}

/// One character, or `\` and its UTF-8 bytes in hexadecimal (RFC 4514 §2.4; `\\` for a backslash inside a
/// distinguished name).
fn push_character(text: &mut String, character: char, is_in_name: bool) {
    match character {
        '\\' if is_in_name => text.push_str("\\\\"),
        '\\' => text.push_str("\\5c"),
        _ if acts_on_terminals(character) => {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(text, "\\{byte:02x}");
            }
        }
        _ => text.push(character),
    }
}

/// Control characters, and the invisible ones that reorder or hide text.
fn acts_on_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}
