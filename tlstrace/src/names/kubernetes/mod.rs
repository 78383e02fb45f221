//! Pods, Services and what is behind them, from the cluster's API: a list, then a watch from there on.
//!
//! Pods are asked for by node: of other nodes only what is behind a Service is known. While a watch is interrupted
//! nothing that it told is trusted for what begins later; what was missed is told again when it goes on, or everything is
//! listed anew if the API does not remember so far back (410 Gone).

mod client;
mod kubeconfig;
mod objects;
mod routes;
mod store;

use std::collections::HashSet;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::time;

use super::Names;
use crate::capture::clock::Clock;
use crate::engine::timestamp::Timestamp;
use client::{Connection, GetError};
use objects::{Bookmark, EndpointSlice, Event, List, Object, Pod, Service, Status};
use store::{Follow, Gone, Store};

pub use client::Cluster;
pub use routes::{GROUP as APIGEE, RESOURCES as ROUTES};

/// Paths of what is listed and watched, in all namespaces: so much must be allowed.
pub const WATCHED: [&str; 3] = [Pod::PATH, Service::PATH, EndpointSlice::PATH];

/// How many objects are asked for at once.
const PAGE: u32 = 500;
/// After so many seconds the API ends a watch, which then begins anew.
const WATCH_FOR: u32 = 290;
/// A watch that went on has told all that was missed when it is silent for so long.
const CAUGHT_UP: Duration = Duration::from_secs(2);
/// How long to wait after a failure: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long to wait for the first lists.
const PATIENCE: Duration = Duration::from_secs(3);

/// Fills the directory from the cluster's API, in a thread of its own. Returns when pods are known for the first time, or
/// with the reason why they are not.
pub fn follow(cluster: Cluster, names: Names) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (report, first) = mpsc::channel();
    let (go_on, is_wanted) = oneshot::channel();
    let store = Arc::new(Mutex::new(Store::new(&cluster.node)));
    thread::Builder::new().name("cluster".to_owned()).spawn(move || {
        if let Err(error) = crate::capture::keep_no_rights() {
            log::info!("rights could not be given up: {error}");
            return;
        }
        let reflector = |first| Reflector {
            cluster: cluster.clone(),
            names: names.clone(),
            store: Arc::clone(&store),
            clock: Clock::start(),
            first,
        };
        let of_node = format!("&fieldSelector=spec.nodeName%3D{}", cluster.node);
        let follow = async {
            tokio::join!(
                reflector(Some(report)).run::<Pod>(&of_node),
                reflector(None).run::<Service>(""),
                reflector(None).run::<EndpointSlice>(""),
                routes::follow(&cluster, &names, &store),
            )
        };
        let is_abandoned = async {
            if is_wanted.await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                _ = follow => {}
                () = is_abandoned => {}
            }
        });
    })?;
    first.recv_timeout(PATIENCE).context("no answer in time")??;
    // Whoever is asked instead must not be contradicted.
    let _ = go_on.send(());
    Ok(())
}

/// Follows one kind of object.
struct Reflector {
    cluster: Cluster,
    names: Names,
    store: Arc<Mutex<Store>>,
    clock: Clock,
    /// Whom to tell of the first list.
    first: Option<mpsc::Sender<anyhow::Result<()>>>,
}

