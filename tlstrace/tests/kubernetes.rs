//! Names from a cluster's API: what is listed and watched, and what becomes of it when watches break, the API forgets,
//! and addresses change hands. Gateways, and what their configuration says. The API is a stand-in that answers as the
//! test says.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use std::{fs, thread};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tlstrace::capture::clock::Clock;
use tlstrace::capture::file::CaptureReader;
use tlstrace::command::replay::feed;
use tlstrace::engine::facts::Role;
use tlstrace::engine::timestamp::Timestamp;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::entry;
use tlstrace::names::kubernetes::{Cluster, follow};
use tlstrace::names::{Identity, Names};
use tlstrace::verdict::Verdict;
use tlstrace::verdict::explain::Product;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;

const PODS: &str = "/api/v1/pods";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ROUTES: &str = "/apis/apigee.cloud.google.com/v1alpha1/namespaces/apigee/apigeeroutes";
const CONFIGURATIONS: &str = "/apis/apigee.cloud.google.com/v1alpha1/namespaces/apigee/apigeerouteconfigs";
const LATER_ROUTES: &str = "/apis/apigee.cloud.google.com/v1alpha2/namespaces/apigee/apigeeroutes";
/// The address that changes hands.
const ADDRESS: &str = "10.4.0.9";
const TOKEN: &str = "a-token";

