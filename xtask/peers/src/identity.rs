//! A throw-away certificate authority and one server certificate, as PEM files (openssl, curl) and in memory (rustls).
//!
//! The files are in memory too, and go with this process.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use nix::sys::memfd::{MFdFlags, memfd_create};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::path_of;

/// An ECDSA P-256 server certificate, its key and the authority that signed it.
#[derive(Debug)]
pub struct Identity {
    certificate_file: File,
    key_file: File,
    authority_file: File,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// Issues a certificate for the given DNS names.
    pub fn issue(names: &[&str]) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "tlstrace throw-away CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "tlstrace throw-away server");
        let certificate = params.signed_by(&key, &authority)?;

        Ok(Self {
            certificate_file: file_with(&certificate.pem())?,
            key_file: file_with(&key.serialize_pem())?,
            authority_file: file_with(&authority.pem())?,
            certificate: certificate.der().clone(),
            authority: authority.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    pub fn certificate_file(&self) -> PathBuf {
        path_of(&self.certificate_file)
    }

    pub fn key_file(&self) -> PathBuf {
        path_of(&self.key_file)
    }

    pub fn authority_file(&self) -> PathBuf {
        path_of(&self.authority_file)
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    pub(super) fn authority(&self) -> CertificateDer<'static> {
        self.authority.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// A file without a name that holds `text`.
fn file_with(text: &str) -> Result<File> {
    let mut file = File::from(memfd_create("tlstrace-peers", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file)
}
