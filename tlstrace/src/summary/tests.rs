use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::engine::facts::ConnectionId;
use crate::entry::{Leaf, Timings};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_795_341_600_000_000_000).after(Duration::from_secs(seconds))
}

fn failure(verdict: &'static str, seconds: u64, client: [u8; 4]) -> Entry<'static> {
    Entry {
        time: at(seconds),
        verdict: verdict.into(),
        client: SocketAddr::from((client, 40_000)),
        server: SocketAddr::from(([10, 4, 0, 9], 8443)),
        summary: "It failed.".into(),
        ja4: Some("t12i030300_aaaaaaaaaaaa_bbbbbbbbbbbb".into()),
        ..Entry::sample()
    }
}

fn success(seconds: u64) -> Entry<'static> {
    Entry {
        severity: Severity::Info,
        server_name: Some("api.example.com".into()),
        certificate: Some(Leaf {
            subject: "CN=api.example.com".into(),
            not_after: at(20 * 86_400).as_secs().cast_signed(),
        }),
        timings: Timings { handshake: Some(12_000), ..Timings::default() },
        ja4: None,
        ..failure("ok", seconds, [10, 9, 0, 1])
    }
}

/// 412 clients without a name, 18 that run into a certificate, 70 that are well.
fn incident() -> Summary {
    let mut summary = Summary::default();
    for i in 0..412_u16 {
        let [high, low] = i.to_be_bytes();
        summary.add(&failure("sni_missing", 131 + u64::from(i), [10, 8 + (low % 4), high, low]));
    }
    for i in 0..18 {
        let entry = failure("server_certificate_expired", 20 * i, [10, 9, 0, 2]);
        summary.add(&Entry {
            server_name: Some("old.example.com".into()),
            server: SocketAddr::from(([10, 4, 0, 7], 443)),
            ..entry
        });
    }
    (0..70).for_each(|i| summary.add(&success(i)));
    summary
}

#[test]
fn failures_are_grouped_by_what_they_have_in_common() {
    insta::assert_snapshot!(Text { summary: &incident(), offset: 0 });
}

#[test]
fn the_object_says_the_same() {
    let summary = incident();
    let capture =
        CaptureTotals { packets: 10, tcp: 9, losses: vec![("lost".into(), 1)], ..Default::default() };
    let object = Object { summary: &summary, capture: Some(&capture), hostname: Some("node-1") };
    insta::assert_snapshot!(serde_json::to_string_pretty(&object).unwrap());
}

#[test]
fn nothing_seen_is_nothing_said() {
    assert_eq!(Text { summary: &Summary::default(), offset: 0 }.to_string(), "");
}

#[test]
fn a_single_failure_takes_two_lines() {
    let mut summary = Summary::default();
    summary.add(&failure("sni_missing", 0, [10, 8, 0, 1]));
    assert_eq!(
        Text { summary: &summary, offset: 3600 }.to_string(),
        "1 of 1 handshakes failed (100.0 %), 11:00:00 to 11:00:00\n  \
         1 of 1 failures: sni_missing, one JA4, from 10.8.0.1, to 10.4.0.9:8443, at 11:00:00\n"
    );
}

#[test]
fn a_revision_takes_the_place_of_what_was_said_before() {
    let mut summary = Summary::default();
    let id = Some(ConnectionId(7));
    summary.add(&Entry { connection: id, ..success(0) });
    let revised = Entry {
        connection: id,
        revision: 1,
        server_name: Some("api.example.com".into()),
        ..failure("client_certificate_missing", 1, [10, 9, 0, 1])
    };
    summary.add(&revised);
    assert_eq!((summary.handshakes(), summary.successes(), summary.failures()), (1, 0, 1));
    let verdicts = summary.verdicts();
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0].0, "client_certificate_missing");
    let [(_, listener)] = summary.listeners().failing(9)[..] else { panic!() };
    assert_eq!((listener.handshakes, listener.successes, listener.failures), (1, 0, 1));
}

#[test]
fn a_pause_ends_an_incident() {
    let mut summary = Summary::default();
    for seconds in [0, 60, 3600, 3601, 3602] {
        summary.add(&failure("sni_missing", seconds, [10, 8, 0, 1]));
    }
    let incidents = summary.incidents().list();
    let found: Vec<_> = incidents.iter().map(|incident| (incident.failures, incident.first)).collect();
    assert_eq!(found, [(3, at(3600)), (2, at(0))]);
}

#[test]
fn what_comes_in_masses_is_bounded_and_the_worst_is_kept() {
    let mut summary = Summary::default();
    for i in 0..20_000_u32 {
        let [_, a, b, c] = i.to_be_bytes();
        let entry = Entry {
            verdict: format!("verdict_{i}").into(),
            server_name: Some(format!("name-{i}").into()),
            server: SocketAddr::from(([10, a, b, c], 443)),
            ja4: Some(i.to_string().into()),
            connection: Some(ConnectionId(u64::from(i))),
            certificate: Some(Leaf { subject: i.to_string().into(), not_after: i64::from(i) }),
            ..failure("", u64::from(i), [11, a, b, c])
        };
        summary.add(&entry);
        summary.add(&failure("sni_missing", u64::from(i), [10, 8, 0, 1]));
    }
    assert_eq!((summary.handshakes(), summary.failures()), (40_000, 40_000));
    assert!(summary.clients().len() <= 4096 && summary.clients().forgotten() > 0);
    assert!(summary.verdicts().len() <= MAX_VERDICTS + 1);
    assert!(summary.certificates().iter().count() <= 1024);
    assert!(summary.revisable.len() <= usize::from(MAX_REVISABLE));
    assert!(summary.incidents().list().len() <= MAX_VERDICTS + 65);
    let (client, tally) = summary.clients().failing(1)[0];
    assert_eq!((client.to_string(), tally.failures), ("10.8.0.1".to_owned(), 20_000));
    assert_eq!(tally.top_verdict(), Some(("sni_missing", 20_000)));
}
