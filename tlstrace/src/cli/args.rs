//! The command line as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::probe::ProbeArgs;
use crate::sink::SINKS;
use crate::verdict::explain::Product;

/// Tell why TLS handshakes fail: which side, how sure, on what evidence, and what to do.
///
/// Without a command, `watch` is meant.
#[derive(Clone, Debug, Parser)]
#[command(name = "tlstrace", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub watch: WatchArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print verdicts on the handshakes that pass this machine's interfaces.
    #[command(after_help = EXIT_CODES)]
    Watch(WatchArgs),
    /// Print verdicts on the handshakes in capture files (pcap or pcapng, also gzip-compressed).
    ///
    /// Needs no privilege. Files are read one after another, and a connection does not continue in the next file:
    /// join the parts of a rotated capture first (`mergecap`).
    #[command(after_help = EXIT_CODES)]
    Replay(ReplayArgs),
    /// Show listeners, failures and the capture's health on a screen that follows what happens.
    ///
    /// Without FILE it shows the handshakes that pass this machine's interfaces, as `watch` prints them. `?` tells the
    /// keys.
    #[cfg(feature = "top")]
    #[command(after_help = EXIT_CODES)]
    Top(TopArgs),
    /// Print saved JSON lines as text, whatever stands before them (`kubectl logs … | tlstrace fmt`).
    ///
    /// Lines that are not of tlstrace pass through. The filters choose which verdicts are printed.
    #[command(after_help = EXIT_CODES)]
    Fmt(FmtArgs),
    /// Make one HTML file of saved JSON lines: what failed, when, where and why, to read, print and attach.
    ///
    /// It needs no network and holds no script. Lines that are not of tlstrace are counted and left out; lines that were
    /// saved with `--all` tell shares of all handshakes and their latency.
    #[command(after_help = EXIT_CODES)]
    Report(ReportArgs),
    /// Print the defaults as a configuration file, or check one.
    Config(ConfigArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the manual as a page for man(1): `tlstrace man | man -l -`.
    Man,
    /// Tell what a verdict means, how to confirm it and how to fix it; without ID, list all verdicts.
    Explain(ExplainArgs),
    /// Ask one endpoint what it accepts: names, versions, suites, groups, protocols; and which verdicts that explains.
    ///
    /// Makes up to some forty connections, one at a time, and sends nothing over them. Only for endpoints that you may
    /// ask.
    #[command(after_help = EXIT_CODES)]
    Probe(ProbeArgs),
    /// Tell whether tlstrace can run here, what stands in the way, and how to fix that.
    ///
    /// It tries: the programs are loaded and attached, in a network namespace of their own where possible. Exit code
    /// 3 says that something keeps `watch` from working.
    Doctor(DoctorArgs),
    /// Remove the filters that a killed run has left behind, and nothing else.
    Cleanup(CleanupArgs),
}

/// Options of `tlstrace watch`.
#[derive(Clone, Debug, ClapArgs)]
pub struct WatchArgs {
    /// Configuration in TOML (`tlstrace config print-default`); options given here win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub export: ExportArgs,
    #[command(flatten)]
    pub names: NamesArgs,
}

/// Options of `tlstrace top`.
#[cfg(feature = "top")]
#[derive(Clone, Debug, ClapArgs)]
pub struct TopArgs {
    /// Captures or saved JSON lines, `-` for standard input (`kubectl logs -f … | tlstrace top -`).
    #[arg(
        value_name = "FILE",
        conflicts_with_all = [
            "interfaces", "attach", "netns", "timeout", "ring_size", "numeric", "cri", "kube_credentials", "apigee",
        ]
    )]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Use colours.
    #[arg(long, value_enum, default_value_t = WhenArg::Auto, value_name = "WHEN", help_heading = "Output")]
    pub color: WhenArg,
    /// How times are shown.
    #[arg(long, value_enum, default_value_t = ClockArg::Utc, value_name = "STYLE", help_heading = "Output")]
    pub time: ClockArg,
    /// Hide server names (`sni`), or the hosts among client addresses (`client`); not in saved lines.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT[,WHAT]", help_heading = "Output")]
    pub redact: Vec<RedactArg>,
    /// Do not look up who has an address: pods, Services, processes. (Nothing ever waits for it.)
    #[arg(short, long, help_heading = "Names")]
    pub numeric: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub names: NamesArgs,
}

