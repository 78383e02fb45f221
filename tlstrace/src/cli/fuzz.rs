//! Fuzz body of what is typed: filters, patterns, durations, ports, networks.

use std::ffi::OsString;
use std::net::IpAddr;

use clap::Parser as _;

use super::args::{Args, fold_not};
use super::glob::Glob;
use super::settings::Filter;
use super::values;
use crate::engine::locality::Network;

/// One argument a line; the first is a pattern and the second a text too.
pub(crate) fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if first.len() + second.len() < 512 {
        let pattern = Glob::new(first);
        assert_eq!(pattern.matches(second), matches_slowly(first.as_bytes(), second.as_bytes()));
        assert!(!pattern.matches(second) || pattern.matches_in_any_case(second));
    }
    if let Ok(duration) = values::duration(first) {
        assert!(!duration.is_zero());
    }
    if let Ok(ports) = values::ports(first) {
        assert!(ports.iter().all(|range| *range.start() > 0 && range.start() <= range.end()));
    }
    if let Ok(network) = first.parse::<Network>() {
        let address: IpAddr =
            first.split('/').next().unwrap_or_default().parse().unwrap_or([0, 0, 0, 0].into());
        assert!(network.contains(address), "a network holds the address that it is named by");
    }
    let arguments = ["tlstrace"].into_iter().chain(text.lines().take(32)).map(OsString::from);
    let Ok(args) = Args::try_parse_from(fold_not(arguments)) else { return };
    if args.command.is_some() {
        return;
    }
    // The filters alone: other options name files, which a fuzzer must not open.
    if let Ok(filter) = Filter::new(args.watch.filter) {
        assert!(!filter.describe_ports().is_empty());
    }
}

/// As [`Glob`], by all the ways there are: `table[t]` is whether the pattern so far matches the first `t` bytes.
fn matches_slowly(pattern: &[u8], text: &[u8]) -> bool {
    let mut table = vec![false; text.len() + 1];
    if let Some(first) = table.first_mut() {
        *first = true;
    }
    for byte in pattern {
        let mut before = false;
        let mut reached = false;
        for (at, cell) in table.iter_mut().enumerate() {
            let was = *cell;
            reached |= was;
            *cell = if *byte == b'*' {
                reached
            } else {
                before && at.checked_sub(1).and_then(|at| text.get(at)) == Some(byte)
            };
            before = was;
        }
    }
    table.last().copied().unwrap_or_default()
}
