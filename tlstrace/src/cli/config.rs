//! The configuration file: options of `tlstrace watch`, in TOML. A key becomes the option of its name, and stands before
//! those of the command line, unless that option is given there, too.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io, iter};

use clap::builder::ArgAction;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};
use toml::de::{DeTable, DeValue};

use super::args::{Args, Command, WatchArgs};

/// The defaults, commented.
pub const DEFAULT: &str = include_str!("default.toml");

/// The tables of a file: sections of `tlstrace watch --help`, and the negated filters.
const TABLES: [&str; 7] = ["source", "judging", "output", "filter", "filter.not", "export", "names"];

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration {} is wrong", path.display())]
    Parse { path: PathBuf, source: Mistake },
}

/// What is wrong in the text of a file.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Mistake {
    /// Counted from 1.
    line: usize,
    message: String,
}

/// A file as written: keys are names of options, and all of them are optional.
#[derive(Clone, Debug)]
pub struct Config {
    settings: Vec<Setting>,
}

/// A key.
#[derive(Clone, Debug)]
struct Setting {
    /// clap's name for the option.
    id: String,
    /// How it is written on a command line.
    words: Vec<OsString>,
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let document = DeTable::parse(text)
            .map_err(|error| Mistake::new(text, error.span().unwrap_or_default().start, error.message()))?;
        let mut reader = Reader { text, command: Args::command(), settings: Vec::new() };
        reader.read("", document.get_ref())?;
        Ok(Self { settings: reader.settings })
    }

    /// The options of `line`, a command line for `watch` as [`fold_not`](super::args::fold_not) leaves it, and of the
    /// file.
    pub fn complete(&self, mut line: Vec<OsString>) -> Result<WatchArgs, clap::Error> {
        let matches = Args::command().try_get_matches_from(&line)?;
        let (start, given) = match matches.subcommand() {
            Some((_, given)) => (2, given),
            None => (1, &matches),
        };
        let is_given = |setting: &&Setting| given.value_source(&setting.id) == Some(ValueSource::CommandLine);
        let settings = self.settings.iter().filter(|setting| !is_given(setting));
        line.splice(start..start, settings.flat_map(|setting| setting.words.clone()));
        let Args { command, watch } = Args::from_arg_matches(&Args::command().try_get_matches_from(line)?)?;
        Ok(if let Some(Command::Watch(watch)) = command { watch } else { watch })
    }
}

impl Mistake {
    /// At the byte `place` of `text`.
    fn new(text: &str, place: usize, message: impl Into<String>) -> Self {
        let line = text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1;
        Self { line, message: message.into() }
    }
}

/// Makes settings of what is written.
struct Reader<'a> {
    text: &'a str,
    command: clap::Command,
    settings: Vec<Setting>,
}

impl Reader<'_> {
    /// Reads what the table `name` has; that of the whole file has no name.
    fn read(&mut self, name: &str, table: &DeTable<'_>) -> Result<(), Mistake> {
        for (key, value) in table {
            let inner = [name, key.get_ref()].join(".");
            let inner = inner.trim_start_matches('.');
            match value.get_ref() {
                DeValue::Table(table) if TABLES.contains(&inner) => self.read(inner, table)?,
                value => self
                    .set(name, key.get_ref(), value)
                    .map_err(|message| Mistake::new(self.text, key.span().start, message))?,
            }
        }
        Ok(())
    }

    /// Takes `key = value`, if that is what the option would take on a command line.
    fn set(&mut self, table: &str, key: &str, value: &DeValue<'_>) -> Result<(), String> {
        let Some(option) = self.option(table, key) else {
            return Err(match table {
                "" => format!("`{key}` is no table of options; these are: {}", TABLES.join(", ")),
                _ => format!("[{table}] has no key `{key}`, only {}", self.keys(table)),
            });
        };
        let words = words(option, value)
            .map_err(|wanted| format!("`{key}` is {wanted}, not a value of the kind {}", value.type_str()))?;
        let id = option.get_id().to_string();
        let line = iter::once(OsString::from("tlstrace")).chain(words.iter().cloned());
        self.command.try_get_matches_from_mut(line).map_err(|error| reason(&error))?;
        self.settings.push(Setting { id, words });
        Ok(())
    }

    /// The names of all keys of a table.
    fn keys(&self, table: &str) -> String {
        let options = self.command.get_arguments().filter_map(clap::Arg::get_long);
        let keys = options.map(|option| option.trim_start_matches("not-"));
        let keys: BTreeSet<_> = keys.filter(|key| self.option(table, key).is_some()).collect();
        keys.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// The option that a key stands for.
    fn option(&self, table: &str, key: &str) -> Option<&clap::Arg> {
        // Of "filter" there is "filter.not": hidden options, which `--not` leads to.
        let (section, is_negated) =
            table.split_once('.').map_or((table, false), |(section, _)| (section, true));
        let name = if is_negated { format!("not-{key}") } else { key.to_owned() };
        self.command.get_arguments().filter(|_| !section.is_empty()).find(|option| {
            let heading = option.get_help_heading().unwrap_or_default().to_lowercase();
            option.get_long() == Some(&name)
                && option.is_hide_set() == is_negated
                && heading.starts_with(section)
        })
    }
}

