//! What is fuzzed: a body for each target, kept beside the code that it is about. `cargo xtask fuzz` runs them with
//! libFuzzer; here every input that was worth keeping is played by plain `cargo test`.
//!
//! A body takes any bytes and must come back. Beyond that it asserts what is promised of the code: that a prefix is
//! read like the whole, that a broken part does not hide its neighbours, that nothing grows without bound.

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As the file under `fuzz/fuzz_targets` and the folder under `fuzz/corpus` are called.
    pub name: &'static str,
    pub body: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident => $body:path,)*) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), body: $body },)*];

        $(
            /// A target's body.
            pub fn $name(data: &[u8]) {
                $body(data);
            }
        )*
    };
}

targets! {
    records => crate::engine::fuzz::records,
    prelude => crate::engine::fuzz::prelude,
    engine => crate::engine::fuzz::engine,
    message => crate::tls::fuzz::message,
    extension => crate::tls::fuzz::extension,
    certificate => crate::tls::fuzz::certificate,
    client_hello => crate::tls::fuzz::client_hello,
    event => crate::capture::fuzz::event,
    capture_file => crate::capture::fuzz::capture_file,
    walk => crate::capture::fuzz::walk,
    filter => crate::cli::fuzz::filter,
    answer => crate::probe::fuzz::answer,
}

/// Numbers and bytes out of a fuzzer's input; zeros when it is used up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// At most so many bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Cuts bytes into pieces of lengths that a number decides.
pub(crate) fn pieces(mut bytes: &[u8], mut seed: u32) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        // A linear congruential generator (Knuth, MMIX's smaller cousin): any spread of lengths will do.
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = match seed >> 30 {
            0 => 1,
            1 => 1 + (seed >> 8) as usize % 8,
            _ => 1 + (seed >> 8) as usize % 700,
        };
        let (piece, rest) = bytes.split_at(len.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;
    use crate::probe::hello::{BROAD, CLASSICAL, Hello, Share};
    use crate::tls::codepoints::ProtocolVersion;

    #[test]
    fn there_is_something_to_compare_since_rustls_accepts_our_hellos() {
        let here = ([127, 0, 0, 1], 1).into();
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut Hello::sample().encode(&[7; 32], here, here).as_slice()).unwrap();
        assert_eq!(acceptor.accept().unwrap().unwrap().client_hello().server_name(), Some("api.example.com"));
    }

    fn folder(kind: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind)
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_input_that_was_kept_passes() {
        for target in TARGETS {
            let mut inputs = 0;
            for entry in fs::read_dir(folder("corpus").join(target.name)).unwrap() {
                (target.body)(&fs::read(entry.unwrap().path()).unwrap());
                inputs += 1;
            }
            assert!(inputs > 0, "{} has no corpus", target.name);
        }
    }

    #[test]
    fn every_target_has_its_file() {
        let registered: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        assert_eq!(names(&folder("fuzz_targets")), registered);
        assert_eq!(names(&folder("corpus")), registered);
    }

    #[test]
    fn a_body_takes_no_bytes_at_all() {
        for target in TARGETS {
            (target.body)(&[]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn random_hellos_are_read_as_tls_parser_and_rustls_read_them(
            lowest in 0x0300u16..=0x0304,
            highest in 0x0300u16..=0x0304,
            name in prop::option::of("[a-zA-Z0-9.-]{0,80}"),
            alpn in prop::collection::vec("[ -~]{0,20}", 0..4),
            suites in 0..BROAD.len(),
            groups in 0..=CLASSICAL.len(),
            share in prop_oneof![Just(Share::None), Just(Share::X25519), Just(Share::PostQuantum)],
            padded_to in 0u16..3000,
            random in any::<[u8; 32]>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let hello = Hello {
                lowest: ProtocolVersion(lowest),
                highest: ProtocolVersion(highest),
                suites: BROAD.get(suites..).unwrap_or_default(),
                groups: CLASSICAL.get(..groups).unwrap_or_default().to_vec(),
                share,
                server_name: name.map(Into::into),
                alpn: alpn.into_iter().map(Into::into).collect(),
                padded_to,
                proxy: None,
            };
            let mut message = hello.message(&random);
            message.drain(..4);
            for (at, byte) in damage {
                let at = at.index(message.len());
                message[at] = byte;
            }
            if let Some(cut) = cut {
                message.truncate(cut.index(message.len()));
            }
            client_hello(&message);
        }
    }
}