/// Options of `tlstrace fmt`.
#[derive(Clone, Debug, ClapArgs)]
pub struct FmtArgs {
    /// Files of JSON lines, `-` for standard input.
    #[arg(default_value = "-", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Make one log of those of several nodes: in the order of time, and one line for a connection that two of them saw.
    ///
    /// Files are read side by side. A single one, such as standard input, is taken to be in order.
    #[arg(long)]
    pub merge: bool,
    /// Text, or the JSON lines that match as they are.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text", value_name = "FORMAT")]
    pub output: String,
    #[command(flatten)]
    pub style: StyleArgs,
    /// End after N verdicts were printed.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Exit with code 4 if a verdict matches: an id (or pattern), or a severity and everything above it; repeatable.
    #[arg(long, value_name = "VERDICT|SEVERITY")]
    pub fail_on: Vec<String>,
    /// How to sum up at the end: on standard error, also as a JSON line on standard output, or not at all.
    #[arg(long, value_enum, default_value_t = SummaryArg::Text, value_name = "FORMAT")]
    pub summary: SummaryArg,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Options of `tlstrace report`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ReportArgs {
    /// Files of JSON lines, `-` for standard input.
    #[arg(default_value = "-", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// File to write, `-` for standard output.
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// How times are shown.
    #[arg(long, value_parser = ["utc", "local"], default_value = "utc", value_name = "STYLE")]
    pub time: String,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Options of `tlstrace config`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a file with all keys, their defaults and what they mean.
    PrintDefault,
    /// Say whether a file is right, and where it is not.
    Check { file: PathBuf },
}

/// Options of `tlstrace completions`.
#[derive(Clone, Debug, ClapArgs)]
pub struct CompletionsArgs {
    pub shell: Shell,
}

/// Options of `tlstrace explain`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ExplainArgs {
    /// Id of a verdict, such as `sni_missing`.
    pub id: Option<String>,
    /// Only fixes for this product.
    #[arg(long = "for", value_name = "PRODUCT", requires = "id")]
    pub product: Option<Product>,
}

/// Options of `tlstrace doctor`.
#[derive(Clone, Debug, ClapArgs)]
pub struct DoctorArgs {
    /// Interface that is to be watched, as with `watch`.
    #[arg(short, long = "interface", value_name = "NAME|GLOB")]
    pub interfaces: Vec<String>,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Options of `tlstrace cleanup`.
#[derive(Clone, Debug, ClapArgs)]
pub struct CleanupArgs {
    /// Interface to look at, by name or pattern; repeatable. Default: all.
    #[arg(short, long = "interface", value_name = "NAME|GLOB")]
    pub interfaces: Vec<String>,
    /// Say what would be removed, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Where to look, and how to say what was found.
#[derive(Clone, Debug, ClapArgs)]
pub struct PlaceArgs {
    /// Network namespace: a process number, or a file such as `/run/netns/NAME`.
    #[arg(long, value_name = "PATH|PID")]
    pub netns: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = FormatArg::Text, value_name = "FORMAT")]
    pub output: FormatArg,
}

/// Options of `tlstrace replay`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ReplayArgs {
    /// Capture files, `-` for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Read all files twice: first to learn what each listener accepts, then to judge with that knowledge.
    #[arg(long)]
    pub learn_first: bool,
    #[command(flatten)]
    pub judge: JudgeArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Where the packets come from.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Interface to watch, by name or pattern (`gke*`); repeatable. `any` is every one but `lo`, which `-i any -i lo`
    /// adds. Default: those that carry a default route.
    #[arg(short, long = "interface", value_name = "NAME|GLOB")]
    pub interfaces: Vec<String>,
    /// Hook to use; `auto` is TCX, clsact where the kernel has no TCX, and a packet socket where Cilium has the hooks.
    #[arg(long, value_enum, default_value_t = AttachArg::Auto, value_name = "HOOK")]
    pub attach: AttachArg,
    /// Network namespace to watch: a process number, or a file such as `/run/netns/NAME`.
    #[arg(long, value_name = "PATH|PID")]
    pub netns: Option<String>,
    /// End after this time (`10s`, `500ms`, `2m`).
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Bytes of room for events on their way from the kernel: a power of two from 4096 on.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub ring_size: u32,
}

