//! What the `ApigeeRoute`s of Apigee hybrid say about a server name, or about a client that sends none.
//!
//! A client without SNI is taken only where a route has the hostname `*` and `enableNonSniClient: true`, and selects the
//! ingress; virtual hosts answer it if they name that route in `additionalGateways`.
//! <https://cloud.google.com/apigee/docs/hybrid/latest/enable-non-sni>
//!
//! Pure: somebody else lists the routes, now and then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    configurations: Vec<Route>,
}

/// One `ApigeeRoute`, in those fields that decide who is let in; or an `ApigeeRouteConfig`, which is what a virtual host is
/// made of and has of these only the name, `additionalGateways` and `selector`.
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
    /// Takes all `ApigeeRoute`s of a namespace, and all its `ApigeeRouteConfig`s, as they were at `now`.
    pub fn set(&mut self, namespace: &str, routes: Vec<Route>, configurations: Vec<Route>, now: Timestamp) {
        self.by_namespace.insert(namespace.into(), Listed { at: now, routes, configurations });
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
        let Some(listed) = self.by_namespace.get(namespace) else { return Vec::new() };
        let age = at.since(listed.at);
        if age > WORTH {
            return Vec::new();
        }
        let detail = match (verdict, name) {
            ("sni_missing", _) => listed.without_name(namespace),
            ("sni_unrecognized", Some(name)) => listed.with_name(namespace, name),
            _ => return Vec::new(),
        };
        let age = match age.as_secs() {
            0 => String::new(),
            seconds => format!(" (as of {seconds} s before)"),
        };
        vec![Evidence { fact: "apigee_routes", detail: format!("{detail}{age}").into() }]
    }
}

impl Listed {
    /// What awaits a client without SNI.
    fn without_name(&self, namespace: &str) -> String {
        let wildcards: Vec<_> = self.routes.iter().filter(|route| route.has(WILDCARD)).collect();
        let describe = |route: &&Route| self.describe_wildcard(namespace, route);
        match &*wildcards {
            [] => format!(
                "none of the {} ApigeeRoutes in namespace {namespace} has the hostname *, which clients without SNI need",
                self.routes.len()
            ),
            [only] => describe(only),
            several => {
                let all = several.iter().take(MAX_TOLD).map(describe).collect::<Vec<_>>().join("; ");
                let count = several.len();
                format!(
                    "{count} ApigeeRoutes have the hostname *, and there must not be more than one: {all}"
                )
            }
        }
    }

    /// What awaits a client that asks for a name.
    fn with_name(&self, namespace: &str, name: &str) -> String {
        let matching: Vec<_> = self.routes.iter().filter(|route| route.covers(name)).collect();
        if matching.is_empty() {
            let count = self.routes.len();
            return format!(
                "none of the {count} ApigeeRoutes in namespace {namespace} has the hostname {name}"
            );
        }
        let all = matching.iter().take(MAX_TOLD).map(|route| {
            let caveats = route.caveats().join(" and ");
            let caveats = if caveats.is_empty() { caveats } else { format!(", but {caveats}") };
            format!("ApigeeRoute {namespace}/{} has the hostname {name}{caveats}", route.metadata.name)
        });
        all.collect::<Vec<_>>().join("; ")
    }

    fn describe_wildcard(&self, namespace: &str, route: &Route) -> String {
        let name = &route.metadata.name;
        let names_it = |other: &&Route| {
            let gateways = &other.spec.additional_gateways;
            // Gateways of other namespaces are named with theirs.
            gateways.iter().any(|gateway| gateway == name || *gateway == format!("{namespace}/{name}"))
        };
        let hosts = self.configurations.iter().chain(&self.routes).filter(names_it);
        let hosts: BTreeSet<&str> = hosts.map(|host| &*host.metadata.name).collect();
        let listed = if hosts.is_empty() {
            "is in no virtual host's additionalGateways".to_owned()
        } else {
            let hosts: Vec<_> = hosts.into_iter().take(MAX_TOLD).collect();
            format!("is in the additionalGateways of {}", hosts.join(", "))
        };
        let non_sni = if route.spec.enable_non_sni_client {
            "enableNonSniClient: true"
        } else {
            "no enableNonSniClient"
        };
        let mut text =
            format!("ApigeeRoute {namespace}/{name} has the hostname * and {non_sni}, and {listed}");
        for caveat in route.caveats() {
            text.push_str("; it ");
            text.push_str(&caveat);
        }
        text
    }
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
        known.set("apigee", routes.to_vec(), vec![configuration()], at(0));
        let evidence = known.evidence(verdict, "apigee", name, at(0));
        evidence.into_iter().map(|item| item.detail.into_owned()).collect::<Vec<_>>().join("|")
    }

    fn configuration() -> Route {
        route("acme-prod-config", &json!({"additionalGateways": ["another", "apigee/from-config"]}))
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
            "ApigeeRoute apigee/non-sni has the hostname * and no enableNonSniClient, and is in no virtual host's additionalGateways"
        );
        assert_eq!(
            say(&[of_group(&["non-sni"]), wildcard(true)]),
            "ApigeeRoute apigee/non-sni has the hostname * and enableNonSniClient: true, and is in the additionalGateways \
             of acme-prod"
        );
        let spec = json!({"hostnames": ["*"], "enableNonSniClient": true});
        let configured = say(&[route("from-config", &spec)]);
        assert!(configured.ends_with("is in the additionalGateways of acme-prod-config"), "{configured}");
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
        known.set("apigee", vec![of_group(&[])], Vec::new(), at(0));
        let [told] = &*known.evidence("sni_missing", "apigee", None, at(40)) else { panic!() };
        assert!(told.detail.ends_with("(as of 40 s before)"), "{}", told.detail);
        assert!(known.evidence("sni_missing", "apigee", None, at(400)).is_empty());
        assert!(known.evidence("sni_missing", "other", None, at(0)).is_empty());
        known.keep_only(&[]);
        assert!(known.evidence("sni_missing", "apigee", None, at(0)).is_empty());
    }
}
