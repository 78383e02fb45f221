//! Certificate chains for scenarios, made once per run: `< certificate good`, `> certificate client_good`.
//!
//! `authority NAME` are roots: `root`, which issues the servers' certificates by way of an intermediate; `stranger`,
//! which does not; `namesake`, which has the name of `root` and another key; `old_root`, which has expired; and
//! `self_signed`, a leaf that needs no root.
//!
//! The clock of a scenario stands at 2026-11-22; leaves name `a.example` and `*.wild.example`.

use std::collections::HashMap;
use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// The DER of each certificate of the chain with this name, leaf first.
pub(crate) fn chain(name: &str) -> &'static [Vec<u8>] {
    CHAINS.get(name).unwrap_or_else(|| panic!("no chain is called {name:?}"))
}

/// The subject of the authority that issues clients' certificates, in DER.
pub(crate) fn client_authority(name: &str) -> &'static [u8] {
    AUTHORITIES.get(name).unwrap_or_else(|| panic!("no authority is called {name:?}"))
}

static CHAINS: LazyLock<HashMap<&'static str, Vec<Vec<u8>>>> = LazyLock::new(make_chains);

/// `Name` with one common name, as DER: SEQUENCE { SET { SEQUENCE { OID 2.5.4.3, `UTF8String` } } }.
static AUTHORITIES: LazyLock<HashMap<&'static str, Vec<u8>>> = LazyLock::new(|| {
    [("client_ca", "Test Client CA"), ("other_ca", "Other Client CA")]
        .into_iter()
        .map(|(key, name)| {
            let wrap = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()][..], body].concat();
            let attribute = [&[6, 3, 0x55, 4, 3][..], &wrap(0x0c, name.as_bytes())].concat();
            (key, wrap(0x30, &wrap(0x31, &wrap(0x30, &attribute))))
        })
        .collect()
});

/// An authority that can issue.
type Authority = (Vec<u8>, Issuer<'static, KeyPair>);

fn make_chains() -> HashMap<&'static str, Vec<Vec<u8>>> {
    let root = make_authority("Test Root", None);
    let intermediate = make_authority("Test Issuing CA", Some(&root));
    let stranger = make_authority("Stranger CA", None);
    let client_ca = make_authority("Test Client CA", None);
    let old_root = make_authority_until("Old Root", None, 2026, 10);
    let middle = || intermediate.0.clone();
    let leaf = |edit: fn(&mut CertificateParams)| issue(&intermediate, "a.example", edit);
    let client = |edit: fn(&mut CertificateParams)| {
        issue(&client_ca, "client", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            edit(params);
        })
    };
    let key = KeyPair::generate().unwrap();
    let self_signed = leaf_params("a.example").self_signed(&key).unwrap().der().to_vec();
    let good = leaf(|_| {});
    [
        ("authority root", vec![root.0.clone()]),
        ("authority stranger", vec![stranger.0.clone()]),
        ("authority old_root", vec![old_root.0.clone()]),
        ("authority self_signed", vec![self_signed.clone()]),
        ("from_old_root", vec![issue(&old_root, "a.example", |_| {})]),
        ("authority namesake", vec![make_authority("Test Root", None).0]),
        ("good", vec![good.clone(), middle()]),
        ("with_root", vec![good.clone(), middle(), root.0.clone()]),
        ("leaf_only", vec![good.clone()]),
        ("misordered", vec![good.clone(), root.0.clone(), middle()]),
        ("broken_link", vec![good.clone(), stranger.0.clone()]),
        ("from_root", vec![issue(&root, "a.example", |_| {})]),
        ("self_signed", vec![self_signed]),
        ("expired", vec![leaf(|params| params.not_after = date_time_ymd(2026, 10, 1)), middle()]),
        ("expired_leaf_only", vec![leaf(|params| params.not_after = date_time_ymd(2026, 10, 1))]),
        ("not_yet_valid", vec![leaf(|params| params.not_before = date_time_ymd(2026, 12, 24)), middle()]),
        ("expires_soon", vec![leaf(|params| params.not_after = date_time_ymd(2026, 11, 25)), middle()]),
        (
            "client_only",
            vec![
                leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
                middle(),
            ],
        ),
        ("weak", vec![weak()]),
        ("none", Vec::new()),
        ("client_good", vec![client(|_| {})]),
        ("client_expired", vec![client(|params| params.not_after = date_time_ymd(2026, 10, 1))]),
        ("client_not_yet_valid", vec![client(|params| params.not_before = date_time_ymd(2026, 12, 24))]),
        (
            "client_server_use",
            vec![client(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])],
        ),
    ]
    .into()
}

/// RSA with 1024 bits and SHA-1, which nothing issues any more.
fn weak() -> Vec<u8> {
    let hex: String = include_str!("weak_certificate.hex").split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn make_authority(name: &str, issuer: Option<&Authority>) -> Authority {
    make_authority_until(name, issuer, 2040, 1)
}

fn make_authority_until(name: &str, issuer: Option<&Authority>, year: i32, month: u8) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = issuer.is_some();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, month, 1);
    let certificate = match issuer {
        Some((_, issuer)) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    (certificate.unwrap().der().to_vec(), Issuer::new(params, key))
}

fn issue(issuer: &Authority, name: &str, edit: impl Fn(&mut CertificateParams)) -> Vec<u8> {
    let mut params = leaf_params(name);
    edit(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), &issuer.1).unwrap().der().to_vec()
}

fn leaf_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned(), "*.wild.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 6, 1);
    params
}
