//! A kubeconfig file: where the API is, and what to show there. For hosts that are no pods of the cluster.
//!
//! Of the ways to show who asks, those that are in files are known: a token, a client certificate. A program that fetches
//! them (`exec`) is not run: this one may be root.
//!
//! <https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/>

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use serde::Deserialize;

/// What the current context of a file says.
pub(super) struct Kubeconfig {
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands before every path, without a slash at its end.
    pub(super) prefix: String,
    /// The name on the API's certificate, if it is not the host's.
    pub(super) server_name: Option<String>,
    /// PEM.
    pub(super) authorities: Vec<u8>,
    pub(super) token: Option<String>,
    /// Certificates and their key, both PEM.
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    current_context: String,
    contexts: Vec<Named<Context>>,
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
}

/// What a list calls by name; the other field is called as what it holds.
#[derive(Debug, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    value: T,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    tls_server_name: Option<String>,
    insecure_skip_tls_verify: bool,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<Program>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Program {
    command: String,
}

impl Kubeconfig {
    /// Reads a file, and those that it names.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).with_context(|| format!("{} is of no use", path.display()))
    }

    /// `folder` is what names of files are relative to.
    fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        let File { current_context, contexts, clusters, users } = serde_norway::from_str(text)?;
        let context = find(contexts, &current_context).context("it has no current context")?;
        let cluster = find(clusters, &context.cluster).context("its current context has no cluster")?;
        let user = find(users, &context.user).unwrap_or_default();
        let read = |data: Option<String>, file: Option<PathBuf>| -> anyhow::Result<Option<Vec<u8>>> {
            if let Some(data) = data.filter(|data| !data.is_empty()) {
                return Ok(Some(
                    STANDARD.decode(data.trim()).map_err(|error| anyhow!("not Base64: {error}"))?,
                ));
            }
            let file = file.filter(|file| !file.as_os_str().is_empty()).map(|file| folder.join(file));
            file.map(|file| fs::read(&file).with_context(|| format!("cannot read {}", file.display())))
                .transpose()
        };

        ensure!(!cluster.insecure_skip_tls_verify, "it says insecure-skip-tls-verify, which is not done");
        ensure!(cluster.proxy_url.is_none(), "it says proxy-url, which is not known");
        let authorities = read(cluster.certificate_authority_data, cluster.certificate_authority)?;
        let server: Uri = cluster.server.parse().context("its server is no URL")?;
        ensure!(server.scheme_str() == Some("https"), "its server is not at an https URL");
        let host = server.host().ok_or_else(|| anyhow!("its server has no host"))?;

        let token = read(None, user.token_file)?.map(String::from_utf8).transpose()?.or(user.token);
        let certificate = read(user.client_certificate_data, user.client_certificate)?;
        let client = certificate.zip(read(user.client_key_data, user.client_key)?);
        if token.is_none() && client.is_none() {
            if let Some(Program { command }) = user.exec {
                bail!("its credentials come from a program ({command}), which is not run: give it a token");
            }
            bail!("it has neither a token nor a client certificate");
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: server.port_u16().unwrap_or(443),
            prefix: server.path().trim_end_matches('/').to_owned(),
            server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
            authorities: authorities.context("it has no certificate-authority")?,
            token,
            client,
        })
    }
}

fn find<T>(list: Vec<Named<T>>, name: &str) -> Option<T> {
    list.into_iter().find(|item| item.name == name).map(|item| item.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(user: &str, cluster: &str) -> anyhow::Result<Kubeconfig> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\npreferences: {{}}\n\
             contexts:\n- name: there\n  context: {{cluster: other, user: other}}\n\
             - name: here\n  context:\n    cluster: c\n    user: u\n    namespace: shop\n\
             clusters:\n- name: c\n  cluster: {{{cluster}}}\n\
             users:\n- name: u\n  user: {{{user}}}\n"
        );
        Kubeconfig::parse(&text, Path::new("/nowhere"))
    }

    const CLUSTER: &str =
        "server: 'https://[2001:db8::1]:6443/k8s/clusters/c-1/', certificate-authority-data: UEVN";

    #[test]
    fn the_current_context_tells_where_and_who() {
        let config = parse("token: secret", CLUSTER).unwrap();
        assert_eq!((&*config.host, config.port), ("2001:db8::1", 6443));
        assert_eq!((&*config.prefix, &*config.authorities), ("/k8s/clusters/c-1", &b"PEM"[..]));
        assert_eq!(config.token.as_deref(), Some("secret"));
        let by_name =
            "server: https://api.example, tls-server-name: kubernetes, certificate-authority-data: UEVN";
        let config = parse("client-certificate-data: UEVN, client-key-data: UEVN", by_name).unwrap();
        assert_eq!((&*config.host, config.port, &*config.prefix), ("api.example", 443, ""));
        assert_eq!(config.server_name.as_deref(), Some("kubernetes"));
        assert_eq!(config.client, Some((b"PEM".to_vec(), b"PEM".to_vec())));
    }

    #[test]
    fn what_is_not_done_is_said() {
        for (user, cluster, reason) in [
            ("exec: {apiVersion: v1, command: gke-gcloud-auth-plugin}", CLUSTER, "gke-gcloud-auth-plugin"),
            ("username: admin, password: x", CLUSTER, "neither a token nor a client certificate"),
            ("token: a", "server: https://a, insecure-skip-tls-verify: true", "insecure-skip-tls-verify"),
            ("token: a", "server: https://a", "no certificate-authority"),
            ("token: a", "server: 'http://a', certificate-authority-data: UEVN", "https"),
            ("tokenFile: token", CLUSTER, "/nowhere/token"),
        ] {
            let error = format!("{:#}", parse(user, cluster).err().unwrap());
            assert!(error.contains(reason), "{error}");
        }
        assert!(Kubeconfig::parse("current-context: none", Path::new("")).is_err());
        assert!(Kubeconfig::parse("[", Path::new("")).is_err());
    }
}
