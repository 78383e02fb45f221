//! The command line as meant: checked values, in the types that the rest of the program speaks.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fmt};

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::args::{
    Args, AttachArg, CleanupArgs, DoctorArgs, ExportArgs, FilterArgs, FmtArgs, FormatArg, JudgeArgs,
    NamesArgs, OutputArgs, RedactArg, ReplayArgs, ReportArgs, SourceArgs, StyleArgs, SummaryArg, TimeArg,
    WatchArgs, WhenArg,
};
#[cfg(feature = "top")]
use super::args::{ClockArg, TopArgs};
use super::glob::Glob;
use super::values;
use crate::aggregate::Aggregate;
use crate::capture::clock;
use crate::capture::interfaces::Selection;
use crate::capture::{self, Mode, NetworkNamespace};
use crate::engine::locality::{Locality, Network};
use crate::entry::{Entry, Redaction};
use crate::names::Identity;
use crate::otlp;
use crate::sink::{OpenSink, SINKS, Style, TimeFormat};
use crate::verdict::Severity;

/// `tlstrace watch`.
#[derive(Clone, Debug)]
pub struct Watch {
    pub capture: capture::Settings,
    pub network_namespace: Option<NetworkNamespace>,
    pub timeout: Option<Duration>,
    pub judging: Judging,
    pub output: Output,
    pub filter: Filter,
    /// `None`: they are not looked up.
    pub names: Option<Names>,
    pub metrics: Option<Metrics>,
    /// Where a collector listens.
    pub otlp: Option<otlp::Endpoint>,
}

/// Where names of addresses come from, beside `/proc`.
#[derive(Clone, Debug)]
pub struct Names {
    /// The container runtime's socket, if it is not one of the usual.
    pub cri: Option<PathBuf>,
    /// Where the credentials for the cluster's API are, if not where pods have them.
    pub kube_credentials: Option<PathBuf>,
    /// Whether to read what Apigee hybrid routes.
    pub apigee: bool,
}

/// `--metrics`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Metrics {
    pub address: SocketAddr,
    /// How many server names may be labels, at most.
    pub certificates: usize,
}

/// `tlstrace replay`.
#[derive(Clone, Debug)]
pub struct Replay {
    /// `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Read everything once to learn, and a second time to judge.
    pub learn_first: bool,
    pub judging: Judging,
    pub output: Output,
    pub filter: Filter,
}

/// What the user knows and packets do not show.
#[derive(Clone, Debug)]
pub struct Judging {
    /// A bundle of the authorities that the clients trust.
    pub ca_file: Option<PathBuf>,
    pub locality: Locality,
}

/// `tlstrace doctor`.
#[derive(Clone, Debug)]
pub struct Doctor {
    pub interfaces: Selection,
    pub network_namespace: Option<NetworkNamespace>,
    pub format: Format,
}

/// `tlstrace cleanup`.
#[derive(Clone, Debug)]
pub struct Cleanup {
    pub interfaces: Selection,
    pub is_dry_run: bool,
    pub network_namespace: Option<NetworkNamespace>,
    pub format: Format,
}

/// How findings other than verdicts are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    Text,
    Json,
}

/// `tlstrace fmt`.
#[derive(Clone, Debug)]
pub struct Fmt {
    /// `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Lines that match, as they are, instead of text.
    pub raw: bool,
    /// As one log.
    pub merge: bool,
    pub output: Output,
    pub filter: Filter,
}

/// `tlstrace report`.
#[derive(Clone, Debug)]
pub struct Report {
    /// `-` is standard input.
    pub files: Vec<PathBuf>,
    /// `-` is standard output.
    pub output: PathBuf,
    /// Of the times in it, in seconds east of UTC.
    pub offset: i32,
    pub filter: Filter,
}

/// `tlstrace top`.
#[cfg(feature = "top")]
#[derive(Clone, Debug)]
pub struct Top {
    pub source: TopSource,
    pub judging: Judging,
    pub output: Output,
    pub filter: Filter,
    /// Seconds that clocks on the screen are east of UTC.
    pub offset: i32,
}

/// Where `tlstrace top` has its verdicts from.
#[cfg(feature = "top")]
#[derive(Clone, Debug)]
pub enum TopSource {
    /// With names, unless addresses are to be left as they are.
    Live(Live, Option<Names>),
    /// Captures or saved lines; `-` is standard input.
    Files(Vec<PathBuf>),
}