#[test]
fn pods_services_and_what_is_behind_them_have_names() {
    let cluster = Started::new(&[pod("web-7d9f5-aaaaa", "uid-a", Some(ADDRESS))]);
    let now = cluster.now();
    let name = |address: &str| cluster.name(address, 8443, now);

    let pod = name(ADDRESS).unwrap();
    assert_eq!(pod.to_string(), "shop/web-7d9f5-aaaaa");
    assert_eq!(pod.container.as_deref(), Some("envoy"));
    assert_eq!(pod.node.as_deref(), Some("node-1"));
    let workload = pod.workload.as_ref().unwrap();
    assert_eq!((&*workload.kind, &*workload.name), ("Deployment", "web"));
    assert_eq!(name("10.138.0.1").unwrap().to_string(), "node/node-1");

    let items = [
        json!({"metadata": meta("web", "uid-service"), "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}}),
    ];
    let mut services = cluster.list_and_watch(SERVICES, &items);
    let slice = json!({
        "metadata": {"name": "web-x", "namespace": "shop", "uid": "uid-slice", "resourceVersion": "5",
            "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"port": 8443}],
        "endpoints": [endpoint("web-7d9f5-aaaaa", "uid-a", ADDRESS, "node-1"), endpoint("web-7d9f5-remote", "uid-r", "10.4.7.7", "node-2")],
    });
    let mut slices = cluster.list_and_watch(SLICES, &[slice]);
    let now = cluster.now();
    assert_eq!(cluster.name("10.0.0.1", 443, now).unwrap().to_string(), "shop/svc/web");
    assert_eq!(cluster.name(ADDRESS, 8443, now).unwrap().service.as_deref(), Some("web"));
    assert_eq!(cluster.name(ADDRESS, 15021, now).unwrap().service, None);
    let remote = cluster.name("10.4.7.7", 8443, now).unwrap();
    assert_eq!(
        (remote.to_string().as_str(), remote.service.as_deref()),
        ("shop/web-7d9f5-remote", Some("web"))
    );
    assert_eq!(remote.node.as_deref(), Some("node-2"));

    services.end();
    slices.end();
    cluster.expect(SERVICES);
    cluster.expect(SLICES);
}

#[test]
fn an_address_that_changed_hands_is_its_holders_at_the_time() {
    let cluster = Started::new(&[pod("a", "uid-a", Some(ADDRESS))]);
    let with_a = cluster.now();
    assert_eq!(cluster.pod(with_a).unwrap(), "a");
    // The cluster counts whole seconds, and its clock may be off: what is closer is in doubt.
    thread::sleep(Duration::from_secs(4));

    let mut watch = cluster.watch;
    let cluster = Started { watch: Stream::idle(), ..cluster };
    watch.event("ADDED", &pod("b", "uid-b", None));
    watch.event("DELETED", &pod("a", "uid-a", Some(ADDRESS)));
    watch.event("MODIFIED", &pod("b", "uid-b", Some(ADDRESS)));
    watch.end();
    // By now all of that has been read.
    let next = cluster.expect(PODS);
    assert!(next.path.contains("watch=1") && next.path.contains("resourceVersion=9&"), "{}", next.path);
    let interrupted = cluster.now();
    assert_eq!(cluster.pod(with_a).unwrap(), "a");
    assert_eq!(cluster.pod(interrupted), None, "nobody watches");
    let mut watch = next.stream();
    watch.bookmark("20");
    watch.end();
    let next = cluster.expect(PODS);
    assert!(next.path.contains("resourceVersion=20&"), "{}", next.path);
    assert_eq!(cluster.pod(interrupted).unwrap(), "b", "nothing was missed meanwhile");
    assert_eq!(cluster.pod(with_a).unwrap(), "a");
    drop(next);
}

#[test]
fn what_the_api_does_not_remember_is_listed_again_and_nothing_is_made_up_for_the_gap() {
    for is_said_in_the_stream in [false, true] {
        let cluster = Started::new(&[pod("a", "uid-a", Some(ADDRESS))]);
        let with_a = cluster.now();
        let mut watch = cluster.watch;
        let cluster = Started { watch: Stream::idle(), ..cluster };
        watch.break_off();
        let next = cluster.expect(PODS);
        assert!(next.path.contains("watch=1"), "{}", next.path);
        let in_the_gap = cluster.now();
        if is_said_in_the_stream {
            let mut watch = next.stream();
            watch.line(
                &json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}),
            );
            watch.end();
        } else {
            next.status(StatusCode::GONE);
        }
        // Meanwhile a pod has gone and another has its address; both went unnoticed.
        let listed = cluster.list_and_watch(PODS, &[pod("c", "uid-c", Some(ADDRESS))]);
        assert_eq!(cluster.pod(in_the_gap), None);
        assert_eq!(cluster.pod(cluster.now()).unwrap(), "c");
        let before = cluster.pod(with_a);
        assert!(before.as_deref().is_none_or(|name| name == "a"), "{before:?}");
        drop(listed);
    }
}

#[test]
fn who_is_about_to_go_is_in_doubt_and_who_failed_has_no_address() {
    let cluster = Started::new(&[pod("a", "uid-a", Some(ADDRESS))]);
    let with_a = cluster.now();
    let mut watch = cluster.watch;
    let cluster = Started { watch: Stream::idle(), ..cluster };
    let mut going = pod("a", "uid-a", Some(ADDRESS));
    let ends = cluster.now().after(Duration::from_secs(30 + 5));
    going["metadata"]["deletionTimestamp"] = whole_seconds(ends).into();
    going["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    watch.event("MODIFIED", &going);
    let mut failed = pod("f", "uid-f", Some("10.4.0.10"));
    watch.event("ADDED", &failed);
    failed["status"]["phase"] = "Failed".into();
    watch.event("MODIFIED", &failed);
    watch.bookmark("30");
    watch.end();
    let next = cluster.expect(PODS);
    let mut watch = next.stream();
    watch.bookmark("31");
    watch.end();
    drop(cluster.expect(PODS));
    assert_eq!(cluster.pod(with_a).unwrap(), "a", "it was deleted only later");
    assert_eq!(cluster.pod(cluster.now()), None);
    assert_eq!(cluster.name("10.4.0.10", 8443, cluster.now()), None);
}

#[test]
fn a_kubeconfig_file_with_a_token_or_a_client_certificate_does_as_well() {
    for is_certificate in [false, true] {
        let client = rcgen::generate_simple_self_signed(vec!["tlstrace".to_owned()]).unwrap();
        let api = Api::asking_for(is_certificate.then(|| client.cert.der().clone()));
        let ca = fs::read_to_string(api.folder.join("ca.crt")).unwrap();
        fs::write(api.folder.join("client.key"), client.signing_key.serialize_pem()).unwrap();
        let user = if is_certificate {
            let certificate = Base64Display::new(client.cert.pem().as_bytes(), &STANDARD).to_string();
            json!({"client-certificate-data": certificate, "client-key": "client.key"})
        } else {
            json!({"tokenFile": "token"})
        };
        let (host, port) = ("127.0.0.1", api.cluster.address().rsplit_once(':').unwrap().1.to_owned());
        let cluster = json!({"server": format!("https://{host}:{port}/prefix/"),
            "certificate-authority-data": Base64Display::new(ca.as_bytes(), &STANDARD).to_string()});
        // JSON is YAML.
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "b", "user": "c"}}],
            "clusters": [{"name": "b", "cluster": cluster}], "users": [{"name": "c", "user": user}]});
        let file = api.folder.join("config");
        fs::write(&file, config.to_string()).unwrap();
        let cluster = Cluster::of_kubeconfig(file, "node-1").unwrap();
        let names = Names::default();
        let filled = names.clone();
        let following = thread::spawn(move || follow(cluster, filled).unwrap());
        let list = api.expect(PODS);
        assert!(list.path.starts_with("/prefix/api/v1/pods?"), "{}", list.path);
        let authorization = if is_certificate { String::new() } else { format!("Bearer {TOKEN}") };
        assert_eq!(list.authorization, authorization);
        list.list(&[pod("web", "uid-a", Some(ADDRESS))]);
        following.join().unwrap();
        let now = Clock::start().now();
        let end = SocketAddr::new(ADDRESS.parse().unwrap(), 443);
        assert_eq!(names.directory().name(end, now, now).unwrap().to_string(), "shop/web");
    }
}

