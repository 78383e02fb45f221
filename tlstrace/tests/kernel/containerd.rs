//! Pods are named by the container runtime that runs them: a real containerd with sandboxes that have addresses of
//! their own.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;
use tlstrace_peers::{Identity, Namespace, Process, installed, openssl, watch};

use crate::live::{NAME, PATIENCE, PORT};
use crate::skip;

#[test]
#[ignore = "needs root"]
fn a_sandbox_is_named_and_who_gets_its_address_next_by_its_own_name() {
    let missing = ["containerd", "ctr", "runc", "curl"].into_iter().find(|program| !installed(program));
    if let Some(missing) =
        missing.or((!Path::new(PLUGINS).join("ptp").exists()).then_some("the CNI plugin ptp"))
    {
        return skip(&format!("{missing} is not installed"));
    }
    let node = Namespace::new().unwrap();
    let runtime = Runtime::start(&node);
    let first = runtime.run_pod("web-7d9f5-aaaaa");
    let socket = runtime.socket().display().to_string();
    let arguments = ["-o", "json", "--all", "-i", "veth*", "--cri", &socket];
    let mut watch = watch(&node, env!("CARGO_BIN_EXE_tlstrace").as_ref(), &arguments).unwrap();

    let mut ask_for = |pod: &Pod, name: &str| -> Value {
        let identity = Identity::issue(&[NAME]).unwrap();
        let certificate = identity.certificate_file().display().to_string();
        let key = identity.key_file().display().to_string();
        let arguments = ["-servername", NAME, "-servername_fatal", "-cert2", &certificate, "-key2", &key];
        let server = openssl::server(&pod.namespace, &identity, PORT, &arguments).unwrap();
        openssl::client(&node, (pod.address, PORT).into(), &["-servername", name]).output().unwrap();
        let line = watch.stdout.next(PATIENCE).unwrap();
        drop(server);
        serde_json::from_str(&line.text).unwrap()
    };
    let verdict = ask_for(&first, NAME);
    for names in [&verdict["server"]["k8s"], &verdict["k8s"]] {
        assert_eq!(names["pod"]["name"], "web-7d9f5-aaaaa", "{verdict:#}");
        assert_eq!(names["namespace"]["name"], "shop");
        assert_eq!(names["workload"], serde_json::json!({"kind": "Deployment", "name": "web"}));
    }
    assert!(verdict["client"].get("k8s").is_none(), "the node is no pod: {verdict:#}");
    let refused = ask_for(&first, "other.example");
    let remedy = refused["tlstrace"]["remedy"].as_str().unwrap();
    assert!(
        remedy.contains(" Istio: Put the host into the Gateway"),
        "its label says what it is: {refused:#}"
    );

    runtime.remove_pod(&first);
    let second = runtime.run_pod("api-5c5c5-bbbbb");
    assert_eq!(second.address, first.address, "there is only one");
    // Until the runtime has said who has it now, nobody is named.
    loop {
        let verdict = ask_for(&second, NAME);
        let Some(name) = verdict.pointer("/server/k8s/pod/name") else { continue };
        assert_eq!(name, "api-5c5c5-bbbbb", "{verdict:#}");
        break;
    }
    runtime.remove_pod(&second);
}

/// Where Debian has them.
const PLUGINS: &str = "/usr/lib/cni";

/// A containerd with everything of its own: processes, mounts, directories. Its pods' interfaces are in `node`.
struct Runtime {
    folder: PathBuf,
    _process: Process,
}

struct Pod {
    sandbox: String,
    namespace: Namespace,
    address: IpAddr,
}