/// Live packets.
#[derive(Clone, Debug)]
pub struct Live {
    pub capture: capture::Settings,
    pub network_namespace: Option<NetworkNamespace>,
    pub timeout: Option<Duration>,
}

/// What is printed, and how.
#[derive(Clone, Debug)]
pub struct Output {
    pub sink: OpenSink,
    pub style: Style,
    /// Whether info verdicts are printed too.
    pub all: bool,
    /// How many verdicts to print at most.
    pub count: Option<u64>,
    pub fail_on: Vec<FailOn>,
    pub redaction: Redaction,
    pub summary: SummaryFormat,
    /// Verdicts that are printed as counts, and over which periods.
    pub aggregate: Vec<(Glob, Duration)>,
    /// Most lines a second.
    pub max_rate: Option<u32>,
    /// Where an HTML report goes at the end.
    pub report: Option<PathBuf>,
}

/// How the summary is told.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SummaryFormat {
    /// In lines on stderr.
    #[default]
    Text,
    /// So, and as the last line of the data, an object of schema `tlstrace-summary/1`.
    Json,
    /// Not beyond how many verdicts there were.
    None,
}

/// When `--fail-on` matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FailOn {
    /// This severity and everything above it.
    Severity(Severity),
    Verdict(Glob),
}

/// Which connections and verdicts are meant: one criterion with several values means any of them, several
/// criteria mean all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    ports: Vec<RangeInclusive<u16>>,
    verdict: Criterion<Glob>,
    server_name: Criterion<Glob>,
    client: Criterion<Network>,
    server: Criterion<Network>,
    severity: Criterion<Severity>,
    pod: Criterion<Glob>,
    namespace: Criterion<Glob>,
    workload: Criterion<Glob>,
}

/// Values of which one must match, and values of which none may.
#[derive(Clone, Debug)]
struct Criterion<T> {
    any: Vec<T>,
    none: Vec<T>,
}

impl Watch {
    /// Checks what was typed. The error is of clap's kind: it prints itself, and its exit code is 2.
    pub fn new(args: WatchArgs) -> Result<Self, clap::Error> {
        let WatchArgs { config: _, source, judge, output, filter, export, names } = args;
        if export.metrics_certificates > 0 && output.redact.contains(&RedactArg::Sni) {
            return Err(usage("--metrics-certificates shows server names, which --redact sni hides"));
        }
        let names = Names::unless(output.numeric, names)?;
        let filter =
            if names.is_some() { Filter::new(filter)? } else { Filter::new(filter)?.without_names()? };
        let Live { capture, network_namespace, timeout } = Live::new(source, &filter)?;
        Ok(Self {
            capture,
            network_namespace,
            timeout,
            judging: Judging::new(judge)?,
            output: Output::new(output)?,
            filter,
            names,
            metrics: Metrics::new(&export)?,
            otlp: export.otlp.map(|text| collector(&text)).transpose()?,
        })
    }
}

impl Live {
    fn new(args: SourceArgs, filter: &Filter) -> Result<Self, clap::Error> {
        let SourceArgs { interfaces, attach, netns, timeout, ring_size } = args;
        let attach = match attach {
            AttachArg::Auto => Mode::Auto,
            AttachArg::Tcx => Mode::Tcx,
            AttachArg::Clsact => Mode::Clsact,
            AttachArg::Packet => Mode::Packet,
        };
        if !(ring_size.is_power_of_two() && ring_size >= 4096) {
            return Err(usage(format!("--ring-size {ring_size} is not a power of two from 4096 on")));
        }
        Ok(Self {
            capture: capture::Settings {
                interfaces: selection(&interfaces),
                attach,
                choice: filter.choice(),
                ring_size,
            },
            network_namespace: netns.map(|text| network_namespace(&text)),
            timeout: timeout.map(|text| values::duration(&text)).transpose().map_err(usage)?,
        })
    }
}