#[test]
fn a_gateway_is_known_by_its_labels_or_by_what_listens_on_the_port() {
    let mut proxied = pod("web-7d9f5-aaaaa", "uid-a", Some(ADDRESS));
    proxied["spec"]["containers"][0]["image"] = "envoyproxy/envoy:v1.36.0".into();
    proxied["spec"]["containers"][1]["image"] = "nginx:1.29".into();
    let mut ingress = pod("ingress-7d9f5-bbbbb", "uid-b", Some("10.4.0.10"));
    ingress["metadata"]["labels"]["app.kubernetes.io/name"] = "ingress-nginx".into();
    let cluster = Started::new(&[proxied, ingress]);
    let now = cluster.now();
    let product =
        |address, port| cluster.name(address, port, now).unwrap().gateway()?.product_as(Role::Server);
    assert_eq!(product(ADDRESS, 8443), Some(Product::Envoy));
    assert_eq!(product(ADDRESS, 15021), None, "either of the containers may listen there");
    assert_eq!(product("10.4.0.10", 443), Some(Product::Nginx));
}

#[test]
fn the_routes_of_an_apigee_ingress_on_this_node_are_evidence_and_the_remedy_names_what_to_change() {
    let cluster = Started::with(&[apigee_ingress()], Names::with_routes());
    // A cluster that serves the later version only.
    cluster.expect(ROUTES).status(StatusCode::NOT_FOUND);
    let list = cluster.expect(LATER_ROUTES);
    assert_eq!(list.authorization, format!("Bearer {TOKEN}"));
    assert!(!list.path.contains("watch"), "{}", list.path);
    list.list(&[json!({"metadata": {"name": "acme-prod"}, "spec": {
        "hostnames": ["api.example.com"], "enableNonSniClient": false, "additionalGateways": ["non-sni"]}})]);
    cluster.expect(CONFIGURATIONS).list(&[]);
    cluster.until_routes_are_known();
    let verdict = cluster.completed(sni_missing());
    assert_eq!(verdict.names.server.as_ref().unwrap().to_string(), "apigee/ingress-7d9f5-aaaaa");
    let evidence = verdict.evidence.iter().find(|item| item.fact == "apigee_routes").unwrap();
    assert!(
        evidence.detail.starts_with("none of the 1 ApigeeRoutes in namespace apigee has the hostname *"),
        "{evidence:?}"
    );
    let remedy = entry::remedy(&verdict);
    assert!(remedy.starts_with(verdict.remedy), "{remedy}");
    assert!(remedy.contains(" Apigee hybrid: Create one ApigeeRoute"), "{remedy}");
}

