//! Fingerprints of a ClientHello: JA3 (salesforce/ja3) and JA4 for TLS over TCP (FoxIO-LLC/ja4, BSD-3).

use super::client_hello::ClientHello;

/// JA3's input: version, suites, extensions, groups and point formats in decimal, wire order, without GREASE.
pub fn ja3_string(hello: &ClientHello) -> String {
    let _ = hello;
    String::new()
}

/// JA3: MD5 of [`ja3_string`] in hexadecimal.
pub fn ja3(hello: &ClientHello) -> String {
    let _ = hello;
    String::new()
}

/// JA4, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
pub fn ja4(hello: &ClientHello) -> String {
    let _ = hello;
    String::new()
}