#[cfg(feature = "top")]
impl Top {
    /// As [`Watch::new`].
    pub fn new(args: TopArgs) -> Result<Self, clap::Error> {
        let TopArgs { files, source, judge, color, time, redact, numeric, filter, names } = args;
        let filter = Filter::new(filter)?;
        let (source, filter) = if files.is_empty() {
            let names = Names::unless(numeric, names)?;
            let filter = if names.is_some() { filter } else { filter.without_names()? };
            (TopSource::Live(Live::new(source, &filter)?, names), filter)
        } else {
            (TopSource::Files(files), filter)
        };
        let style = style(&StyleArgs { verbose: 0, color, time: TimeArg::Utc, fold: WhenArg::Never });
        Ok(Self {
            source,
            judging: Judging::new(judge)?,
            output: Output {
                sink: sink("text")?,
                style,
                all: true,
                count: None,
                fail_on: Vec::new(),
                redaction: redaction(&redact),
                summary: SummaryFormat::None,
                aggregate: Vec::new(),
                max_rate: None,
                report: None,
            },
            filter,
            offset: if time == ClockArg::Local { clock::utc_offset() } else { 0 },
        })
    }
}

impl Names {
    /// None, if addresses are to be left as they are.
    fn unless(is_numeric: bool, args: NamesArgs) -> Result<Option<Self>, clap::Error> {
        if is_numeric && args.apigee {
            return Err(usage("--apigee asks for what -n (--numeric) never looks up"));
        }
        if is_numeric { Ok(None) } else { Self::new(args).map(Some) }
    }

    fn new(args: NamesArgs) -> Result<Self, clap::Error> {
        let NamesArgs { cri, kube_credentials, apigee } = args;
        if cri.is_some() && !cfg!(feature = "cri") {
            return Err(usage("--cri: this program was built without `cri`"));
        }
        if kube_credentials.is_some() && !cfg!(feature = "k8s") {
            return Err(usage("--kube-credentials: this program was built without `k8s`"));
        }
        if apigee && !cfg!(feature = "k8s") {
            return Err(usage("--apigee: this program was built without `k8s`"));
        }
        Ok(Self { cri, kube_credentials, apigee })
    }
}

impl Metrics {
    fn new(args: &ExportArgs) -> Result<Option<Self>, clap::Error> {
        let ExportArgs { metrics, metrics_certificates, otlp: _ } = args;
        let certificates = usize::try_from(*metrics_certificates).unwrap_or(usize::MAX);
        let address = metrics.as_ref().map(|text| values::socket_address(text)).transpose().map_err(usage)?;
        Ok(address.map(|address| Self { address, certificates }))
    }
}

impl Replay {
    /// As [`Watch::new`].
    pub fn new(args: ReplayArgs) -> Result<Self, clap::Error> {
        let ReplayArgs { files, learn_first, judge, output, filter } = args;
        if learn_first && files.iter().any(|file| file.as_os_str() == "-") {
            return Err(usage("--learn-first reads every file twice, which standard input does not allow"));
        }
        Ok(Self {
            files,
            learn_first,
            judging: Judging::new(judge)?,
            output: Output::new(output)?,
            filter: Filter::new(filter)?.without_names()?,
        })
    }
}

impl Judging {
    fn new(args: JudgeArgs) -> Result<Self, clap::Error> {
        let JudgeArgs { ca_file, local } = args;
        let networks: Result<Vec<Network>, _> = local.iter().map(|text| text.parse()).collect();
        let locality = Locality { networks: networks.map_err(usage)?, ..Locality::default() };
        Ok(Self { ca_file, locality })
    }
}

impl From<DoctorArgs> for Doctor {
    fn from(args: DoctorArgs) -> Self {
        let DoctorArgs { interfaces, place } = args;
        Self {
            interfaces: selection(&interfaces),
            network_namespace: place.netns.as_deref().map(network_namespace),
            format: place.output.into(),
        }
    }
}

impl From<CleanupArgs> for Cleanup {
    fn from(args: CleanupArgs) -> Self {
        let CleanupArgs { interfaces, dry_run, place } = args;
        Self {
            interfaces: if interfaces.is_empty() {
                Selection::Any { loopback: true }
            } else {
                selection(&interfaces)
            },
            is_dry_run: dry_run,
            network_namespace: place.netns.as_deref().map(network_namespace),
            format: place.output.into(),
        }
    }
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Text => Self::Text,
            FormatArg::Json => Self::Json,
        }
    }
}