#[test]
fn without_leave_to_read_routes_there_are_names_and_no_such_evidence() {
    let cluster = Started::with(&[apigee_ingress()], Names::with_routes());
    cluster.expect(ROUTES).status(StatusCode::FORBIDDEN);
    let verdict = cluster.completed(sni_missing());
    assert!(verdict.names.server.is_some());
    assert!(verdict.evidence.iter().all(|item| item.fact != "apigee_routes"), "{:?}", verdict.evidence);
}

#[test]
fn routes_that_nobody_asked_about_are_not_read() {
    let cluster = Started::new(&[apigee_ingress()]);
    let asked = cluster.api.requests[ROUTES].recv_timeout(Duration::from_secs(4));
    assert!(asked.is_err(), "{}", asked.unwrap().path);
    let verdict = cluster.completed(sni_missing());
    assert!(entry::remedy(&verdict).contains(" Apigee hybrid: "));
}

/// What happens in ten minutes on a node on which 500 pods come and go per minute, as fast as it can be told.
#[test]
fn thousands_of_pods_that_share_addresses_leave_no_wrong_name() {
    const PODS_IN_ALL: usize = 5000;
    const AT_ONCE: usize = 100;
    let cluster = Started::new(&[]);
    let mut watch = cluster.watch;
    let cluster = Started { watch: Stream::idle(), ..cluster };
    let address = |number: usize| format!("10.4.0.{}", number % 250);
    let pod = |number: usize| pod(&format!("p{number}"), &format!("uid-{number}"), Some(&address(number)));
    for number in 0..PODS_IN_ALL {
        watch.event("ADDED", &pod(number));
        if let Some(gone) = number.checked_sub(AT_ONCE) {
            watch.event("DELETED", &pod(gone));
        }
    }
    watch.end();
    let next = cluster.expect(PODS);
    let mut watch = next.stream();
    watch.bookmark("99");
    let listening = cluster.now();
    watch.end();
    drop(cluster.expect(PODS));
    let (size, refused) = cluster.names.directory().size();
    // Those that were, those that are, and the node.
    assert_eq!((size, refused), (PODS_IN_ALL + 1, 0));
    let mut named = 0;
    for number in PODS_IN_ALL - 250..PODS_IN_ALL {
        let is_there = number >= PODS_IN_ALL - AT_ONCE;
        if let Some(identity) = cluster.name(&address(number), 8443, listening) {
            assert!(is_there, "{number}");
            assert_eq!(identity.pod.as_deref(), Some(&*format!("p{number}")));
            named += 1;
        }
    }
    assert!(named > AT_ONCE / 2, "{named}");
}

/// Somebody follows the stand-in and has listed its pods.
struct Started {
    api: Api,
    names: Names,
    clock: Clock,
    watch: Stream,
}

impl Started {
    fn new(pods: &[Value]) -> Self {
        Self::with(pods, Names::default())
    }

