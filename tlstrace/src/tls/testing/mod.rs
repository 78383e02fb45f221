//! Messages for the tests of every decoder: as hexadecimal text, each a whole handshake message with its
//! 4-byte header (`certificate_odd_names` and `certificate_common_name_only` are bare DER).
//!
//! They were taken from captures of real stacks in a lab (curl and openssl: OpenSSL 3.0; go: Go 1.19; nginx
//! 1.22) with throw-away keys; the two certificates were made with openssl. `client_hello_chrome` is from
//! `tests/pcap/tls-split-client-hello.pcap` of arkime/arkime (Apache-2.0).

/// Declares a function per file that returns its bytes.
macro_rules! messages {
    ($($name:ident)*) => {
        $(pub(crate) fn $name() -> Vec<u8> {
            from_hex(include_str!(concat!(stringify!($name), ".hex")))
        })*
    };
}

messages!(
    client_hello_chrome
    client_hello_curl
    client_hello_early_data
    client_hello_go
    server_hello_tls12
    server_hello_tls13
    server_hello_downgrade
    hello_retry_request
    certificate_chain
    certificate_request
    server_key_exchange
    new_session_ticket
    certificate_odd_names
    certificate_common_name_only
);

/// What follows the 4-byte header.
pub(crate) fn body(message: &[u8]) -> &[u8] {
    &message[4..]
}

/// The body of a ClientHello with one suite and these extensions.
pub(crate) fn client_hello_with(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x11; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    body.extend(extension_list(extensions));
    body
}

/// The body of a ServerHello without session id and with these extensions.
pub(crate) fn server_hello_with(random: [u8; 32], extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(random);
    body.extend([0, 0xc0, 0x2f, 0]);
    body.extend(extension_list(extensions));
    body
}

fn extension_list(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, content) in extensions {
        list.extend(kind.to_be_bytes());
        list.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        list.extend(*content);
    }
    let mut sized = u16::try_from(list.len()).unwrap().to_be_bytes().to_vec();
    sized.extend(list);
    sized
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}
