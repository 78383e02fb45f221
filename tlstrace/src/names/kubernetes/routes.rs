//! Lists the routes of Apigee hybrid where its ingress gateways are, now and then: nothing is watched, and no other
//! namespace is asked for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use tokio::time;

use super::client::{Cluster, Connection, GetError};
use super::objects::ListMetadata;
use super::store::Store;
use crate::capture::clock::Clock;
use crate::names::Names;
use crate::names::apigee::Route;

/// How often the routes are listed where there is a gateway, and how often it is looked whether there is one.
const EVERY: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Most routes of a namespace, and most namespaces, that are asked for.
const MAX_ROUTES: u32 = 1000;
const MAX_NAMESPACES: usize = 16;
/// API group of what is listed, in the namespaces of gateways only.
pub const GROUP: &str = "apigee.cloud.google.com";
/// What is listed: who is let in, and what virtual hosts are made of.
pub const RESOURCES: [&str; 2] = ["apigeeroutes", "apigeerouteconfigs"];
/// Versions of them, as documented; the fields that are read are those of both.
const VERSIONS: [&str; 2] = ["v1alpha1", "v1alpha2"];

/// A list of them.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<Route>,
}

/// Keeps them up to date, if they are of interest.
pub(super) async fn follow(cluster: &Cluster, names: &Names, store: &Mutex<Store>) {
    if names.routes().is_none() {
        return;
    }
    let mut clock = Clock::start();
    // What was said need not be said again.
    let mut said = BTreeSet::new();
    loop {
        let namespaces = namespaces(store);
        names.routes().into_iter().for_each(|mut routes| routes.keep_only(&namespaces));
        for namespace in &namespaces {
            match list(cluster, namespace).await {
                Ok([listed, configurations]) => {
                    clock.resynchronise();
                    if let Some(mut routes) = names.routes() {
                        routes.set(namespace, listed, configurations, clock.now());
                    }
                }
                Err(error) if said.insert(Arc::clone(namespace)) => {
                    log::warn!("what Apigee routes in namespace {namespace} is not known: {error:#}");
                }
                Err(error) => log::info!("what Apigee routes in namespace {namespace}: {error:#}"),
            }
        }
        time::sleep(if namespaces.is_empty() { LOOK_EVERY } else { EVERY }).await;
    }
}

fn namespaces(store: &Mutex<Store>) -> Vec<Arc<str>> {
    let mut namespaces = store.lock().unwrap_or_else(PoisonError::into_inner).apigee_namespaces();
    namespaces.truncate(MAX_NAMESPACES);
    namespaces
}

/// Everything of a namespace, by kind.
async fn list(cluster: &Cluster, namespace: &str) -> anyhow::Result<[Vec<Route>; 2]> {
    let connection = cluster.connect().await?;
    let [routes, configurations] = RESOURCES;
    Ok([
        list_resource(&connection, namespace, routes).await?,
        list_resource(&connection, namespace, configurations).await?,
    ])
}

async fn list_resource(
    connection: &Connection,
    namespace: &str,
    resource: &str,
) -> anyhow::Result<Vec<Route>> {
    for version in VERSIONS {
        let path = format!("/apis/{GROUP}/{version}/namespaces/{namespace}/{resource}?limit={MAX_ROUTES}");
        let body = match connection.get(&path).await {
            Err(GetError::Missing) => continue,
            body => body?,
        };
        let list: List = serde_json::from_slice(&body.whole().await?).context("not a list")?;
        // Of a part one cannot say that something is missing.
        ensure!(list.metadata.next.is_none_or(|next| next.is_empty()), "there are more than {MAX_ROUTES}");
        return Ok(list.items);
    }
    bail!("the cluster has no {resource}")
}
