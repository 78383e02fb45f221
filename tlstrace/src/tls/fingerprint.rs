//! Fingerprints of a ClientHello: JA3 (salesforce/ja3) and JA4 for TLS over TCP (FoxIO-LLC/ja4, BSD-3).
//!
//! Neither exists for an SSL 2.0 hello: it has no extensions to speak of.

use std::fmt::Write;

use md5::{Digest, Md5};
use sha2::Sha256;

use super::{
    client_hello::ClientHello,
    codepoints::{ExtensionType, ProtocolVersion, is_grease},
};

/// Not hashed by JA4: its first part has them already, and they change with the destination.
const COUNTED_ONLY: [ExtensionType; 2] =
    [ExtensionType::SERVER_NAME, ExtensionType::APPLICATION_LAYER_PROTOCOL_NEGOTIATION];

/// JA3's input: version, suites, extensions, groups and point formats in decimal and wire order, without
/// GREASE.
pub fn ja3_string(hello: &ClientHello) -> String {
    let mut text = String::with_capacity(256);
    push_decimal(&mut text, hello.legacy_version.0);
    text.push(',');
    push_list(&mut text, hello.cipher_suites.iter().map(|suite| suite.0));
    text.push(',');
    push_list(&mut text, hello.extensions.iter().map(|extension| extension.0));
    text.push(',');
    push_list(&mut text, hello.supported_groups.iter().map(|group| group.0));
    text.push(',');
    push_list(&mut text, hello.ec_point_formats.iter().map(|&format| u16::from(format)));
    text
}

/// JA3: MD5 of [`ja3_string`] in hexadecimal.
pub fn ja3(hello: &ClientHello) -> String {
    let digest = Md5::digest(ja3_string(hello).as_bytes());
    let mut text = String::with_capacity(32);
    push_hex(&mut text, &digest);
    text
}

/// JA4, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
pub fn ja4(hello: &ClientHello) -> String {
    let mut suites: Vec<u16> =
        hello.cipher_suites.iter().map(|suite| suite.0).filter(|&suite| !is_grease(suite)).collect();
    let mut extensions: Vec<u16> =
        hello.extensions.iter().map(|extension| extension.0).filter(|&kind| !is_grease(kind)).collect();

    let mut text = String::with_capacity(36);
    text.push('t');
    text.push_str(ja4_version(hello));
    text.push(if hello.extensions.contains(&ExtensionType::SERVER_NAME) { 'd' } else { 'i' });
    let _ = write!(text, "{:02}{:02}", suites.len().min(99), extensions.len().min(99));
    for character in ja4_alpn(hello.alpn.first().map_or(&[], |protocol| protocol)) {
        text.push(character);
    }

    suites.sort_unstable();
    text.push('_');
    push_ja4_hash(&mut text, &hex_list(&suites));

    extensions.retain(|&kind| !COUNTED_ONLY.contains(&ExtensionType(kind)));
    extensions.sort_unstable();
    let mut hashed = hex_list(&extensions);
    let schemes: Vec<u16> =
        hello.signature_schemes.iter().map(|scheme| scheme.0).filter(|&scheme| !is_grease(scheme)).collect();
    if !schemes.is_empty() {
        hashed.push('_');
        hashed.push_str(&hex_list(&schemes));
    }
    text.push('_');
    push_ja4_hash(&mut text, &hashed);
    text
}

/// The highest of `supported_versions`, or the version field without that extension.
fn ja4_version(hello: &ClientHello) -> &'static str {
    let offered = hello.supported_versions.iter().copied().filter(|version| !version.is_grease());
    match offered.max().unwrap_or(hello.legacy_version) {
        ProtocolVersion::TLS1_3 => "13",
        ProtocolVersion::TLS1_2 => "12",
        ProtocolVersion::TLS1_1 => "11",
        ProtocolVersion::TLS1_0 => "10",
        ProtocolVersion::SSL3 => "s3",
        ProtocolVersion::SSL2 => "s2",
        ProtocolVersion(0xfeff) => "d1",
        ProtocolVersion(0xfefd) => "d2",
        ProtocolVersion(0xfefc) => "d3",
        _ => "00",
    }
}

/// The first and the last character of the first protocol; of its hexadecimal form if one of them is neither
/// letter nor digit; `00` if there is none.
fn ja4_alpn(protocol: &[u8]) -> [char; 2] {
    let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else { return ['0', '0'] };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(first), char::from(last)];
    }
    [digit(u16::from(first >> 4)), digit(u16::from(last & 0x0f))]
}