impl Runtime {
    fn start(node: &Namespace) -> Self {
        let folder = std::env::temp_dir().join(format!("tlstrace-containerd-{}", std::process::id()));
        fs::create_dir_all(folder.join("cni")).unwrap();
        let path = folder.display();
        let config = format!(
            r#"
            version = 2
            root = "{path}/root"
            state = "{path}/state"
            [grpc]
            address = "{path}/containerd.sock"
            [plugins."io.containerd.grpc.v1.cri"]
            sandbox_image = "{IMAGE}"
            disable_apparmor = true
            disable_cgroup = true
            restrict_oom_score_adj = true
            netns_mounts_under_state_dir = true
            [plugins."io.containerd.grpc.v1.cri".cni]
            bin_dir = "{PLUGINS}"
            conf_dir = "{path}/cni"
            [plugins."io.containerd.grpc.v1.cri".containerd]
            snapshotter = "native"
            "#
        );
        fs::write(folder.join("config.toml"), config).unwrap();
        // One address, so that the next pod has that of the one before.
        let network = format!(
            r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [{{"type": "ptp", "ipam": {{
                "type": "host-local", "dataDir": "{path}/addresses", "routes": [{{"dst": "0.0.0.0/0"}}],
                "ranges": [[{{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.9", "rangeEnd": "10.88.0.9"}}]]}}}}]}}"#
        );
        fs::write(folder.join("cni/10-pods.conflist"), network).unwrap();
        let mut containerd = node.command("unshare");
        containerd.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "containerd",
            "--config",
        ]);
        let mut process = Process::spawn(containerd.arg(folder.join("config.toml"))).unwrap();
        process.stderr.find(PATIENCE, |line| line.contains("containerd successfully booted")).unwrap();
        let runtime = Self { folder, _process: process };
        runtime.import_image();
        runtime
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// An image of nothing but a program that sleeps.
    fn import_image(&self) {
        let layer = self.folder.join("layer");
        fs::create_dir_all(layer.join("bin")).unwrap();
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        run(Command::new("tar").args(["-C", "layer", "-cf", "layer.tar", "."]).current_dir(&self.folder));
        let digest = run(Command::new("sha256sum").arg("layer.tar").current_dir(&self.folder));
        let digest = String::from_utf8(digest).unwrap();
        let digest = digest.split_whitespace().next().unwrap();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = format!(
            r#"{{"architecture": "{architecture}", "os": "linux", "config": {{"Entrypoint": ["/bin/busybox", "sleep", "{}"]}},
                "rootfs": {{"type": "layers", "diff_ids": ["sha256:{digest}"]}}}}"#,
            mark()
        );
        fs::write(self.folder.join("config.json"), config).unwrap();
        let manifest =
            format!(r#"[{{"Config": "config.json", "RepoTags": ["{IMAGE}"], "Layers": ["layer.tar"]}}]"#);
        fs::write(self.folder.join("manifest.json"), manifest).unwrap();
        run(Command::new("tar")
            .args(["-cf", "image.tar", "manifest.json", "config.json", "layer.tar"])
            .current_dir(&self.folder));
        run(Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", "native", "image.tar"])
            .current_dir(&self.folder));
    }

    fn run_pod(&self, name: &str) -> Pod {
        let (_, hash) = name.rsplit_once('-').unwrap().0.rsplit_once('-').unwrap();
        let metadata = [field(1, name), field(2, format!("uid-of-{name}")), field(3, "shop")].concat();
        let label = |name: &str, value: &str| field(6, [field(1, name), field(2, value)].concat());
        let labels = [label("pod-template-hash", hash), label("app", "istio-ingressgateway")];
        let config = [field(1, metadata), labels.concat()].concat();
        let answer = self.call("RunPodSandbox", &field(1, config));
        // The only field: the id.
        let [_tag, _length, sandbox @ ..] = &*answer else { panic!("{answer:?}") };
        let sandbox = String::from_utf8(sandbox.to_vec()).unwrap();
        let namespace = Namespace::of_process(Self::sleeper()).unwrap();
        let output = run(namespace.command("ip").args(["-4", "-oneline", "address", "show", "dev", "eth0"]));
        let output = String::from_utf8(output).unwrap();
        let address = output.split_whitespace().nth(3).unwrap().split('/').next().unwrap();
        Pod { sandbox, namespace, address: address.parse().unwrap() }
    }

    fn remove_pod(&self, pod: &Pod) {
        self.call("StopPodSandbox", &field(1, &pod.sandbox));
        self.call("RemovePodSandbox", &field(1, &pod.sandbox));
    }

    /// Calls the runtime; curl speaks enough HTTP/2 for that.
    fn call(&self, method: &str, request: &[u8]) -> Vec<u8> {
        let body = self.folder.join("request");
        let length = u32::try_from(request.len()).unwrap().to_be_bytes();
        fs::write(&body, [&[0], &length[..], request].concat()).unwrap();
        let headers = self.folder.join("headers");
        let answer = run(Command::new("curl")
            .args(["--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket"])
            .arg(self.socket())
            .args(["--header", "content-type: application/grpc", "--header", "te: trailers"])
            .arg("--dump-header")
            .arg(&headers)
            .arg("--data-binary")
            .arg(format!("@{}", body.display()))
            .arg(format!("http://localhost/runtime.v1.RuntimeService/{method}")));
        let headers = fs::read_to_string(headers).unwrap();
        assert!(headers.contains("grpc-status: 0"), "{method}: {headers}");
        answer.get(5..).unwrap().to_vec()
    }

    /// The process of the only pod. When the runtime has answered, it need not have become the image's program yet, and
    /// nothing tells when it does.
    fn sleeper() -> u32 {
        let wanted = format!("/bin/busybox\0sleep\0{}\0", mark());
        let look = || {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            pids.find(|pid: &u32| {
                fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted)
            })
        };
        let found = (0..10_000).find_map(|_| {
            thread::yield_now();
            look()
        });
        found.unwrap_or_else(|| panic!("{wanted:?} does not run"))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const IMAGE: &str = "tlstrace.test/pause:1";

/// What the image's program is told, by which its process is found.
fn mark() -> u64 {
    1_000_000_000 + u64::from(std::process::id())
}

/// A field of a protobuf message: text, bytes or another message.
fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let length = u8::try_from(content.len()).unwrap();
    // Longer ones take more than one byte of length.
    assert!(length < 128);
    [&[number << 3 | 2, length], content].concat()
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
