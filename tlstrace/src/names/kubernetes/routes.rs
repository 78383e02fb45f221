//! Lists the routes of Apigee hybrid where its ingress gateways are, now and then: nothing is watched, and no other
//! namespace is asked for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::Deserialize;
use tokio::time;

use super::client::{Cluster, Connection, GetError};
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
/// API group and resource of what is listed, in the namespaces of gateways only.
pub const RESOURCE: (&str, &str) = ("apigee.cloud.google.com", "apigeeroutes");
/// Versions of the resource, as documented; the fields that are read are those of both.
const VERSIONS: [&str; 2] = ["v1alpha1", "v1alpha2"];

/// A list of them.
#[derive(Deserialize)]
struct List {
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
                Ok(listed) => {
                    clock.resynchronise();
                    let now = clock.now();
                    names
                        .routes()
                        .into_iter()
                        .for_each(|mut routes| routes.set(namespace, listed.clone(), now));
                }
                Err(error) if said.insert(Arc::clone(namespace)) => {
                    log::warn!("the ApigeeRoutes of namespace {namespace} are not known: {error:#}");
                }
                Err(error) => log::info!("ApigeeRoutes of namespace {namespace}: {error:#}"),
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

async fn list(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<Route>> {
    let connection = cluster.connect().await?;
    for version in VERSIONS {
        match list_version(&connection, version, namespace).await {
            Err(GetError::Missing) => {}
            other => return Ok(other?),
        }
    }
    Err(anyhow!("the cluster has no such resource"))
}

async fn list_version(
    connection: &Connection,
    version: &str,
    namespace: &str,
) -> Result<Vec<Route>, GetError> {
    let (group, resource) = RESOURCE;
    let path = format!("/apis/{group}/{version}/namespaces/{namespace}/{resource}?limit={MAX_ROUTES}");
    let body = connection.get(&path).await?.whole().await?;
    let list: List = serde_json::from_slice(&body).context("not a list")?;
    Ok(list.items)
}