    fn with(pods: &[Value], names: Names) -> Self {
        let api = Api::start();
        let (cluster, filled) = (api.cluster.clone(), names.clone());
        let following = thread::spawn(move || follow(cluster, filled).unwrap());
        let list = api.expect(PODS);
        assert!(list.path.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{}", list.path);
        assert_eq!(list.authorization, format!("Bearer {TOKEN}"));
        list.list(pods);
        following.join().unwrap();
        let watch = api.expect(PODS);
        assert!(
            watch.path.contains("watch=1") && watch.path.contains("resourceVersion=1&"),
            "{}",
            watch.path
        );
        Self { api, names, clock: Clock::start(), watch: watch.stream() }
    }

    fn expect(&self, path: &str) -> Request {
        self.api.expect(path)
    }

    fn list_and_watch(&self, path: &str, items: &[Value]) -> Stream {
        let list = self.expect(path);
        assert!(!list.path.contains("watch=1"), "{}", list.path);
        list.list(items);
        self.expect(path).stream()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn name(&self, address: &str, port: u16, at: Timestamp) -> Option<Identity> {
        self.names.directory().name(SocketAddr::new(address.parse().unwrap(), port), at, at)
    }

    /// With what is known of its ends.
    fn completed(&self, mut verdict: Verdict) -> Verdict {
        let now = self.now();
        let facts = Arc::make_mut(&mut verdict.facts);
        (facts.first_seen, facts.last_seen) = (now, now);
        facts.peers[Role::Server as usize].address = SocketAddr::new(ADDRESS.parse().unwrap(), 8443);
        verdict.root = None;
        self.names.complete(&mut verdict);
        verdict
    }

    /// Waits for an answer that is on its way to be taken.
    fn until_routes_are_known(&self) {
        let is_known = || {
            let evidence = self.names.routes().unwrap().evidence("sni_missing", "apigee", None, self.now());
            !evidence.is_empty()
        };
        for _ in 0..1000 {
            if is_known() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the routes were not taken");
    }

    /// The pod that is named for [`ADDRESS`].
    fn pod(&self, at: Timestamp) -> Option<String> {
        Some(self.name(ADDRESS, 8443, at)?.pod?.to_string())
    }
}

/// The stand-in.
struct Api {
    cluster: Cluster,
    folder: PathBuf,
    requests: HashMap<&'static str, Receiver<Request>>,
}

struct Request {
    path: String,
    authorization: String,
    answer: UnboundedSender<Frame>,
}

/// An answer that goes on.
struct Stream(UnboundedSender<Frame>);

enum Frame {
    Head(StatusCode),
    Data(Vec<u8>),
    End,
    /// No more of this connection.
    Break,
}

impl Api {
    fn start() -> Self {
        Self::asking_for(None)
    }

    /// One that wants to see this certificate.
    fn asking_for(client: Option<CertificateDer<'static>>) -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let unique = format!("tlstrace-api-{}-{:?}", std::process::id(), thread::current().id());
        let folder = std::env::temp_dir().join(unique);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ca.crt"), key.cert.pem()).unwrap();
        fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let verifier = match client {
            Some(client) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(client).unwrap();
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap()
            }
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let private = key.signing_key.serialize_der().try_into().unwrap();
        let mut config = config
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![key.cert.der().clone()], private)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (mut senders, mut requests) = (HashMap::new(), HashMap::new());
        for path in [PODS, SERVICES, SLICES, ROUTES, LATER_ROUTES, CONFIGURATIONS] {
            let (sender, receiver) = channel();
            senders.insert(path, sender);
            requests.insert(path, receiver);
        }
        let (port, bound) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                port.send(listener.local_addr().unwrap().port()).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(config));
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, senders) = (acceptor.clone(), senders.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        serve(stream, &senders).await;
                    });
                }
            });
        });
        let cluster = Cluster::new("127.0.0.1", bound.recv().unwrap(), folder.clone(), "node-1");
        Self { cluster, folder, requests }
    }

    /// The next request for a list or a watch.
    fn expect(&self, path: &str) -> Request {
        self.requests[path].recv_timeout(Duration::from_mins(1)).unwrap()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn serve(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    senders: &HashMap<&'static str, Sender<Request>>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let (broken, mut is_broken) = unbounded_channel();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = is_broken.recv() => return,
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (answer, frames) = unbounded_channel();
        let path = request.uri().path_and_query().unwrap().to_string();
        let authorization = request.headers().get("authorization");
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        // The test may be over.
        let _ = senders[request.uri().path().trim_start_matches("/prefix")].send(Request {
            path,
            authorization,
            answer,
        });
        tokio::spawn(give(respond, frames, broken.clone()));
    }
}

