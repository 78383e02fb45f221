//! What `deploy/` makes of the program: that each DaemonSet starts it in a way it understands, with the rights it needs
//! and no others, and that what belongs together does.
//!
//! The kustomize base is read as it is. Charts and overlays are rendered where `helm` and `kubectl` are installed.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde::Deserialize as _;
use serde_json::{Value, json};
use tlstrace::cli::args::fold_not;
use tlstrace::cli::config::Config;
use tlstrace::cli::settings::Watch;
use tlstrace::names::kubernetes::{APIGEE, ROUTES, WATCHED};
use tlstrace_peers::{installed, skip};

/// What the program needs to attach, and to open packet sockets.
const CAPABILITIES: [&str; 4] = ["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"];
/// What the kubelet puts for references to a pod's own fields.
const FIELDS: [(&str, &str); 2] = [("status.hostIP", "192.0.2.7"), ("spec.nodeName", "node-1")];

#[test]
fn the_kustomize_base_starts_the_program_as_it_wants_to_be_started() {
    let base = Rendered::parse(&read("kustomize/base/tlstrace.yaml"));
    let watch = base.check();
    assert!(watch.names.is_some());
    assert_eq!(watch.metrics.unwrap().address.to_string(), "192.0.2.7:9464");
}

#[test]
fn every_choice_of_the_chart_starts_the_program_as_it_wants_to_be_started() {
    if !installed("helm") {
        return skip("helm is not installed");
    }
    for values in [
        &[][..],
        &["output=gcp", "metrics.podMonitoring=true"],
        &["names.enabled=false", "apigee.enabled=true"],
        &["apigee.enabled=true", "apigee.namespaces={apigee,apigee-stage}"],
        &[
            "privileged=true",
            "extraArgs={--attach=packet,--interface=gke*,--aggregate=ok=10s,--max-rate=100}",
        ],
        &[
            "metrics.port=19464",
            "metrics.podMonitor=true",
            "metrics.prometheusRule=true",
            "metrics.dashboard=true",
        ],
        &["networkPolicy.enabled=true", "serviceAccount.create=false", "priorityClassName=high"],
        &["podLabels.team=edge", "podAnnotations.note=a", "imagePullSecrets[0].name=key"],
        &["config=[output]\nall = true\nredact = ['sni']\n[filter]\nport = [443\\,8443]\n"],
    ] {
        let rendered = Rendered::of_chart(values);
        let watch = rendered.check();
        let has = |value: &str| values.contains(&value);
        assert_eq!(watch.names.is_none(), has("names.enabled=false"), "{values:?}");
        let reads_routes = watch.names.is_some_and(|names| names.apigee);
        assert_eq!(reads_routes, has("apigee.enabled=true") && !has("names.enabled=false"), "{values:?}");
        let roles = rendered.of_kind("Role").map(|role| role["metadata"]["namespace"].clone());
        let namespaces = if values.iter().any(|value| value.contains("apigee-stage")) {
            vec![json!("apigee"), json!("apigee-stage")]
        } else if reads_routes {
            vec![json!("apigee")]
        } else {
            Vec::new()
        };
        assert_eq!(roles.collect::<Vec<_>>(), namespaces, "{values:?}");
    }
}

#[test]
fn the_kustomize_base_is_the_chart_with_its_defaults() {
    if !installed("helm") {
        return skip("helm is not installed");
    }
    let mut chart = Rendered::of_chart(&[]).0;
    chart.iter_mut().for_each(without_marks_of_helm);
    let base = Rendered::parse(&read("kustomize/base/tlstrace.yaml")).0;
    assert_eq!(chart, base, "the base is stale: cargo xtask deploy");
}

