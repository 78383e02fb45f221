//! What the `ApigeeRoute`s of Apigee hybrid say about a server name, or about a client that sends none.
//!
//! A client without SNI is taken only where a route has the hostname `*` and `enableNonSniClient: true`, and selects the
//! ingress; virtual hosts answer it if they name that route in `additionalGateways`.
//! <https://cloud.google.com/apigee/docs/hybrid/latest/enable-non-sni>
//!
//! Pure: somebody else lists the routes, now and then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::engine::timestamp::Timestamp;
use crate::verdict::Evidence;

/// How long what was listed is worth telling.
const WORTH: Duration = Duration::from_mins(5);
/// Most routes that are told of in one piece of evidence.
const MAX_TOLD: usize = 4;
/// The label of the ingress's pods.
const APP: (&str, &str) = ("app", "apigee-ingressgateway");
/// All names, and none.
const WILDCARD: &str = "*";

/// The routes of each namespace that has an ingress gateway on this node.
#[derive(Debug, Default)]
pub struct Routes {
    by_namespace: HashMap<Arc<str>, Listed>,
}

#[derive(Debug)]
struct Listed {
    at: Timestamp,
    routes: Vec<Route>,
}

/// One `ApigeeRoute`, in those fields that decide who is let in.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Route {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    hostnames: Vec<String>,
    enable_non_sni_client: bool,
    additional_gateways: Vec<String>,
    selector: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
struct Status {
    state: String,
}

impl Routes {
    /// Takes all routes of a namespace as they were at `now`.
    pub fn set(&mut self, namespace: &str, routes: Vec<Route>, now: Timestamp) {
        self.by_namespace.insert(namespace.into(), Listed { at: now, routes });
    }

    /// Forgets all namespaces but these.
    pub fn keep_only(&mut self, namespaces: &[Arc<str>]) {
        self.by_namespace.retain(|namespace, _| namespaces.contains(namespace));
    }

    /// What the routes of an ingress gateway's namespace say about a client that was refused at `at`, with the name that
    /// it asked for; nothing if they are not known, or were listed too long before.
    pub fn evidence(
        &self,
        verdict: &str,
        namespace: &str,
        name: Option<&str>,
        at: Timestamp,
    ) -> Vec<Evidence> {
        let Some(Listed { at: listed, routes }) = self.by_namespace.get(namespace) else { return Vec::new() };
        let age = at.since(*listed);
        if age > WORTH {
            return Vec::new();
        }
        let detail = match (verdict, name) {
            ("sni_missing", _) => without_name(namespace, routes),
            ("sni_unrecognized", Some(name)) => with_name(namespace, routes, name),
            _ => return Vec::new(),
        };
        let age = match age.as_secs() {
            0 => String::new(),
            seconds => format!(" (as of {seconds} s before)"),
        };
        vec![Evidence { fact: "apigee_routes", detail: format!("{detail}{age}").into() }]
    }
}

/// What awaits a client without SNI.
fn without_name(namespace: &str, routes: &[Route]) -> String {
    let wildcards: Vec<_> = routes.iter().filter(|route| route.has(WILDCARD)).collect();
    match &*wildcards {
        [] => format!(
            "none of the {} ApigeeRoutes in namespace {namespace} has the hostname *, which clients without SNI need",
            routes.len()
        ),
        [only] => only.describe_wildcard(namespace, routes),
        several => {
            let all = several.iter().take(MAX_TOLD).map(|route| route.describe_wildcard(namespace, routes));
            let all = all.collect::<Vec<_>>().join("; ");
            format!(
                "{} ApigeeRoutes have the hostname *, and there must not be more than one: {all}",
                several.len()
            )
        }
    }
}

/// What awaits a client that asks for a name.
fn with_name(namespace: &str, routes: &[Route], name: &str) -> String {
    let matching: Vec<_> = routes.iter().filter(|route| route.covers(name)).collect();
    if matching.is_empty() {
        return format!(
            "none of the {} ApigeeRoutes in namespace {namespace} has the hostname {name}",
            routes.len()
        );
    }
    let all = matching.iter().take(MAX_TOLD).map(|route| {
        let caveats = route.caveats();
        let caveats =
            if caveats.is_empty() { String::new() } else { format!(", but {}", caveats.join(" and ")) };
        format!("ApigeeRoute {namespace}/{} has the hostname {name}{caveats}", route.metadata.name)
    });
    all.collect::<Vec<_>>().join("; ")
}

impl Route {
    fn has(&self, hostname: &str) -> bool {
        self.spec.hostnames.iter().any(|known| known.eq_ignore_ascii_case(hostname))
    }

    /// Whether it is for a name: by that name or, as Istio has it, by a wildcard for whatever stands before the rest.
    fn covers(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.spec.hostnames.iter().any(|hostname| {
            let hostname = hostname.to_ascii_lowercase();
            match hostname.strip_prefix('*') {
                Some(domain) => name.len() > domain.len() && name.ends_with(domain),
                None => hostname == name,
            }
        })
    }