/// What the user knows and packets do not show.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Judging")]
pub struct JudgeArgs {
    /// Authorities that the clients trust (PEM), to tell an unknown authority from an incomplete chain.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Address or network that counts as local, beside this host's own when watching; repeatable.
    ///
    /// `network.direction` follows: inbound (the server is local), outbound (the client is), internal (both are),
    /// external (neither is: forwarded).
    #[arg(long, value_name = "ADDRESS|CIDR")]
    pub local: Vec<String>,
}

/// Who has an address.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Names")]
pub struct NamesArgs {
    /// Socket of the container runtime that knows this node's pods. Default: where containerd and CRI-O have theirs.
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<PathBuf>,
    /// What to ask the cluster's API with: a directory with `token` and `ca.crt`, or a kubeconfig file with a token or a
    /// client certificate. Default: the pod's service account.
    #[arg(long, value_name = "DIRECTORY|FILE")]
    pub kube_credentials: Option<PathBuf>,
    /// Read the routes of Apigee hybrid where its ingress gateway runs on this node, and say with a verdict about the
    /// server name whether they let such a client in. Needs the cluster's API; nothing is changed.
    #[arg(long)]
    pub apigee: bool,
}

/// What is told to other programs.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Export")]
pub struct ExportArgs {
    /// Serve Prometheus metrics at `/metrics`, and `/healthz` and `/readyz`.
    ///
    /// A connection counts once, by its first verdict; filters and `--all` make no difference. Port 0 is a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<String>,
    /// Export when certificates expire, by server name, for the last N names at most (0: none). TLS 1.3 hides them.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub metrics_certificates: u32,
    /// Send what is printed as log records, and metrics every 10 s, to an OpenTelemetry collector (OTLP/HTTP, JSON):
    /// `http://127.0.0.1:4318`.
    ///
    /// Nothing waits for the collector: what it does not take in time is dropped and counted.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
}

/// What is printed, and how.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Output format.
    #[arg(short, long, value_parser = formats(), default_value = "text", value_name = "FORMAT")]
    pub output: String,
    /// Print `ok` and info verdicts too.
    #[arg(long)]
    pub all: bool,
    /// End after N verdicts were printed.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    #[command(flatten)]
    pub style: StyleArgs,
    /// Do not look up who has an address: pods, Services, processes. (Nothing ever waits for it.)
    #[arg(short = 'n', long = "numeric")]
    pub numeric: bool,
    /// Exit with code 4 if a verdict matches: an id (or pattern), or a severity and everything above it; repeatable.
    #[arg(long, value_name = "VERDICT|SEVERITY")]
    pub fail_on: Vec<String>,
    /// Hide server names (`sni`), or the hosts among client addresses (`client`), in all output.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT[,WHAT]")]
    pub redact: Vec<RedactArg>,
    /// Print counts of such verdicts by listener and server name, with quantiles, instead of a line each; repeatable.
    ///
    /// `--aggregate ok=10s` keeps failures one by one and needs no `--all`. Schema `tlstrace-aggregate/1`.
    #[arg(long, value_name = "ID|GLOB=PERIOD")]
    pub aggregate: Vec<String>,
    /// Most lines a second. What is beyond is counted, and the counts are printed every 10 s.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_rate: Option<u32>,
    /// How to sum up at the end (and at SIGUSR1): on standard error, also as a JSON line on standard output, or not
    /// at all.
    #[arg(long, value_enum, default_value_t = SummaryArg::Text, value_name = "FORMAT")]
    pub summary: SummaryArg,
    /// Write a report at the end: one HTML file, as of `tlstrace report`.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// How text looks.
#[derive(Clone, Debug, ClapArgs)]
pub struct StyleArgs {
    /// Print evidence and remedy under each line; twice: log what the program does.
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Use colours.
    #[arg(long, value_enum, default_value_t = WhenArg::Auto, value_name = "WHEN")]
    pub color: WhenArg,
    /// How times are printed.
    #[arg(long, value_enum, default_value_t = TimeArg::Utc, value_name = "STYLE")]
    pub time: TimeArg,
    /// Make one line of what is repeated within 10 s; `auto`: on a terminal. Only text is ever folded.
    #[arg(long, value_enum, default_value_t = WhenArg::Auto, value_name = "WHEN")]
    pub fold: WhenArg,
}