impl Fmt {
    /// As [`Watch::new`].
    pub fn new(args: FmtArgs) -> Result<Self, clap::Error> {
        let FmtArgs { files, merge, output, style, count, fail_on, summary, filter } = args;
        let raw = output == "json";
        let output = Output {
            style: self::style(&style),
            // What was saved was meant to be seen.
            all: true,
            count,
            fail_on: self::fail_on(&fail_on),
            redaction: Redaction::default(),
            summary: summary.into(),
            aggregate: Vec::new(),
            max_rate: None,
            report: None,
            sink: sink(&output)?,
        };
        Ok(Self { files, raw, merge, output, filter: Filter::new(filter)? })
    }
}

impl Report {
    /// As [`Watch::new`].
    pub fn new(args: ReportArgs) -> Result<Self, clap::Error> {
        let ReportArgs { files, output, time, filter } = args;
        let offset = if time == "local" { clock::utc_offset() } else { 0 };
        Ok(Self { files, output, offset, filter: Filter::new(filter)? })
    }
}

impl Output {
    pub fn new(args: OutputArgs) -> Result<Self, clap::Error> {
        // `--numeric` is for those who look names up: `replay` has nobody to ask.
        let OutputArgs {
            output: format,
            all,
            count,
            style,
            numeric: _,
            fail_on,
            redact,
            summary,
            aggregate,
            max_rate,
            report,
        } = args;
        let aggregate = aggregate.iter().map(|text| values::aggregate(text)).collect::<Result<_, _>>();
        Ok(Self {
            sink: sink(&format)?,
            style: self::style(&style),
            all,
            count,
            fail_on: self::fail_on(&fail_on),
            aggregate: aggregate.map_err(usage)?,
            max_rate,
            redaction: redaction(&redact),
            summary: summary.into(),
            report,
        })
    }

    /// Whether `--fail-on` names this verdict.
    pub fn fails_on(&self, entry: &Entry<'_>) -> bool {
        self.fail_on.iter().any(|fail_on| match fail_on {
            FailOn::Severity(severity) => entry.severity >= *severity,
            FailOn::Verdict(pattern) => pattern.matches(&entry.verdict),
        })
    }
}

fn redaction(args: &[RedactArg]) -> Redaction {
    Redaction::new(args.contains(&RedactArg::Sni), args.contains(&RedactArg::Client))
}

fn sink(format: &str) -> Result<OpenSink, clap::Error> {
    let kind = SINKS.iter().find(|kind| kind.name == format);
    kind.map(|kind| kind.open).ok_or_else(|| usage(format_args!("there is no output format {format}")))
}

fn style(args: &StyleArgs) -> Style {
    let StyleArgs { verbose, color, time, fold } = *args;
    let is_terminal = io::stdout().is_terminal();
    let when = |when, auto: bool| match when {
        WhenArg::Always => true,
        WhenArg::Never => false,
        WhenArg::Auto => auto,
    };
    // https://no-color.org: set and not empty.
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Style {
        colour: when(color, is_terminal && !no_color),
        verbose: verbose > 0,
        fold: when(fold, is_terminal),
        width: terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into()),
        time: match time {
            TimeArg::Utc => TimeFormat::Utc,
            TimeArg::Local => TimeFormat::Local { offset: clock::utc_offset() },
            TimeArg::Relative => TimeFormat::Relative,
        },
    }
}

fn fail_on(texts: &[String]) -> Vec<FailOn> {
    let meant = |text: &String| match severity(text) {
        Ok(severity) => FailOn::Severity(severity),
        Err(_) => FailOn::Verdict(Glob::new(text)),
    };
    texts.iter().map(meant).collect()
}

impl From<SummaryArg> for SummaryFormat {
    fn from(arg: SummaryArg) -> Self {
        match arg {
            SummaryArg::Text => Self::Text,
            SummaryArg::Json => Self::Json,
            SummaryArg::None => Self::None,
        }
    }
}

