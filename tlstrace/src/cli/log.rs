//! Where the program's own log goes: stderr, one line a record.

use std::env;

use log::{LevelFilter, Log, Metadata, Record};

/// Environment variable that sets the level: `off`, `error`, `warn`, `info`, `debug` or `trace`.
pub const LEVEL: &str = "TLSTRACE_LOG";

/// Begins to log, at the level of the environment or else of how often `--verbose` was given.
///
/// The BPF programs log at the same level; what is below is not even in them when they run.
pub fn init(verbose: u8) {
    static LOGGER: Stderr = Stderr;
    let by_flag = match verbose {
        0 | 1 => LevelFilter::Warn,
        2 => LevelFilter::Info,
        3 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let by_environment = env::var(LEVEL).ok().and_then(|level| level.parse().ok());
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(by_environment.unwrap_or(by_flag));
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            super::notice(format_args!("{level}: {}: {}", record.target(), record.args()));
        }
    }

    fn flush(&self) {}
}
