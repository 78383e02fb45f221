//! A throw-away certificate authority and one server certificate, as PEM files (openssl, curl) and in memory (rustls).

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

/// An ECDSA P-256 server certificate, its key and the authority that signed it. The files go with the value.
#[derive(Debug)]
pub struct Identity {
    directory: TempDir,
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

        let directory = tempfile::Builder::new().prefix("tlstrace-peers-").tempdir()?;
        let identity = Self {
            directory,
            certificate: certificate.der().clone(),
            authority: authority.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        };
        fs::write(identity.certificate_file(), certificate.pem())?;
        fs::write(identity.key_file(), key.serialize_pem())?;
        fs::write(identity.authority_file(), authority.pem())?;
        Ok(identity)
    }

    pub fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("server.pem")
    }

    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("server.key")
    }

    pub fn authority_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
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