impl Filter {
    pub fn new(args: FilterArgs) -> Result<Self, clap::Error> {
        let ports: Result<Vec<_>, _> = args.ports.iter().map(|text| values::ports(text)).collect();
        let globs = |texts: Vec<String>| texts.iter().map(|text| Glob::new(text)).collect();
        let networks = |texts: Vec<String>| -> Result<Vec<_>, clap::Error> {
            texts.iter().map(|text| text.parse().map_err(|error: String| usage(error))).collect()
        };
        let severities = |texts: Vec<String>| -> Result<Vec<_>, clap::Error> {
            texts.iter().map(|text| severity(text).map_err(usage)).collect()
        };
        Ok(Self {
            ports: ports.map_err(usage)?.concat(),
            verdict: Criterion { any: globs(args.verdict), none: globs(args.not_verdict) },
            server_name: Criterion { any: globs(args.sni), none: globs(args.not_sni) },
            client: Criterion { any: networks(args.client)?, none: networks(args.not_client)? },
            server: Criterion { any: networks(args.server)?, none: networks(args.not_server)? },
            severity: Criterion { any: severities(args.severity)?, none: severities(args.not_severity)? },
            pod: Criterion { any: globs(args.pod), none: globs(args.not_pod) },
            namespace: Criterion { any: globs(args.namespace), none: globs(args.not_namespace) },
            workload: Criterion { any: globs(args.workload), none: globs(args.not_workload) },
        })
    }

    /// Ports of either end of the connections that are meant; none means any.
    pub fn ports(&self) -> &[RangeInclusive<u16>] {
        &self.ports
    }

    /// What of it the BPF programs can decide. The client's address is not: behind a PROXY header there is another one.
    fn choice(&self) -> capture::Choice {
        capture::Choice {
            ports: self.ports.clone(),
            servers: self.server.any.clone(),
            not_servers: self.server.none.clone(),
        }
    }

    /// Whether a verdict is meant.
    pub fn accepts(&self, entry: &Entry<'_>) -> bool {
        let named = |criterion: &Criterion<Glob>, name: Option<&str>| {
            criterion.accepts(|pattern| name.is_some_and(|name| pattern.matches_in_any_case(name)))
        };
        let either = |criterion: &Criterion<Glob>, name: &dyn Fn(&Identity) -> Option<&str>| {
            criterion.accepts(|pattern| {
                entry.names.known().filter_map(name).any(|name| pattern.matches_in_any_case(name))
            })
        };
        self.verdict.accepts(|pattern| pattern.matches(&entry.verdict))
            && self.severity.accepts(|severity| *severity == entry.severity)
            && self.client.accepts(|network| network.contains(entry.client.ip()))
            && self.server.accepts(|network| network.contains(entry.server.ip()))
            && self.accepts_ports(entry)
            && named(&self.server_name, entry.server_name.as_deref())
            && either(&self.pod, &|identity| identity.pod.as_deref())
            && either(&self.namespace, &|identity| identity.namespace.as_deref())
            && either(&self.workload, &|identity| Some(&*identity.workload.as_ref()?.name))
    }

    /// Whether all verdicts that an aggregate stands for are meant. It tells of no client.
    pub fn accepts_aggregate(&self, aggregate: &Aggregate) -> bool {
        let Aggregate { verdict, severity, server, server_name, identity, .. } = aggregate;
        let named = |criterion: &Criterion<Glob>, name: Option<&str>| {
            criterion.accepts(|pattern| name.is_some_and(|name| pattern.matches_in_any_case(name)))
        };
        let server_is = identity.as_deref();
        let workload = server_is.and_then(|identity| identity.workload.as_ref());
        self.client.any.is_empty()
            && self.client.none.is_empty()
            && self.verdict.accepts(|pattern| pattern.matches(verdict))
            && self.severity.accepts(|wanted| wanted == severity)
            && self.server.accepts(|network| server.is_some_and(|server| network.contains(server.ip())))
            && (self.ports.is_empty()
                || server.is_some_and(|server| self.ports.iter().any(|ports| ports.contains(&server.port()))))
            && named(&self.server_name, server_name.as_deref())
            && named(&self.pod, server_is.and_then(|identity| identity.pod.as_deref()))
            && named(&self.namespace, server_is.and_then(|identity| identity.namespace.as_deref()))
            && named(&self.workload, workload.map(|workload| &*workload.name))
    }

