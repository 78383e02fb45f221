//! Writes JSON as `serde_json` does, byte for byte, for lines that consist of field names.
//!
//! `serde_json` looks for what has to be escaped in every name, byte by byte, which was a third of the time that a line
//! took. A field's name is an identifier of this program and has nothing to escape; of strings, the few that have are left
//! to `serde_json`. A [`Part`] that many lines share is written once.

use std::fmt::{self, Display, Write as _};

use serde::ser::{Error as _, Impossible, Serialize, SerializeSeq, SerializeStruct, Serializer};
use serde_json::Error;

/// Appends a value's JSON.
///
/// # Errors
///
/// If it holds a map, a tuple, a floating-point number, bytes, or an enumeration with fields: no line does.
pub(super) fn append(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Error> {
    value.serialize(Writer(out))
}

/// JSON that was written before, to be a value in other JSON that [`append`] writes.
#[derive(Clone, Debug)]
pub(super) struct Part(Box<[u8]>);

impl Part {
    /// What stands for nothing.
    pub(super) const NULL: &'static [u8] = b"null";

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// As [`append`].
    pub(super) fn of(value: &impl Serialize) -> Result<Self, Error> {
        let mut text = Vec::new();
        append(&mut text, value)?;
        Ok(Self(text.into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes of a [`Part`]. JSON has no type for bytes, so that a [`Writer`] takes them for JSON.
pub(super) struct Verbatim<'a>(pub(super) &'a [u8]);

impl Serialize for Verbatim<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn string(&mut self, text: &str) -> Result<(), Error> {
        if !is_plain(text.as_bytes()) {
            return serde_json::to_writer(&mut *self.0, text);
        }
        self.plain(text);
        Ok(())
    }

    /// A string without anything to escape.
    fn plain(&mut self, text: &str) {
        self.0.reserve(text.len() + 2);
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
    }

    fn number(self, number: impl itoa::Integer) {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
}

/// Whether a string stands in JSON as it is (RFC 8259 §7).
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let found = words.iter().fold(0, |found, word| found | escaped_in(u64::from_ne_bytes(*word)));
    let is_escaped = |byte: u8| u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\');
    found & HIGH_BITS == 0 && rest.iter().fold(0, |found, &byte| found | is_escaped(byte)) == 0
}

/// The highest bit of each byte.
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Sets the highest bit of a byte that is to be escaped. Of one that is not, perhaps, if another is
/// (<https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>).
const fn escaped_in(word: u64) -> u64 {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let quote = word ^ each(b'"');
    let backslash = word ^ each(b'\\');
    let zeros = quote.wrapping_sub(each(1)) & !quote | backslash.wrapping_sub(each(1)) & !backslash;
    word.wrapping_sub(each(b' ')) & !word | zeros
}

fn unknown<T>(what: &str) -> Result<T, Error> {
    Err(Error::custom(format_args!("a line has no {what}")))
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        self.number(value);
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.serialize_u32(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.serialize_u32(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.number(value);
        Ok(())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        self.number(value);
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Error> {
        unknown("floating-point number")
    }

    fn serialize_f64(self, _: f64) -> Result<(), Error> {
        unknown("floating-point number")
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(mut self, text: &str) -> Result<(), Error> {
        self.string(text)
    }

    /// Takes [`Verbatim`] JSON.
    fn serialize_bytes(self, json: &[u8]) -> Result<(), Error> {
        self.0.extend_from_slice(json);
        Ok(())
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        let begin = self.0.len();
        self.0.push(b'"');
        write!(Text(self.0), "{value}").map_err(Error::custom)?;
        if self.0.get(begin + 1..).is_some_and(is_plain) {
            self.0.push(b'"');
            return Ok(());
        }
        self.0.truncate(begin);
        serde_json::to_writer(self.0, &format_args!("{value}"))
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(Part::NULL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(mut self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        // An identifier, as a field's name is.
        self.plain(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        unknown("enumeration with fields")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        self.0.push(b'[');
        Ok(Items { out: self.0, is_first: true })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        unknown("tuple")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Error> {
        unknown("tuple")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        unknown("enumeration with fields")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Error> {
        unknown("map")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, Error> {
        self.0.push(b'{');
        Ok(Fields { out: self.0, is_first: true })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        unknown("enumeration with fields")
    }
}

/// An array that is being written.
struct Items<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
        value.serialize(Writer(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.out.push(b']');
        Ok(())
    }
}

/// An object that is being written.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Error;

    #[expect(
        clippy::inline_always,
        reason = "where the name's length is known, copying it is a store or two"
    )]
    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        self.out.extend_from_slice(if is_first { b"\"" } else { b",\"" });
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.serialize(Writer(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.out.push(b'}');
        Ok(())
    }
}

/// Takes what [`Display`] writes.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[derive(serde::Serialize)]
    struct Everything<'a> {
        #[serde(rename = "@first")]
        first: bool,
        texts: Vec<&'a str>,
        nothing: Option<u8>,
        something: Option<i64>,
        address: IpAddr,
        unit: (),
        empty: Vec<Inner>,
        inner: Vec<Inner>,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<u8>,
    }

    #[derive(serde::Serialize)]
    struct Inner {
        shown: Shown,
        number: u64,
    }

    struct Shown(&'static str);

    impl Serialize for Shown {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&format_args!("<{}>", self.0))
        }
    }

    #[test]
    fn what_is_written_is_what_serde_json_writes() {
        let every_character: String = (0..=0x2ff).filter_map(char::from_u32).collect();
        for address in ["192.0.2.1", "2001:db8::1"] {
            let value = Everything {
                first: true,
                texts: vec![
                    "",
                    "plain",
                    "a \"quote\"",
                    "C:\\",
                    "line\nline",
                    "\u{7f}",
                    "größer",
                    &every_character,
                ],
                nothing: None,
                something: Some(-3),
                address: address.parse().unwrap(),
                unit: (),
                empty: Vec::new(),
                inner: vec![
                    Inner { shown: Shown("plain"), number: 0 },
                    Inner { shown: Shown("a\t\"b\""), number: u64::MAX },
                ],
                absent: None,
            };
            let mut text = b"before ".to_vec();
            append(&mut text, &value).unwrap();
            let expected = serde_json::to_string(&value).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), format!("before {expected}"));
        }
    }

    #[test]
    fn a_part_stands_where_its_value_would() {
        let part = Part::of(&vec!["a", "\"b\""]).unwrap();
        let whole = Part::of(&[Verbatim(part.as_bytes()), Verbatim(Part::NULL)].as_slice()).unwrap();
        assert_eq!(whole.as_bytes(), br#"[["a","\"b\""],null]"#);
    }

    #[test]
    fn what_no_line_has_is_an_error() {
        assert!(Part::of(&1.5).is_err());
        assert!(Part::of(&std::collections::BTreeMap::from([("a", 1)])).is_err());
    }
}
