//! `tlstrace watch`: live verdicts.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use anyhow::Context as _;

use super::{Exit, engine_settings, report};
use crate::capture::{self, Capture, privilege};
use crate::cli::settings::{self, Filter, Judging, Watch};
use crate::cli::{QueuedNotices, notice};
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::metrics::server::{Endpoint, Exporter};
use crate::names::{self, Names};
use crate::otlp;
use crate::outlet::{self, Outlet};
use crate::report::{Export, Report};
use crate::run::{self, End, Signals};
use crate::sink::Observer;

/// Watches until something ends it.
pub(super) fn run(settings: Watch) -> anyhow::Result<Exit> {
    // Before it enters another namespace: who scrapes is where the program was started.
    let endpoint = settings.metrics.map(|metrics| {
        let address = metrics.address;
        Endpoint::bind(address).with_context(|| format!("cannot serve metrics on {address}"))
    });
    let endpoint = endpoint.transpose()?;
    // Pods come and go in the node's namespace.
    let names = settings.names.as_ref().map(|sources| look_up(sources, &settings.filter)).transpose()?;
    let otlp = settings.otlp.as_ref().map(export).transpose()?;
    let destination = settings.output.report.as_deref().map(report::Destination::open).transpose()?;
    if let Some(namespace) = &settings.network_namespace {
        capture::enter(namespace)?;
    }
    // One thread: the engine is one, and the network namespace belongs to the thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the tokio runtime")?.block_on(watch(
        settings,
        endpoint,
        otlp,
        destination,
        names,
    ))
}

async fn watch(
    settings: Watch,
    endpoint: Option<Endpoint>,
    export: Option<Box<dyn Export>>,
    destination: Option<report::Destination>,
    names: Option<Names>,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let mut engine = engine(&settings.filter, &settings.judging)?;
    names.iter().for_each(look_at_processes);
    let mut capture = start(settings.capture, notice)?;
    let certificates = settings.metrics.map_or(0, |metrics| metrics.certificates);
    let is_measured = endpoint.is_some() || export.is_some();
    let exporter = is_measured.then(|| Arc::new(Exporter::new(metrics(certificates))));
    if let Some((endpoint, exporter)) = endpoint.zip(exporter.as_ref()) {
        serve(endpoint, Arc::clone(exporter));
    }
    let _queued = QueuedNotices::begin().context("cannot start a thread")?;
    let mut out = output().context("cannot use standard output")?;
    let printer = out.monitor();
    let locality = settings.judging.locality;
    let observer = Observer { hostname: hostname(), locality, ..Observer::default() };
    notice(format_args!("watching {}; {}", capture.describe(), settings.filter.describe_ports()));
    let mut report = Report::new(settings.output, settings.filter, observer, &mut out);
    if let Some(export) = export {
        report.export_to(export);
    }

    let printing = run::Printing {
        report: &mut report,
        printer: &printer,
        exporter: exporter.as_deref(),
        names: names.as_ref(),
    };
    let end = run::run(&mut capture, &mut engine, printing, &mut signals, settings.timeout).await?;

    let lost = printer.finish(outlet::PATIENCE);
    let unexported = report.finish_exports(outlet::PATIENCE);
    let totals = run::totals(&capture, &engine, &lost, &unexported)?;
    report::write(destination, &report, totals.clone(), report.observer().hostname.clone())?;
    if end == End::ClosedPipe {
        return Ok(Exit::Done);
    }
    run::tell_summary(&report, engine.counts().distinct_connections(), &totals);
    if let Some(error) = lost.error {
        notice(format_args!("tlstrace: cannot write to standard output: {error}"));
        return Ok(Exit::Failed);
    }
    Ok(match end {
        End::NoInterface => Exit::Failed,
        _ if report.gate().has_failed() => Exit::FailOn,
        End::Signal | End::Timeout | End::Count | End::ClosedPipe => Exit::Done,
    })
}

/// Begins to find out which pods have which addresses: from the cluster, or else from the container runtime.
///
/// To be called in the node's network namespace.
pub(super) fn look_up(sources: &settings::Names, filter: &Filter) -> anyhow::Result<Names> {
    let names = if sources.apigee { Names::with_routes() } else { Names::default() };
    let is_in_cluster = follow_cluster(sources, &names)?;
    if sources.apigee && !is_in_cluster {
        notice("--apigee: routes are not known, since the cluster's API is not to be asked from here");
    }
    let is_known = is_in_cluster || follow_runtime(sources, &names)?;
    if !is_known && filter.asks_for_names() {
        notice(
            "nobody knows names of pods here: there is neither a container runtime (--cri) nor a service account",
        );
    }
    Ok(names)
}

/// Begins to find out which processes listen in the network namespace that is watched.
pub(super) fn look_at_processes(names: &Names) {
    if let Err(error) = names::follow_listeners(names.listeners()) {
        log::info!("which processes listen is not known: {error:#}");
    }
}