/// The first 12 digits of SHA-256, or zeros for nothing.
fn push_ja4_hash(text: &mut String, hashed: &str) {
    if hashed.is_empty() {
        return text.push_str("000000000000");
    }
    let digest = Sha256::digest(hashed.as_bytes());
    push_hex(text, digest.get(..6).unwrap_or_default());
}

/// Four hexadecimal digits each, separated by commas.
fn hex_list(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        push_hex(&mut text, &value.to_be_bytes());
    }
    text
}

/// Decimal numbers without GREASE, separated by hyphens.
fn push_list(text: &mut String, values: impl Iterator<Item = u16>) {
    for (at, value) in values.filter(|&value| !is_grease(value)).enumerate() {
        if at > 0 {
            text.push('-');
        }
        push_decimal(text, value);
    }
}

/// By hand: `write!` costs more than the hash that this is for.
fn push_decimal(text: &mut String, value: u16) {
    let mut place = 10_000;
    while place > 1 && value < place {
        place /= 10;
    }
    while place > 0 {
        text.push(digit(value / place % 10));
        place /= 10;
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        text.push(digit(u16::from(byte >> 4)));
        text.push(digit(u16::from(byte & 0x0f)));
    }
}

/// The lower-case hexadecimal digit of `value`, which is less than 16.
fn digit(value: u16) -> char {
    let offset = if value < 10 { b'0' } else { b'a' - 10 };
    char::from(value.to_be_bytes()[1].wrapping_add(offset))
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;
    use crate::tls::testing::{self, body, client_hello_with};

    fn decode(body: &[u8]) -> ClientHello {
        ClientHello::decode(body).complete().unwrap()
    }

    #[test]
    fn fingerprints_are_those_that_other_tools_give_for_the_same_hello() {
        // JA3 as tshark 4.0 prints it, JA4 worked out by an independent script from the specification.
        let chrome = decode(body(&testing::client_hello_chrome()));
        assert_eq!(
            ja3_string(&chrome),
            "771,4865-4866-4867-49195-49199-49196-49200-52393-52392-49171-49172-156-157-47-53,\
             13-18-45-27-65037-43-51-0-11-35-5-23-16-10-65281-17513,4588-29-23-24,0"
        );
        assert_eq!(ja3(&chrome), "35708a08e7be9f7aa5bce7f2d5c1cecb");
        assert_eq!(ja4(&chrome), "t13d1516h2_8daaf6152771_02713d6af862");
        let curl = decode(body(&testing::client_hello_curl()));
        assert_eq!(ja3(&curl), "89dfc51e72bdcb94e4ba4622588002b1");
        assert_eq!(ja4(&curl), "t13d0412h2_16476d049b0b_85302d7e289e");
    }

    #[test]
    fn ja4_takes_the_protocol_from_its_hexadecimal_form_if_it_is_not_alphanumeric() {
        let alpn = |protocol: &[u8]| {
            let len = u8::try_from(protocol.len()).unwrap();
            let list = [&[0, len + 1, len], protocol].concat();
            ja4(&decode(&client_hello_with(&[(16, &list)])))[8..10].to_owned()
        };
        assert_eq!(alpn(b"h2"), "h2");
        assert_eq!(alpn(b"http/1.1"), "h1");
        assert_eq!(alpn(b"x"), "xx");
        // The examples of the specification.
        assert_eq!(alpn(&[0xab]), "ab");
        assert_eq!(alpn(&[0xab, 0xcd]), "ad");
        assert_eq!(alpn(&[0x30, 0xab]), "3b");
        assert_eq!(alpn(&[0x30, 0x31, 0xab, 0xcd]), "3d");
        assert_eq!(alpn(&[0x30, 0xab, 0xcd, 0x31]), "01");
    }

    #[test]
    fn ja4_has_zeros_where_there_is_nothing_to_hash() {
        let mut bare = client_hello_with(&[]);
        bare.truncate(bare.len() - 2);
        let hello = ClientHello { cipher_suites: SmallVec::new(), ..decode(&bare) };
        assert_eq!(ja4(&hello), "t12i000000_000000000000_000000000000");
        assert_eq!(ja3_string(&hello), "771,,,,");
    }

    #[test]
    fn grease_and_order_make_no_difference_to_ja4_but_order_does_to_ja3() {
        let one = decode(&client_hello_with(&[(0x2a2a, b""), (23, b""), (35, b"")]));
        let other = decode(&client_hello_with(&[(35, b""), (23, b""), (0x9a9a, b"")]));
        assert_eq!(ja4(&one), ja4(&other));
        assert_ne!(ja3(&one), ja3(&other));
    }
}