/// A key and its value as words of a command line, or what the value should be.
fn words(option: &clap::Arg, value: &DeValue<'_>) -> Result<Vec<OsString>, &'static str> {
    let name = option.get_long().unwrap_or_default();
    let repeated = |times| vec![OsString::from(format!("--{name}")); times];
    let valued = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(format!("--{name}={text}").into()),
        DeValue::Integer(_) => integer(value).map(|number| format!("--{name}={number}").into()),
        _ => None,
    };
    match (option.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(is_set)) => Ok(repeated(usize::from(*is_set))),
        (ArgAction::SetTrue, _) => Err("true or false"),
        (ArgAction::Count, _) => {
            let times = integer(value).and_then(|number| u8::try_from(number).ok());
            times.map(|times| repeated(usize::from(times))).ok_or("a number from 0 to 255")
        }
        (_, DeValue::Array(values)) => {
            let words = values.iter().map(|value| valued(value.get_ref()));
            words.collect::<Option<_>>().ok_or("a list of strings or numbers")
        }
        _ => valued(value).map(|word| vec![word]).ok_or("a string, a number, or a list of them"),
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok())
}

/// Why a command line is wrong, without the advice that follows in a terminal.
fn reason(error: &clap::Error) -> String {
    let message = error.to_string();
    let first = message.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{AttachArg, RedactArg, fold_not};

    /// What `line` means together with a file.
    fn args(line: &str, config: &str) -> WatchArgs {
        let words = ["tlstrace"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        Config::parse(config).unwrap().complete(fold_not(words)).unwrap()
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
        let named: BTreeSet<_> = config.settings.iter().map(|setting| setting.id.as_str()).collect();
        let command = Args::command();
        let options = command.get_arguments().map(|option| option.get_id().as_str());
        assert_eq!(named, options.filter(|option| *option != "config").collect());
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
        assert!(unknown.starts_with("line 3: ") && unknown.contains("`colour`"), "{unknown}");
        assert!(unknown.contains("aggregate, all, color"), "{unknown}");
        let word = error("[output]\ntime = 'zulu'");
        assert!(word.starts_with("line 2: ") && word.contains("utc, local, relative"), "{word}");
        assert!(error("[outputs]").starts_with("line 1: "));
        assert!(error("[output]\noutput = 'xml'").contains("text, json, gcp"));
        assert!(error("\n[output]\ncount = 0").starts_with("line 3: "));
        assert!(error("[output]\nall = ").starts_with("line 2: "));
    }

    #[test]
    fn a_value_of_another_kind_than_the_options_is_an_error() {
        for text in [
            "output = 'json'",
            "[output]\nall = 'yes'",
            "[output]\nverbose = 256",
            "[output]\nverbose = true",
            "[output]\ntime = ['utc', 'local']",
            "[output]\nfail-on = [['error']]",
            "[source]\nring-size = 4096.5",
            "[source]\nring-size = 99999999999999999999",
            "[source]\nnetns = 2026-11-27",
            "[source.not]\nnetns = '1'",
            "[filter]\nnot-sni = ['a']",
            "[filter.not]\nport = [443]",
            "[names]\nconfig = 'a'",
            "config = 'a'",
            "help = true",
        ] {
            assert!(Config::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_may_look_like_an_option() {
        assert_eq!(args("", "[names]\ncri = '--all'").names.cri.unwrap(), Path::new("--all"));
        assert_eq!(args("watch --all", "[output]\nverbose = 2\nall = false").output.style.verbose, 2);
        assert_eq!(args("watch -v", "[source]\nnetns = 0x10\n[output]\nverbose = 2").output.style.verbose, 1);
    }
}
