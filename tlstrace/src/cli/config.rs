//! The configuration file: options of `tlstrace watch`, in TOML. What the command line says wins over it, and it
//! wins over the defaults.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::parser::ValueSource;
use clap::{ArgMatches, ValueEnum};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::args::{
    AttachArg, ExportArgs, FilterArgs, JudgeArgs, OutputArgs, RedactArg, SourceArgs, StyleArgs, SummaryArg,
    TimeArg, WatchArgs, WhenArg,
};
use crate::sink::SINKS;

/// The defaults, commented.
pub const DEFAULT: &str = include_str!("default.toml");

/// Why a file is not taken. The message names the line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration {} is wrong", path.display())]
    Parse { path: PathBuf, source: toml::de::Error },
}

/// A file as written: keys are names of options, and all of them are optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    source: Source,
    judging: Judging,
    output: Output,
    filter: Filter,
    export: Export,
    names: Names,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Judging {
    ca_file: Option<PathBuf>,
    local: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Source {
    interface: Option<Vec<String>>,
    attach: Option<Word<AttachArg>>,
    netns: Option<String>,
    timeout: Option<String>,
    ring_size: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Output {
    output: Option<Format>,
    all: Option<bool>,
    numeric: Option<bool>,
    verbose: Option<u8>,
    color: Option<Word<WhenArg>>,
    fold: Option<Word<WhenArg>>,
    time: Option<Word<TimeArg>>,
    count: Option<std::num::NonZeroU64>,
    fail_on: Option<Vec<String>>,
    redact: Option<Vec<Word<RedactArg>>>,
    aggregate: Option<Vec<String>>,
    max_rate: Option<std::num::NonZeroU32>,
    summary: Option<Word<SummaryArg>>,
    report: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    port: Option<Vec<Ports>>,
    verdict: Option<Vec<String>>,
    sni: Option<Vec<String>>,
    client: Option<Vec<String>>,
    server: Option<Vec<String>>,
    severity: Option<Vec<String>>,
    pod: Option<Vec<String>>,
    namespace: Option<Vec<String>>,
    workload: Option<Vec<String>>,
    not: Not,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Not {
    verdict: Option<Vec<String>>,
    sni: Option<Vec<String>>,
    client: Option<Vec<String>>,
    server: Option<Vec<String>>,
    severity: Option<Vec<String>>,
    pod: Option<Vec<String>>,
    namespace: Option<Vec<String>>,
    workload: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Export {
    metrics: Option<String>,
    metrics_certificates: Option<u32>,
    otlp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Names {
    cri: Option<PathBuf>,
    kube_credentials: Option<PathBuf>,
    apigee: Option<bool>,
}

/// `443` or `"8000-8999"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Ports {
    One(u16),
    Range(String),
}

/// A value that an option takes.
#[derive(Clone, Copy, Debug)]
struct Word<T>(T);

/// The name of an output format.
#[derive(Clone, Debug)]
struct Format(String);

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Sets what `given`, the command line, does not.
    pub fn apply(self, args: &mut WatchArgs, given: &ArgMatches) {
        let Self { source, judging, output, filter, export, names } = self;
        source.apply(&mut args.source, given);
        judging.apply(&mut args.judge, given);
        output.apply(&mut args.output, given);
        filter.apply(&mut args.filter, given);
        export.apply(&mut args.export, given);
        let Names { cri, kube_credentials, apigee } = names;
        set(&mut args.names.cri, cri, "cri", given);
        set(&mut args.names.kube_credentials, kube_credentials, "kube_credentials", given);
        set(&mut args.names.apigee, apigee, "apigee", given);
    }
}

/// Sets `value`, unless the command line has it already.
fn set<T>(value: &mut T, from_file: Option<impl Into<T>>, option: &str, given: &ArgMatches) {
    if let Some(from_file) = from_file
        && given.value_source(option) != Some(ValueSource::CommandLine)
    {
        *value = from_file.into();
    }
}

impl Source {
    fn apply(self, args: &mut SourceArgs, given: &ArgMatches) {
        let Self { interface, attach, netns, timeout, ring_size } = self;
        set(&mut args.interfaces, interface, "interfaces", given);
        set(&mut args.attach, attach.map(|word| word.0), "attach", given);
        set(&mut args.netns, netns, "netns", given);
        set(&mut args.timeout, timeout, "timeout", given);
        set(&mut args.ring_size, ring_size, "ring_size", given);
    }
}

impl Judging {
    fn apply(self, args: &mut JudgeArgs, given: &ArgMatches) {
        let Self { ca_file, local } = self;
        set(&mut args.ca_file, ca_file, "ca_file", given);
        set(&mut args.local, local, "local", given);
    }
}

impl Output {
    fn apply(self, args: &mut OutputArgs, given: &ArgMatches) {
        let Self { output, all, numeric, verbose, color, fold, time, .. } = self;
        let Self { count, fail_on, redact, aggregate, max_rate, summary, report, .. } = self;
        set(&mut args.numeric, numeric, "numeric", given);
        set(&mut args.output, output.map(|format| format.0), "output", given);
        set(&mut args.all, all, "all", given);
        set(&mut args.count, count.map(std::num::NonZero::get), "count", given);
        set(&mut args.fail_on, fail_on, "fail_on", given);
        let redact = redact.map(|words| words.into_iter().map(|word| word.0).collect::<Vec<_>>());
        set(&mut args.redact, redact, "redact", given);
        set(&mut args.aggregate, aggregate, "aggregate", given);
        set(&mut args.max_rate, max_rate.map(std::num::NonZero::get), "max_rate", given);
        set(&mut args.summary, summary.map(|word| word.0), "summary", given);
        set(&mut args.report, report, "report", given);
        let StyleArgs { verbose: verbose_arg, color: color_arg, time: time_arg, fold: fold_arg } =
            &mut args.style;
        set(verbose_arg, verbose, "verbose", given);
        set(color_arg, color.map(|word| word.0), "color", given);
        set(time_arg, time.map(|word| word.0), "time", given);
        set(fold_arg, fold.map(|word| word.0), "fold", given);
    }
}

impl Filter {
    fn apply(self, args: &mut FilterArgs, given: &ArgMatches) {
        let Self { port, verdict, sni, client, server, severity, pod, namespace, workload, not } = self;
        let ports = port.map(|ports| ports.into_iter().map(String::from).collect::<Vec<_>>());
        set(&mut args.ports, ports, "ports", given);
        set(&mut args.verdict, verdict, "verdict", given);
        set(&mut args.sni, sni, "sni", given);
        set(&mut args.client, client, "client", given);
        set(&mut args.server, server, "server", given);
        set(&mut args.severity, severity, "severity", given);
        set(&mut args.pod, pod, "pod", given);
        set(&mut args.namespace, namespace, "namespace", given);
        set(&mut args.workload, workload, "workload", given);
        let Not { verdict, sni, client, server, severity, pod, namespace, workload } = not;
        set(&mut args.not_verdict, verdict, "not_verdict", given);
        set(&mut args.not_sni, sni, "not_sni", given);
        set(&mut args.not_client, client, "not_client", given);
        set(&mut args.not_server, server, "not_server", given);
        set(&mut args.not_severity, severity, "not_severity", given);
        set(&mut args.not_pod, pod, "not_pod", given);
        set(&mut args.not_namespace, namespace, "not_namespace", given);
        set(&mut args.not_workload, workload, "not_workload", given);
    }
}

impl Export {
    fn apply(self, args: &mut ExportArgs, given: &ArgMatches) {
        let Self { metrics, metrics_certificates, otlp } = self;
        set(&mut args.metrics, metrics, "metrics", given);
        set(&mut args.metrics_certificates, metrics_certificates, "metrics_certificates", given);
        set(&mut args.otlp, otlp, "otlp", given);
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        match ports {
            Ports::One(port) => port.to_string(),
            Ports::Range(range) => range,
        }
    }
}

impl<'de, T: ValueEnum> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::from_str(&text, false).map(Self).map_err(|_| {
            let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
            de::Error::custom(format_args!("`{text}` is none of {}", names.join(", ")))
        })
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let names: Vec<_> = SINKS.iter().map(|kind| kind.name).collect();
        if names.contains(&&*text) {
            return Ok(Self(text));
        }
        Err(de::Error::custom(format_args!("`{text}` is none of {}", names.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;
    use crate::cli::args::{Args, fold_not};

    /// What `line` means together with a file.
    fn args(line: &str, config: &str) -> WatchArgs {
        let words = ["tlstrace"].into_iter().chain(line.split_whitespace()).map(std::ffi::OsString::from);
        let matches = Args::command().get_matches_from(fold_not(words));
        let mut args = Args::from_arg_matches(&matches).unwrap().watch;
        Config::parse(config).unwrap().apply(&mut args, &matches);
        args
    }

    /// `text` with every comment that holds a key become the key.
    fn uncommented(text: &str) -> String {
        let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let line = |line: &'static str| match line.strip_prefix("# ") {
            Some(key) if is_key(key) => key,
            _ => line,
        };
        assert_eq!(text, DEFAULT);
        DEFAULT.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_shipped_file_is_the_defaults() {
        assert_eq!(format!("{:?}", args("", DEFAULT)), format!("{:?}", args("", "")));
    }

    #[test]
    fn the_shipped_file_names_every_key() {
        let config = Config::parse(&uncommented(DEFAULT)).unwrap();
        assert!(!format!("{config:?}").contains("None"), "{config:?}");
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_the_defaults() {
        let config = "[source]\ninterface = ['eth0']\nattach = 'clsact'\n\
                      [output]\noutput = 'json'\nall = true\nredact = ['sni']\n\
                      [filter]\nport = [443, '8000-8999']\n[filter.not]\nsni = ['a']";
        let from_file = args("", config);
        assert_eq!(from_file.source.interfaces, ["eth0"]);
        assert_eq!((from_file.output.output.as_str(), from_file.output.all), ("json", true));
        assert_eq!(from_file.filter.ports, ["443", "8000-8999"]);
        let both = args("-i eth1 -o text --port 1 --not --sni b", config);
        assert_eq!(both.source.interfaces, ["eth1"]);
        assert_eq!(both.source.attach, AttachArg::Clsact);
        assert_eq!(both.output.output, "text");
        assert_eq!(both.output.redact, [RedactArg::Sni]);
        assert_eq!((both.filter.ports, both.filter.not_sni), (vec!["1".to_owned()], vec!["b".to_owned()]));
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        let error = |text: &str| Config::parse(text).unwrap_err().to_string();
        let unknown = error("[output]\nall = true\ncolour = 'always'");
        assert!(unknown.contains("line 3") && unknown.contains("colour"), "{unknown}");
        let word = error("[output]\ntime = 'zulu'");
        assert!(word.contains("line 2") && word.contains("utc, local, relative"), "{word}");
        assert!(error("[outputs]").contains("line 1"));
        assert!(error("[output]\noutput = 'xml'").contains("text, json, gcp"));
        assert!(error("[output]\ncount = 0").contains("line 2"));
    }
}