impl Reflector {
    async fn run<T: Object>(mut self, selector: &str)
    where
        Store: Follow<T>,
    {
        let mut version = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = self.clock.now();
            match self.round::<T>(selector, &mut version).await {
                // As agreed.
                Ok(()) => {}
                Err(GetError::Expired) => {
                    log::info!("{}: too much was missed, all is listed again", T::PATH);
                    version = None;
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    log::info!("{}: {error:#}", T::PATH);
                    if let Some(first) = self.first.take() {
                        let _ = first.send(Err(error));
                    }
                }
            }
            self.clock.resynchronise();
            if self.clock.now().since(begun) > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Lists if nothing is known, and watches until that ends.
    async fn round<T: Object>(&mut self, selector: &str, version: &mut Option<String>) -> Result<(), GetError>
    where
        Store: Follow<T>,
    {
        let connection = self.cluster.connect().await?;
        if version.is_none() {
            *version = Some(self.list::<T>(&connection, selector).await?);
            if let Some(first) = self.first.take() {
                let _ = first.send(Ok(()));
            }
        }
        let result = self.watch::<T>(&connection, selector, version).await;
        // One that ended as agreed was alive to the end.
        let until = if result.is_ok() { self.clock.now() } else { connection.alive() };
        self.names.directory().suspend(<Store as Follow<T>>::SOURCE, until);
        result
    }

    async fn list<T: Object>(&mut self, connection: &Connection, selector: &str) -> Result<String, GetError>
    where
        Store: Follow<T>,
    {
        let mut items = Vec::new();
        let mut next = None;
        let version = loop {
            let from: String = next.map(|next| format!("&continue={next}")).unwrap_or_default();
            let body = connection.get(&format!("{}?limit={PAGE}{selector}{from}", T::PATH)).await?;
            let body = body.whole().await?;
            let page: List<T> = serde_json::from_slice(&body).context("not a list")?;
            items.extend(page.items);
            next = page.metadata.next.filter(|next| !next.is_empty());
            if next.is_none() {
                break client::version(&page.metadata.resource_version)?;
            }
        };
        let now = self.clock.now();
        let listed: HashSet<_> = items.iter().map(|item| Arc::clone(&item.metadata().uid)).collect();
        let (mut store, mut directory) = (self.store(), self.names.directory());
        let gone = Gone { certain: directory.last_trusted(<Store as Follow<T>>::SOURCE), now };
        for uid in Follow::<T>::uids(&*store) {
            if !listed.contains(&uid) {
                Follow::<T>::remove(&mut *store, &mut directory, &uid, gone);
            }
        }
        for item in &items {
            store.set(&mut directory, item, now);
        }
        directory.begin(<Store as Follow<T>>::SOURCE, now);
        Ok(version)
    }

    async fn watch<T: Object>(
        &mut self,
        connection: &Connection,
        selector: &str,
        version: &mut Option<String>,
    ) -> Result<(), GetError>
    where
        Store: Follow<T>,
    {
        let from = version.as_deref().unwrap_or_default();
        let path = format!(
            "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_FOR}&resourceVersion={from}{selector}",
            T::PATH
        );
        let mut body = connection.get(&path).await?;
        loop {
            let line = if let Ok(line) = time::timeout(CAUGHT_UP, body.line()).await {
                line?
            } else {
                self.names.directory().resume(<Store as Follow<T>>::SOURCE);
                body.line().await?
            };
            let Some(line) = line else { return Ok(()) };
            self.clock.resynchronise();
            let now = self.clock.now();
            let event: Event<'_> = serde_json::from_slice(&line).context("not an event of a watch")?;
            let text = event.object.get();
            match event.kind {
                "BOOKMARK" => {
                    let bookmark: Bookmark = serde_json::from_str(text).context("not a bookmark")?;
                    *version = Some(client::version(&bookmark.metadata.resource_version)?);
                    self.names.directory().resume(<Store as Follow<T>>::SOURCE);
                }
                "ERROR" => {
                    let status: Status = serde_json::from_str(text).context("not a status")?;
                    return Err(client::reported(status.code, &status.message));
                }
                kind => {
                    let object: T = serde_json::from_str(text).context("not an object of its kind")?;
                    self.apply(kind == "DELETED", &object, now);
                    *version = Some(client::version(&object.metadata().resource_version)?);
                }
            }
        }
    }

    fn apply<T: Object>(&self, is_gone: bool, object: &T, now: Timestamp)
    where
        Store: Follow<T>,
    {
        let (mut store, mut directory) = (self.store(), self.names.directory());
        if is_gone {
            let gone = Gone { certain: now, now };
            Follow::<T>::remove(&mut *store, &mut directory, &object.metadata().uid, gone);
        } else {
            store.set(&mut directory, object, now);
        }
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