    /// Connections that an engine has followed passed this already; saved lines have not.
    fn accepts_ports(&self, entry: &Entry<'_>) -> bool {
        let ends = [entry.client.port(), entry.server.port()];
        self.ports.is_empty() || self.ports.iter().any(|ports| ends.iter().any(|port| ports.contains(port)))
    }

    /// Whether a criterion is about names in a cluster.
    pub fn asks_for_names(&self) -> bool {
        let asks = |criterion: &Criterion<Glob>| !(criterion.any.is_empty() && criterion.none.is_empty());
        [&self.pod, &self.namespace, &self.workload].into_iter().any(asks)
    }

    /// Refuses criteria that nothing could meet where names are not looked up.
    fn without_names(self) -> Result<Self, clap::Error> {
        if self.asks_for_names() {
            return Err(usage(
                "--pod, --namespace and --workload need names that packets do not carry: `tlstrace watch` looks them \
                 up (not with -n), and `tlstrace fmt` takes lines that have them",
            ));
        }
        Ok(self)
    }

    /// Whether verdicts are asked for by id or by severity, so that info verdicts need no `--all`.
    pub fn names_verdicts(&self) -> bool {
        !self.verdict.any.is_empty() || !self.severity.any.is_empty()
    }

    /// The ports as a phrase: "any port, recognised by content".
    pub fn describe_ports(&self) -> String {
        let ranges = self.ports.iter().map(|range| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
        match ranges.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "any port, recognised by content".to_owned(),
            ports => format!("port {ports}"),
        }
    }
}

impl<T> Criterion<T> {
    fn accepts(&self, matches: impl Fn(&T) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&matches)) && !self.none.iter().any(&matches)
    }
}

impl<T> Default for Criterion<T> {
    fn default() -> Self {
        Self { any: Vec::new(), none: Vec::new() }
    }
}

fn selection(interfaces: &[String]) -> Selection {
    if interfaces.is_empty() {
        Selection::DefaultRoute
    } else if interfaces.iter().any(|pattern| pattern == "any") {
        Selection::Any { loopback: interfaces.iter().any(|pattern| Glob::new(pattern).matches("lo")) }
    } else {
        Selection::Named(interfaces.iter().map(|pattern| Glob::new(pattern)).collect())
    }
}

fn collector(text: &str) -> Result<otlp::Endpoint, clap::Error> {
    if !cfg!(feature = "otlp") {
        return Err(usage("--otlp: this program was built without the feature `otlp`"));
    }
    text.parse().map_err(usage)
}

/// A number is a process; everything else is a file.
fn network_namespace(text: &str) -> NetworkNamespace {
    text.parse().map_or_else(|_| NetworkNamespace::Path(PathBuf::from(text)), NetworkNamespace::Process)
}

fn severity(text: &str) -> Result<Severity, String> {
    let severity = Severity::ALL.iter().find(|severity| severity.as_str() == text);
    severity.copied().ok_or_else(|| format!("`{text}` is not a severity: error, warning or info"))
}