/// Whether this is a pod that may ask. Who was told where to ask must not be left without an answer.
#[cfg(feature = "k8s")]
fn follow_cluster(sources: &settings::Names, names: &Names) -> anyhow::Result<bool> {
    let is_asked = sources.kube_credentials.is_some();
    let cluster = names::kubernetes::Cluster::find(sources.kube_credentials.clone());
    let Some(cluster) = cluster.context("--kube-credentials")? else {
        anyhow::ensure!(!is_asked, "--kube-credentials: no token there, or no KUBERNETES_SERVICE_HOST");
        return Ok(false);
    };
    let address = cluster.address();
    known_from(&address, is_asked, names::kubernetes::follow(cluster, names.clone()))
}

#[cfg(not(feature = "k8s"))]
#[expect(clippy::unnecessary_wraps, reason = "the feature may fail")]
fn follow_cluster(_: &settings::Names, _: &Names) -> anyhow::Result<bool> {
    Ok(false)
}

/// The same of the container runtime.
#[cfg(feature = "cri")]
fn follow_runtime(sources: &settings::Names, names: &Names) -> anyhow::Result<bool> {
    let Some(socket) = sources.cri.clone().or_else(names::cri::find_socket) else { return Ok(false) };
    let shown = socket.display().to_string();
    known_from(&shown, sources.cri.is_some(), names::cri::follow(socket, names.clone()))
}

#[cfg(not(feature = "cri"))]
#[expect(clippy::unnecessary_wraps, reason = "the feature may fail")]
fn follow_runtime(_: &settings::Names, _: &Names) -> anyhow::Result<bool> {
    Ok(false)
}

#[cfg(any(feature = "cri", feature = "k8s"))]
fn known_from(place: &str, is_asked: bool, result: anyhow::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if is_asked => Err(error.context(format!("no names of pods from {place}"))),
        Err(error) => {
            notice(format_args!("no names of pods from {place}: {error:#}"));
            Ok(false)
        }
    }
}

/// An engine that keeps within the memory that the program may have.
pub(super) fn engine(filter: &Filter, judging: &Judging) -> anyhow::Result<Engine> {
    let bounds = engine_settings(filter, judging)?;
    Ok(Engine::new(match capture::memory::limit() {
        Some(limit) => bounds.within(limit),
        None => bounds,
    }))
}

/// Attaches, and gives up the privileges that this took. To be called while there is one thread.
pub(super) fn start(settings: capture::Settings, tell: impl FnMut(String)) -> anyhow::Result<Capture> {
    capture::memory::keep_little();
    let mut notes = Vec::new();
    let mut capture = Capture::start(settings, &mut notes)?;
    notes.into_iter().for_each(tell);
    if let Err(error) = capture::priority::raise() {
        log::info!("no larger share of a busy CPU can be had: {error}");
    }
    match capture.renounce_privileges() {
        Ok(kept) => log::info!("capabilities kept: {:?}", privilege::names(kept)),
        Err(error) => log::warn!("the capabilities that are needed no more could not be given up: {error:#}"),
    }
    Ok(capture)
}

/// Begins to send to a collector, from the network namespace in which the program was started.
#[cfg(feature = "otlp")]
fn export(endpoint: &otlp::Endpoint) -> anyhow::Result<Box<dyn Export>> {
    let prepare = || {
        // It began with all rights of the program, and needs none.
        if let Err(error) = privilege::renounce(rustix::thread::CapabilitySet::empty()) {
            log::warn!("the thread that sends to the collector keeps its capabilities: {error}");
        }
    };
    let start = capture::clock::Clock::start().now();
    let exporter = otlp::Exporter::start(endpoint, hostname().as_deref(), start, prepare);
    Ok(Box::new(exporter.context("cannot start a thread")?))
}

#[cfg(not(feature = "otlp"))]
fn export(endpoint: &otlp::Endpoint) -> anyhow::Result<Box<dyn Export>> {
    anyhow::bail!("cannot send to {endpoint}: the program was built without it")
}

fn metrics(certificates: usize) -> Metrics {
    if certificates > 0 { Metrics::new().with_certificates(certificates) } else { Metrics::new() }
}

/// Answers who asks for metrics, from now on.
fn serve(endpoint: Endpoint, exporter: Arc<Exporter>) {
    notice(format_args!("metrics at http://{}/metrics", endpoint.address()));
    let serving = endpoint.serve(exporter);
    tokio::spawn(async {
        if let Err(error) = serving.await {
            notice(format_args!("metrics are not served any more: {error}"));
        }
    });
}

/// The node's name, or the pod's inside one.
fn hostname() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Standard output, which nobody has to wait for.
fn output() -> io::Result<Outlet> {
    Outlet::to_file(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}
