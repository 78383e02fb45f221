//! Certificates good and bad, as files in a directory that goes with its owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

use super::setup::{ClientCertificate, ServerCertificate};

/// The name that clients ask for.
pub(super) const NAME: &str = "shop.example";
/// What NSS and PKCS #12 want to have; it protects nothing.
const PASSWORD: &str = "throw-away";

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// The directory.
pub(super) struct Pki {
    directory: TempDir,
}

impl Pki {
    pub(super) fn make() -> Result<Self> {
        let directory = TempDir::with_prefix("tlstrace-matrix-")?;
        let root = authority("tlstrace throw-away root", None)?;
        let intermediate = authority("tlstrace throw-away intermediate", Some(&root))?;
        let stranger = authority("tlstrace unknown root", None)?;
        let pki = Self { directory };
        pki.write("root.crt", &root.pem())?;
        for certificate in ServerCertificate::ALL {
            let issuer =
                if *certificate == ServerCertificate::UnknownAuthority { &stranger } else { &intermediate };
            pki.write_server(*certificate, issuer)?;
        }
        for certificate in ClientCertificate::ALL {
            let issuer = if *certificate == ClientCertificate::Untrusted { &stranger } else { &root };
            pki.write_client(*certificate, issuer)?;
        }
        pki.write("request", "GET / HTTP/1.0\r\n\r\n")?;
        pki.write("empty-line", "\r\n")?;
        Ok(pki)
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The root that clients and servers trust.
    pub(super) fn root(&self) -> PathBuf {
        self.path("root.crt")
    }

    /// A file with an HTTP request.
    pub(super) fn request(&self) -> PathBuf {
        self.path("request")
    }

    /// A file with an empty line, which servers of HTTP ignore in front of a request (RFC 9112 §2.2).
    pub(super) fn empty_line(&self) -> PathBuf {
        self.path("empty-line")
    }

    /// Leaf and intermediates, as the server is to send them.
    pub(super) fn server_chain(&self, certificate: ServerCertificate) -> PathBuf {
        self.path(&format!("{}.crt", certificate.as_str()))
    }

    /// Intermediates alone; `None` if there are none to send.
    pub(super) fn server_issuers(&self, certificate: ServerCertificate) -> Option<PathBuf> {
        (!certificate.comes_alone()).then(|| self.path(&format!("{}.issuers", certificate.as_str())))
    }

    pub(super) fn server_key(&self, certificate: ServerCertificate) -> PathBuf {
        self.path(&format!("{}.key", certificate.as_str()))
    }

    /// Certificates and key in one file, as `HAProxy` wants them.
    pub(super) fn server_bundle(&self, certificate: ServerCertificate) -> PathBuf {
        self.path(&format!("{}.pem", certificate.as_str()))
    }

    pub(super) fn client_chain(&self, certificate: ClientCertificate) -> PathBuf {
        self.path(&format!("client-{}.crt", certificate.as_str()))
    }

    pub(super) fn client_key(&self, certificate: ClientCertificate) -> PathBuf {
        self.path(&format!("client-{}.key", certificate.as_str()))
    }

    /// An NSS database that trusts the root, and holds every certificate under its name.
    pub(super) fn nss_database(&self) -> Result<PathBuf> {
        let directory = self.path("nss");
        fs::create_dir(&directory)?;
        let database = format!("sql:{}", directory.display());
        let password = self.path("nss-password");
        fs::write(&password, PASSWORD)?;
        run(Command::new("certutil").args(["-N", "-d", &database, "-f"]).arg(&password))?;
        let root = self.root();
        let add_root = ["-A", "-d", &database, "-n", "root", "-t", "CT,C,C", "-i"];
        run(Command::new("certutil").args(add_root).arg(root).arg("-f").arg(&password))?;
        let servers = ServerCertificate::ALL.iter().map(|certificate| {
            (certificate.as_str().to_owned(), self.server_chain(*certificate), self.server_key(*certificate))
        });
        let clients = ClientCertificate::ALL.iter().map(|certificate| {
            let name = format!("client-{}", certificate.as_str());
            (name, self.client_chain(*certificate), self.client_key(*certificate))
        });
        for (name, chain, key) in servers.chain(clients) {
            let file = self.path(&format!("{name}.p12"));
            run(Command::new("openssl")
                // Iterations protect a key that nobody would steal, and take a second.
                .args(["pkcs12", "-export", "-noiter", "-nomaciter"])
                .args(["-name", &name, "-passout", &format!("pass:{PASSWORD}"), "-in"])
                .arg(chain)
                .arg("-inkey")
                .arg(key)
                .arg("-out")
                .arg(&file))?;
            run(Command::new("pk12util")
                .args(["-d", &database, "-W", PASSWORD, "-k"])
                .arg(&password)
                .arg("-i")
                .arg(file))?;
        }
        Ok(directory)
    }

    /// The file with the password of [`Self::nss_database`].
    pub(super) fn nss_password(&self) -> PathBuf {
        self.path("nss-password")
    }

    fn write_server(&self, certificate: ServerCertificate, issuer: &Issuer) -> Result<()> {
        let key = KeyPair::generate()?;
        let name = if certificate == ServerCertificate::OtherName { "other.example" } else { NAME };
        // NSS knows certificates by their subjects.
        let mut params = leaf(name, &format!("tlstrace throw-away server, {}", certificate.as_str()))?;
        params.extended_key_usages = vec![if certificate == ServerCertificate::WrongPurpose {
            ExtendedKeyUsagePurpose::ClientAuth
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        match certificate {
            ServerCertificate::Expired => {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
            ServerCertificate::NotYetValid => {
                params.not_before = date_time_ymd(2090, 1, 1);
                params.not_after = date_time_ymd(2091, 1, 1);
            }
            _ => {}
        }
        let leaf = match certificate {
            ServerCertificate::SelfSigned => params.self_signed(&key)?.pem(),
            _ => params.signed_by(&key, issuer)?.pem(),
        };
        let issuers = if certificate.comes_alone() { String::new() } else { issuer.pem() };
        let chain = leaf + &issuers;
        let name = certificate.as_str();
        self.write(&format!("{name}.issuers"), &issuers)?;
        self.write(&format!("{name}.crt"), &chain)?;
        self.write(&format!("{name}.key"), &key.serialize_pem())?;
        self.write(&format!("{name}.pem"), &(chain + &key.serialize_pem()))
    }

    fn write_client(&self, certificate: ClientCertificate, issuer: &Issuer) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params =
            leaf("client.example", &format!("tlstrace throw-away client, {}", certificate.as_str()))?;
        params.extended_key_usages = vec![if certificate == ClientCertificate::WrongPurpose {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        if certificate == ClientCertificate::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let name = certificate.as_str();
        self.write(&format!("client-{name}.crt"), &params.signed_by(&key, issuer)?.pem())?;
        self.write(&format!("client-{name}.key"), &key.serialize_pem())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn authority(name: &str, issuer: Option<&Issuer>) -> Result<Issuer> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = issuer.is_some();
    let key = KeyPair::generate()?;
    Ok(match issuer {
        Some(issuer) => Issuer::signed_by(params, key, issuer)?,
        None => Issuer::self_signed(params, key)?,
    })
}

fn leaf(dns: &str, name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![dns.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