#[test]
fn every_overlay_starts_the_program_as_it_wants_to_be_started() {
    if !installed("kubectl") {
        return skip("kubectl is not installed");
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kustomize-{}", std::process::id()));
    copy(&deploy("kustomize"), &folder);
    for component in names_in(&folder.join("components")) {
        let overlay = folder.join(format!("base-and-{component}"));
        fs::create_dir_all(&overlay).unwrap();
        let text = format!("resources: [../base]\ncomponents: [../components/{component}]\n");
        fs::write(overlay.join("kustomization.yaml"), text).unwrap();
        let rendered = Rendered::of_overlay(&overlay);
        let watch = rendered.check();
        assert_eq!(watch.names.unwrap().apigee, component == "apigee");
    }
    for overlay in ["base", "gke"] {
        Rendered::of_overlay(&folder.join(overlay)).check();
    }
    fs::remove_dir_all(folder).unwrap();
}

/// Patches count the arguments of the base, which may change.
#[test]
fn what_the_components_replace_is_what_they_mean() {
    let base = Rendered::parse(&read("kustomize/base/tlstrace.yaml"));
    let daemon_set = base.one("DaemonSet");
    let mut replaced = 0;
    for component in names_in(&deploy("kustomize/components")) {
        let text = read(&format!("kustomize/components/{component}/kustomization.yaml"));
        let [kustomization] = &*Rendered::parse(&text).0 else { panic!("{component}") };
        for resource in list(&kustomization["resources"]) {
            let file = deploy("kustomize/components").join(&component).join(resource.as_str().unwrap());
            assert!(file.is_file(), "{}", file.display());
        }
        for patch in list(&kustomization["patches"]) {
            assert_eq!(patch["target"], json!({"kind": "DaemonSet", "name": daemon_set["metadata"]["name"]}));
            for operation in list(&Rendered::parse(patch["patch"].as_str().unwrap()).0[0]) {
                let (path, value) =
                    (operation["path"].as_str().unwrap(), operation["value"].as_str().unwrap());
                match operation["op"].as_str().unwrap() {
                    "replace" => {
                        let old = daemon_set.pointer(path).and_then(Value::as_str).unwrap();
                        let option = |text: &str| text.split('=').next().unwrap().to_owned();
                        assert_eq!(option(old), option(value), "{component}: {path}");
                        replaced += 1;
                    }
                    "add" => {
                        assert!(daemon_set.pointer(path.strip_suffix("/-").unwrap()).unwrap().is_array());
                    }
                    other => panic!("{component}: {other}"),
                }
            }
        }
    }
    assert!(replaced > 0);
}

#[test]
fn the_plugin_of_kubectl_starts_the_program_with_the_options_it_was_given_and_cleans_up() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plugin-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (kubectl, calls) = (folder.join("kubectl"), folder.join("calls"));
    let script = format!(
        "#!/bin/sh\nfor word; do printf '%s\\t' \"$word\"; done >>{0}\necho >>{0}\n\
         case $1 in debug) echo 'Creating debugging pod node-debugger-n-x with container debugger on node n.';; \
         get) printf n;; esac\n",
        calls.display()
    );
    fs::write(&kubectl, script).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = env::join_paths(
        std::iter::once(folder.clone()).chain(env::split_paths(&env::var_os("PATH").unwrap())),
    );
    let run = |arguments: &[&str]| {
        let _ = fs::remove_file(&calls);
        let plugin = deploy("kubectl/kubectl-tls_trace");
        let output =
            Command::new("sh").arg(plugin).args(arguments).env("PATH", path.as_ref().unwrap()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read_to_string(&calls).unwrap();
        let words =
            |line: &str| line.trim_end_matches('\t').split('\t').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(words).collect::<Vec<_>>()
    };
    for (target, options) in [
        (&["node/n"][..], &[][..]),
        (
            &["--namespace", "apigee", "pod/ingress"],
            &["--sni", "*.example.com", "--not", "--client", "10.0.0.0/8"],
        ),
        (&["node/n"], &["-o", "json", "--all", "--aggregate=ok=10s"]),
    ] {
        let calls = run(&[target, options].concat());
        let debug = calls.iter().find(|call| call[0] == "debug").unwrap();
        assert!(
            debug.contains(&"node/n".to_owned()) && debug.contains(&"--profile=sysadmin".to_owned()),
            "{debug:?}"
        );
        let at = debug.iter().position(|word| word == "--").unwrap();
        assert_eq!(debug[at + 1], "tlstrace");
        assert!(
            debug.ends_with(&options.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()),
            "{debug:?}"
        );
        understood(&debug[at + 2..], "");
        assert_eq!(calls.last().unwrap()[..3], ["delete", "pod", "node-debugger-n-x"], "{calls:?}");
    }
    fs::remove_dir_all(folder).unwrap();
    let [manifest] = &*Rendered::parse(&read("kubectl/tls-trace.yaml")).0 else { panic!() };
    for platform in list(&manifest["spec"]["platforms"]) {
        assert!(deploy("kubectl").join(platform["bin"].as_str().unwrap()).is_file());
    }
}

/// Objects of Kubernetes.
struct Rendered(Vec<Value>);

impl Rendered {
    fn parse(text: &str) -> Self {
        let documents = serde_norway::Deserializer::from_str(text);
        let objects = documents.map(|document| Value::deserialize(document).unwrap());
        Self(objects.filter(|object| !object.is_null()).collect())
    }

    fn of_chart(values: &[&str]) -> Self {
        let mut command = Command::new("helm");
        command.args(["template", "tlstrace", "--namespace", "tlstrace"]).arg(deploy("helm/tlstrace"));
        command.args(values.iter().flat_map(|value| ["--set", value]));
        Self::parse(&output(&mut command))
    }

    fn of_overlay(folder: &Path) -> Self {
        Self::parse(&output(Command::new("kubectl").arg("kustomize").arg(folder)))
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    fn one<'a>(&'a self, kind: &'a str) -> &'a Value {
        let [one] = &*self.of_kind(kind).collect::<Vec<_>>() else { panic!("not one {kind}") };
        one
    }

    /// Checks all that must hold whatever was chosen; what the program makes of its options.
    fn check(&self) -> Watch {
        let daemon_set = self.one("DaemonSet");
        let pod = &daemon_set["spec"]["template"]["spec"];
        let [container] = &**list(&pod["containers"]) else { panic!("{pod}") };
        let watch = self.check_arguments(container);
        Self::check_rights_on_the_node(pod, container);
        self.check_rights_in_the_cluster(pod, &watch);
        Self::check_probes(container, &watch);
        self.check_selectors(&daemon_set["spec"]);
        Self::check_volumes(pod, container);
        watch
    }

    /// The program understands its options, those in the mounted file too.
    fn check_arguments(&self, container: &Value) -> Watch {
        let variables: BTreeMap<&str, &str> = list(&container["env"])
            .iter()
            .map(|variable| {
                let path = &variable["valueFrom"]["fieldRef"]["fieldPath"];
                let (_, value) = FIELDS.iter().find(|(field, _)| path == field).unwrap();
                (variable["name"].as_str().unwrap(), *value)
            })
            .collect();
        let arguments: Vec<String> = list(&container["args"])
            .iter()
            .map(|argument| {
                let mut argument = argument.as_str().unwrap().to_owned();
                for (name, value) in &variables {
                    argument = argument.replace(&format!("$({name})"), value);
                }
                assert!(!argument.contains("$("), "{argument} is not defined");
                argument
            })
            .collect();
        let file = arguments.iter().find_map(|argument| argument.strip_prefix("--config=")).unwrap();
        let file = Path::new(file);
        let mount = list(&container["volumeMounts"])
            .iter()
            .find(|mount| mount["mountPath"] == file.parent().unwrap().to_str().unwrap());
        assert!(mount.is_some_and(|mount| mount["name"] == "config"), "{}", file.display());
        let configurations = self
            .of_kind("ConfigMap")
            .filter_map(|map| map["data"].get(file.file_name().unwrap().to_str().unwrap())?.as_str());
        let [configuration] = &*configurations.collect::<Vec<_>>() else { panic!("not one configuration") };
        understood(&arguments, configuration)
    }

    /// Not more than it takes to attach.
    fn check_rights_on_the_node(pod: &Value, container: &Value) {
        assert_eq!(pod["hostNetwork"], true);
        assert_eq!(pod["dnsPolicy"], "ClusterFirstWithHostNet");
        assert!(pod.get("hostPID").is_none() && pod.get("hostIPC").is_none(), "{pod}");
        let rights = &container["securityContext"];
        if rights.get("privileged").is_some() {
            assert_eq!(rights, &json!({"privileged": true}));
            return;
        }
        assert_eq!(rights["capabilities"], json!({"drop": ["ALL"], "add": CAPABILITIES}));
        assert_eq!(rights["allowPrivilegeEscalation"], false);
        assert_eq!(rights["readOnlyRootFilesystem"], true);
        assert_eq!(rights["runAsUser"], 0, "added capabilities are effective for user 0 only");
    }

    /// Exactly what is asked for.
    fn check_rights_in_the_cluster(&self, pod: &Value, watch: &Watch) {
        let account = &pod["serviceAccountName"];
        assert_eq!(pod["automountServiceAccountToken"], watch.names.is_some());
        let accounts: Vec<_> =
            self.of_kind("ServiceAccount").map(|account| &account["metadata"]["name"]).collect();
        assert!(accounts.is_empty() && account == "default" || accounts == [account], "{accounts:?}");

        let mut expected = BTreeSet::new();
        if let Some(names) = &watch.names {
            for path in WATCHED {
                // /api/VERSION/RESOURCE, or /apis/GROUP/VERSION/RESOURCE.
                let parts: Vec<_> = path.split('/').collect();
                let group = if parts[1] == "apis" { parts[2] } else { "" };
                expected.extend(
                    ["list", "watch"].map(|verb| [group, parts.last().unwrap(), verb].map(str::to_owned)),
                );
            }
            if names.apigee {
                expected.extend(ROUTES.map(|resource| [APIGEE, resource, "list"].map(str::to_owned)));
            }
        }
        let mut allowed = BTreeSet::new();
        for (role, binding) in [("ClusterRole", "ClusterRoleBinding"), ("Role", "RoleBinding")] {
            for binding in self.of_kind(binding) {
                let [subject] = &**list(&binding["subjects"]) else { panic!("{binding}") };
                assert_eq!((&subject["kind"], &subject["name"]), (&json!("ServiceAccount"), account));
                assert_eq!(subject["namespace"], "tlstrace");
                let is_meant = |role: &&Value| {
                    role["metadata"]["name"] == binding["roleRef"]["name"]
                        && role["metadata"].get("namespace") == binding["metadata"].get("namespace")
                };
                let role = self.of_kind(role).find(is_meant).unwrap();
                for rule in list(&role["rules"]) {
                    let texts =
                        |name: &str| list(&rule[name]).iter().map(|text| text.as_str().unwrap().to_owned());
                    for group in texts("apiGroups") {
                        for resource in texts("resources") {
                            allowed
                                .extend(texts("verbs").map(|verb| [group.clone(), resource.clone(), verb]));
                        }
                    }
                }
            }
            let bindings = self.of_kind(binding).count();
            assert_eq!(self.of_kind(role).count(), bindings, "a {role} that nobody has");
        }
        assert_eq!(allowed, expected);
    }

    /// The kubelet asks where the program answers.
    fn check_probes(container: &Value, watch: &Watch) {
        let [port] = &**list(&container["ports"]) else { panic!("{container}") };
        let address = watch.metrics.unwrap().address;
        assert_eq!(
            (&port["containerPort"], &port["hostPort"]),
            (&json!(address.port()), &json!(address.port()))
        );
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": port["name"]}));
        }
    }

    /// What selects pods selects these, and names their port.
    fn check_selectors(&self, spec: &Value) {
        let labels = spec["template"]["metadata"]["labels"].as_object().unwrap();
        let selects = |selector: &Value| {
            let selector = selector["matchLabels"].as_object().unwrap();
            assert!(
                !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
            );
        };
        selects(&spec["selector"]);
        for (kind, endpoints) in [("PodMonitor", "podMetricsEndpoints"), ("PodMonitoring", "endpoints")] {
            for monitor in self.of_kind(kind) {
                selects(&monitor["spec"]["selector"]);
                assert!(
                    list(&monitor["spec"][endpoints]).iter().all(|endpoint| endpoint["port"] == "metrics")
                );
            }
        }
        for policy in self.of_kind("NetworkPolicy") {
            selects(&policy["spec"]["podSelector"]);
            assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], "metrics");
        }
    }

    fn check_volumes(pod: &Value, container: &Value) {
        let names = |of: &Value| -> BTreeSet<String> {
            list(of).iter().map(|volume| volume["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&pod["volumes"]), names(&container["volumeMounts"]));
        let is_read_only = |mount: &Value| mount["readOnly"] == true;
        assert!(list(&container["volumeMounts"]).iter().all(is_read_only));
    }
}

/// What the program makes of `watch` with these options and this file.
fn understood(arguments: &[String], configuration: &str) -> Watch {
    let words = ["tlstrace"].into_iter().map(OsString::from).chain(arguments.iter().map(OsString::from));
    Watch::new(Config::parse(configuration).unwrap().complete(fold_not(words)).unwrap()).unwrap()
}

/// What only helm writes; the base has it from `cargo xtask deploy`, which takes it away.
fn without_marks_of_helm(object: &mut Value) {
    match object {
        Value::Object(fields) => {
            fields.remove("app.kubernetes.io/managed-by");
            if fields
                .get("annotations")
                .is_some_and(|annotations| annotations.get("checksum/config").is_some())
            {
                fields.remove("annotations");
            }
            fields.values_mut().for_each(without_marks_of_helm);
        }
        Value::Array(values) => values.iter_mut().for_each(without_marks_of_helm),
        _ => {}
    }
}

/// The items of a list; none if there is none.
fn list(value: &Value) -> &Vec<Value> {
    static NONE: Vec<Value> = Vec::new();
    value.as_array().unwrap_or(&NONE)
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap()
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<_> = names.collect();
    assert!(!names.is_empty(), "{}", folder.display());
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names_in(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