async fn give(
    mut respond: h2::server::SendResponse<Bytes>,
    mut frames: UnboundedReceiver<Frame>,
    broken: UnboundedSender<()>,
) {
    let mut stream = None;
    while let Some(frame) = frames.recv().await {
        match frame {
            Frame::Head(status) => {
                let head = Response::builder().status(status).body(()).unwrap();
                stream = Some(respond.send_response(head, false).unwrap());
            }
            Frame::Data(data) => stream.as_mut().unwrap().send_data(data.into(), false).unwrap(),
            Frame::End => return stream.as_mut().unwrap().send_data(Bytes::new(), true).unwrap(),
            Frame::Break => return broken.send(()).unwrap(),
        }
    }
    // The test is over.
    std::future::pending::<()>().await;
}

impl Request {
    fn status(&self, status: StatusCode) {
        self.answer.send(Frame::Head(status)).unwrap();
        self.answer.send(Frame::Data(b"{}".into())).unwrap();
        self.answer.send(Frame::End).unwrap();
    }

    fn list(&self, items: &[Value]) {
        let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
        self.answer.send(Frame::Head(StatusCode::OK)).unwrap();
        self.answer.send(Frame::Data(list.to_string().into())).unwrap();
        self.answer.send(Frame::End).unwrap();
    }

    fn stream(self) -> Stream {
        self.answer.send(Frame::Head(StatusCode::OK)).unwrap();
        Stream(self.answer)
    }
}

impl Stream {
    fn idle() -> Self {
        Self(unbounded_channel().0)
    }

    fn event(&mut self, kind: &str, object: &Value) {
        self.line(&json!({"type": kind, "object": object}));
    }

    fn bookmark(&mut self, version: &str) {
        self.event("BOOKMARK", &json!({"kind": "Pod", "metadata": {"resourceVersion": version}}));
    }

    fn line(&mut self, line: &Value) {
        self.0.send(Frame::Data(format!("{line}\n").into())).unwrap();
    }

    fn end(&mut self) {
        self.0.send(Frame::End).unwrap();
    }

    fn break_off(&mut self) {
        self.0.send(Frame::Break).unwrap();
    }
}

fn meta(name: &str, uid: &str) -> Value {
    let created = whole_seconds(Clock::start().now());
    json!({"name": name, "namespace": "shop", "uid": uid, "resourceVersion": "9", "creationTimestamp": created,
        "labels": {"pod-template-hash": "7d9f5"}})
}

fn pod(name: &str, uid: &str, address: Option<&str>) -> Value {
    let mut pod = json!({
        "metadata": meta(name, uid),
        "spec": {"nodeName": "node-1", "containers": [
            {"name": "envoy", "ports": [{"containerPort": 8443}]}, {"name": "agent"}]},
        "status": {"phase": "Running", "hostIP": "10.138.0.1"},
    });
    if let Some(address) = address {
        pod["status"]["podIP"] = address.into();
        pod["status"]["podIPs"] = json!([{"ip": address}]);
    }
    pod
}

fn apigee_ingress() -> Value {
    let mut pod = pod("ingress-7d9f5-aaaaa", "uid-a", Some(ADDRESS));
    pod["metadata"]["namespace"] = "apigee".into();
    pod["metadata"]["labels"]["app"] = "apigee-ingressgateway".into();
    pod
}

/// A client without SNI that was refused.
fn sni_missing() -> Verdict {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/nginx_reject_handshake_no_sni.pcap");
    let mut engine = Engine::new(Settings::default());
    let mut verdicts = Vec::new();
    feed(&mut CaptureReader::open(&path).unwrap(), &mut engine, &mut |Output::Verdict(verdict)| {
        verdicts.push(verdict);
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    verdicts.into_iter().find(|verdict| verdict.id == "sni_missing").unwrap()
}

fn endpoint(name: &str, uid: &str, address: &str, node: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": node,
        "targetRef": {"kind": "Pod", "name": name, "namespace": "shop", "uid": uid}})
}

/// As the API writes times.
fn whole_seconds(time: Timestamp) -> String {
    format!("{}Z", time.to_string().split('.').next().unwrap())
}