/// An error of clap's kind, whose exit code is 2.
pub(crate) fn usage(message: impl fmt::Display) -> clap::Error {
    Args::command().error(ErrorKind::InvalidValue, message)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::Arc;

    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Command, fold_not};
    use crate::engine::timestamp::Timestamp;
    use crate::names::{Ends, Workload};

    fn watch(line: &str) -> Result<Watch, clap::Error> {
        let words = ["tlstrace"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        Watch::new(Args::try_parse_from(fold_not(words))?.watch)
    }

    fn entry() -> Entry<'static> {
        Entry { server_name: Some("api.example.com".into()), ..Entry::sample() }
    }

    #[test]
    fn values_of_one_filter_are_alternatives_and_filters_add_up() {
        let accepts = |line: &str| watch(line).unwrap().filter.accepts(&entry());
        assert!(accepts(""));
        assert!(accepts("--sni other.example --sni *.EXAMPLE.com"));
        assert!(!accepts("--sni *.example.com --client 11.0.0.0/8"));
        assert!(accepts("--sni *.example.com --client 10.0.0.0/8 --verdict sni_* --severity error"));
        assert!(!accepts("--not --sni *.example.com"));
        assert!(accepts("--client 10.0.0.0/8 --not --client 10.9.0.0/16"));
        assert!(!accepts("--severity info --severity warning"));
        assert!(accepts("--port 443,8000-8999") && !accepts("--port 443"));
    }

    #[test]
    fn a_connection_without_server_name_matches_no_name() {
        let entry = Entry { server_name: None, ..entry() };
        assert!(!watch("--sni *").unwrap().filter.accepts(&entry));
        assert!(watch("--not --sni *").unwrap().filter.accepts(&entry));
    }

    #[test]
    fn names_are_those_of_either_end_and_a_replay_has_none() {
        let pod = |pod: &str| {
            let (pod, namespace) = (Some(pod.into()), Some("shop".into()));
            let workload = Some(Workload { kind: "Deployment".into(), name: "web".into() });
            Some(Arc::new(Identity { namespace, pod, workload, ..Identity::default() }))
        };
        let names = Ends { client: pod("web-7d9f-x"), server: pod("gateway-0") };
        let entry = Entry { names, ..entry() };
        let accepts = |line: &str| watch(line).unwrap().filter.accepts(&entry);
        assert!(accepts("--pod web-*") && accepts("--pod gateway-* --namespace shop --workload web"));
        assert!(!accepts("--pod api-*") && !accepts("--not --pod web-*"));
        assert!(!watch("--pod *").unwrap().filter.accepts(&self::entry()), "who has no name is no pod");
        let words = ["tlstrace", "replay", "a.pcap", "--pod", "x"].map(OsString::from);
        let Some(Command::Replay(args)) = Args::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!(Replay::new(args).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn an_aggregate_is_meant_if_all_that_it_stands_for_is() {
        let aggregate = Aggregate {
            start: Timestamp::default(),
            end: Timestamp::default(),
            verdict: "ok".to_owned(),
            severity: Severity::Info,
            server: Some(SocketAddr::from(([10, 4, 0, 9], 8443))),
            server_name: Some("api.example.com".to_owned()),
            identity: None,
            count: 7,
            handshake: None,
            is_suppressed: false,
        };
        let accepts = |line: &str| watch(line).unwrap().filter.accepts_aggregate(&aggregate);
        assert!(accepts("") && accepts("--verdict ok --sni *.example.com --server 10.4.0.0/16 --port 8443"));
        assert!(
            !accepts("--client 0.0.0.0/0") && !accepts("--not --client 10.0.0.0/8"),
            "clients are not told"
        );
        assert!(!accepts("--pod *") && accepts("--not --pod web-*"));
    }

    #[test]
    fn ports_add_up_and_are_told_in_words() {
        assert_eq!(
            watch("--port 443,8000-8999 --port 15021").unwrap().filter.describe_ports(),
            "port 443, 8000-8999, 15021"
        );
        assert_eq!(watch("").unwrap().filter.describe_ports(), "any port, recognised by content");
    }

    #[test]
    fn fail_on_takes_an_id_or_everything_from_a_severity_up() {
        let fails = |line: &str| watch(line).unwrap().output.fails_on(&entry());
        assert!(fails("--fail-on sni_missing") && fails("--fail-on sni_*"));
        assert!(fails("--fail-on warning") && fails("--fail-on error"));
        assert!(!fails("--fail-on port_closed"));
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for line in [
            "--attach xdp",
            "--timeout soon",
            "--port https",
            "--not --port 443",
            "--client 10.0.0.0/40",
            "--severity bad",
            "--ring-size 5000",
            "--count 0",
            "--redact everything",
            "--otlp collector:4318",
            "-n --pod shop-*",
            "-n --not --namespace default",
        ] {
            let error = watch(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
    }

    #[test]
    fn any_stands_for_all_interfaces_and_loopback_is_named_beside_it() {
        let selected = |line| watch(line).unwrap().capture.interfaces;
        assert_eq!(selected("-i any"), Selection::Any { loopback: false });
        assert_eq!(selected("-i any -i lo"), Selection::Any { loopback: true });
        assert_eq!(selected("-i any*"), Selection::Named(vec![Glob::new("any*")]));
    }

    #[test]
    fn a_network_namespace_is_a_process_or_a_file() {
        assert_eq!(network_namespace("123"), NetworkNamespace::Process(123));
        assert_eq!(network_namespace("/run/netns/a"), NetworkNamespace::Path("/run/netns/a".into()));
    }
}