/// Which verdicts are meant. `--not` before a filter becomes its `--not-…` twin in [`fold_not`].
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(
    next_help_heading = "Filters (the same one repeated: any of them; different ones: all of them; `--not` before one negates it)"
)]
pub struct FilterArgs {
    /// Ports of either end (`443,8000-8999`). Default: any port, TLS is recognised by its content.
    #[arg(long = "port", value_name = "N[,N-M…]")]
    pub ports: Vec<String>,
    /// Verdict id or pattern (`*_mismatch`); shown whatever its severity.
    #[arg(long, value_name = "ID|GLOB")]
    pub verdict: Vec<String>,
    /// Server name or pattern (`*.example.com`).
    #[arg(long, value_name = "NAME|GLOB")]
    pub sni: Vec<String>,
    /// The client's address or network (`10.0.0.0/8`).
    #[arg(long, value_name = "ADDRESS|CIDR")]
    pub client: Vec<String>,
    /// The server's address or network.
    #[arg(long, value_name = "ADDRESS|CIDR")]
    pub server: Vec<String>,
    /// Severity: error, warning or info.
    #[arg(long, value_name = "SEVERITY")]
    pub severity: Vec<String>,
    /// Pod of either end, or pattern, where it is known.
    #[arg(long, value_name = "NAME|GLOB")]
    pub pod: Vec<String>,
    /// Kubernetes namespace of either end, or pattern, likewise.
    #[arg(long, value_name = "NAME|GLOB")]
    pub namespace: Vec<String>,
    /// What a pod of either end was made for (the name of its Deployment, Job, …), or pattern, likewise.
    #[arg(long, value_name = "NAME|GLOB")]
    pub workload: Vec<String>,
    #[arg(long, hide = true)]
    pub not_verdict: Vec<String>,
    #[arg(long, hide = true)]
    pub not_sni: Vec<String>,
    #[arg(long, hide = true)]
    pub not_client: Vec<String>,
    #[arg(long, hide = true)]
    pub not_server: Vec<String>,
    #[arg(long, hide = true)]
    pub not_severity: Vec<String>,
    #[arg(long, hide = true)]
    pub not_pod: Vec<String>,
    #[arg(long, hide = true)]
    pub not_namespace: Vec<String>,
    #[arg(long, hide = true)]
    pub not_workload: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum AttachArg {
    Auto,
    Tcx,
    Clsact,
    Packet,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum FormatArg {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum WhenArg {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum TimeArg {
    Utc,
    Local,
    Relative,
}

#[cfg(feature = "top")]
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ClockArg {
    Utc,
    Local,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum RedactArg {
    Sni,
    Client,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum SummaryArg {
    Text,
    Json,
    None,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 runtime error, 2 usage, 3 missing privilege or kernel feature, 4 --fail-on matched";

fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(SINKS.iter().map(|kind| PossibleValue::new(kind.name).help(kind.doc)))
}

/// Turns `--not --sni NAME` into `--not-sni NAME`, which needs no memory of what stood before.
pub fn fold_not(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut folded = Vec::new();
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            folded.push(argument);
            folded.extend(arguments);
            break;
        }
        if argument == "--not"
            && let Some(filter) = arguments.peek().and_then(|next| next.to_str()?.strip_prefix("--"))
        {
            folded.push(format!("--not-{filter}").into());
            arguments.next();
        } else {
            folded.push(argument);
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(fold_not(line.split_whitespace().map(OsString::from)))
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn without_a_command_the_options_are_those_of_watch() {
        let short = parse("tlstrace -i eth0 --all").unwrap();
        assert!(short.command.is_none());
        let Some(Command::Watch(long)) = parse("tlstrace watch -i eth0 --all").unwrap().command else {
            panic!()
        };
        for watch in [short.watch, long] {
            assert_eq!(watch.source.interfaces, ["eth0"]);
            assert!(watch.output.all);
        }
    }

    #[test]
    fn not_negates_the_filter_that_follows() {
        let filter = parse("tlstrace --not --sni a --sni b --not --client=10.0.0.0/8").unwrap().watch.filter;
        assert_eq!((filter.not_sni.concat(), filter.sni.concat()), ("a".to_owned(), "b".to_owned()));
        assert_eq!(filter.not_client, ["10.0.0.0/8"]);
    }

    #[test]
    fn not_before_anything_else_is_an_error() {
        for line in ["tlstrace --not --all", "tlstrace --not", "tlstrace --not sni a"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