    fn describe_wildcard(&self, namespace: &str, routes: &[Self]) -> String {
        let name = &self.metadata.name;
        let is_named = |route: &&Self| {
            let gateways = &route.spec.additional_gateways;
            // Gateways of other namespaces are named with theirs.
            gateways.iter().any(|gateway| gateway == name || *gateway == format!("{namespace}/{name}"))
        };
        let mut hosts = routes.iter().filter(is_named).map(|route| &*route.metadata.name).take(MAX_TOLD);
        let listed = match hosts.next() {
            Some(first) => {
                let hosts: Vec<_> = std::iter::once(first).chain(hosts).collect();
                format!("is in the additionalGateways of {}", hosts.join(", "))
            }
            None => "is in no route's additionalGateways".to_owned(),
        };
        let non_sni = if self.spec.enable_non_sni_client {
            "enableNonSniClient: true"
        } else {
            "no enableNonSniClient"
        };
        let mut text =
            format!("ApigeeRoute {namespace}/{name} has the hostname * and {non_sni}, and {listed}");
        for caveat in self.caveats() {
            text.push_str("; it ");
            text.push_str(&caveat);
        }
        text
    }

    /// Why it may have no effect on an ingress gateway.
    fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        let selected = self.spec.selector.get(APP.0);
        if let Some(app) = selected.filter(|app| *app != APP.1) {
            caveats.push(format!("selects pods with {}={app}, not {}", APP.0, APP.1));
        }
        let state = &self.status.state;
        if !state.is_empty() && state != "running" {
            caveats.push(format!("is in state {state}"));
        }
        caveats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_795_341_600_000_000_000).after(Duration::from_secs(seconds))
    }

    fn route(name: &str, spec: &serde_json::Value) -> Route {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "apigee"}, "spec": spec}))
            .unwrap()
    }

    fn evidence(routes: &[Route], verdict: &str, name: Option<&str>) -> String {
        let mut known = Routes::default();
        known.set("apigee", routes.to_vec(), at(0));
        let evidence = known.evidence(verdict, "apigee", name, at(0));
        evidence.into_iter().map(|item| item.detail.into_owned()).collect::<Vec<_>>().join("|")
    }

    fn of_group(additional: &[&str]) -> Route {
        let spec = json!({"hostnames": ["api.example.com", "*.shop.example"], "selector": {"app": "apigee-ingressgateway"},
            "additionalGateways": additional});
        route("acme-prod", &spec)
    }

    #[test]
    fn each_step_of_the_way_to_clients_without_sni_is_told() {
        let wildcard = |enabled: bool| {
            let spec = json!({"hostnames": ["*"], "enableNonSniClient": enabled, "selector": {"app": "apigee-ingressgateway"}});
            route("non-sni", &spec)
        };
        let say = |routes: &[Route]| evidence(routes, "sni_missing", None);
        assert_eq!(
            say(&[of_group(&[])]),
            "none of the 1 ApigeeRoutes in namespace apigee has the hostname *, which clients without SNI need"
        );
        assert_eq!(
            say(&[of_group(&[]), wildcard(false)]),
            "ApigeeRoute apigee/non-sni has the hostname * and no enableNonSniClient, and is in no route's additionalGateways"
        );
        assert_eq!(
            say(&[of_group(&["non-sni"]), wildcard(true)]),
            "ApigeeRoute apigee/non-sni has the hostname * and enableNonSniClient: true, and is in the additionalGateways \
             of acme-prod"
        );
        let two = say(&[wildcard(true), wildcard(true)]);
        assert!(two.starts_with("2 ApigeeRoutes have the hostname *"), "{two}");
    }

    #[test]
    fn a_route_for_another_gateway_or_in_trouble_is_told_as_such() {
        let mut elsewhere =
            route("old", &json!({"hostnames": ["*"], "selector": {"app": "istio-ingressgateway"}}));
        elsewhere.status.state = "error".to_owned();
        let said = evidence(&[elsewhere], "sni_missing", None);
        assert!(said.contains("selects pods with app=istio-ingressgateway"), "{said}");
        assert!(said.contains("is in state error"), "{said}");
    }

    #[test]
    fn a_name_has_a_route_or_none() {
        let say = |name| evidence(&[of_group(&[])], "sni_unrecognized", Some(name));
        assert_eq!(say("API.example.com"), "ApigeeRoute apigee/acme-prod has the hostname API.example.com");
        assert!(say("a.shop.example").starts_with("ApigeeRoute apigee/acme-prod"));
        assert!(say("shop.example").starts_with("none of the 1"));
        assert_eq!(evidence(&[of_group(&[])], "hostname_mismatch", Some("a")), "");
    }

    #[test]
    fn what_was_listed_long_ago_is_told_with_its_age_and_then_no_more() {
        let mut known = Routes::default();
        known.set("apigee", vec![of_group(&[])], at(0));
        let [told] = &*known.evidence("sni_missing", "apigee", None, at(40)) else { panic!() };
        assert!(told.detail.ends_with("(as of 40 s before)"), "{}", told.detail);
        assert!(known.evidence("sni_missing", "apigee", None, at(400)).is_empty());
        assert!(known.evidence("sni_missing", "other", None, at(0)).is_empty());
        known.keep_only(&[]);
        assert!(known.evidence("sni_missing", "apigee", None, at(0)).is_empty());
    }
}
