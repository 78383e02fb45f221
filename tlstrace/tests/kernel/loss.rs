//! A ring that is too small: every event is either there or counted, and nothing wrong is said.

use std::io::{Read as _, Write as _};

use nix::sys::signal::Signal;
use rustls::{ALL_VERSIONS, StreamOwned};
use serde_json::Value;
use tlstrace_peers::{Family, Pair, Process, rustls_client};

use crate::live::{Live, NAME, PATIENCE, echo, watch_json};
use crate::live_replay::client;

/// Some connections while nobody empties the ring, and some when somebody does again.
const LOSSY: u16 = 40;
const AFTERWARDS: u16 = 6;

#[test]
#[ignore = "needs root"]
fn events_and_losses_add_up_and_what_loss_touched_is_not_judged() {
    let pair = Pair::new().unwrap();
    let mut whole = watch_json(&pair.server, &["-i", Pair::SERVER_INTERFACE]);
    let mut live = Live::on(pair, Family::Ipv4, &["--ring-size", "4096"]);
    let _gateway = live.gateway(&[NAME]);

    live.watch.signal(Signal::SIGSTOP).unwrap();
    for _ in 0..LOSSY {
        connect(&mut live);
    }
    let expected = verdicts(&mut whole, live.client_port - 1);
    live.watch.signal(Signal::SIGCONT).unwrap();
    let first_afterwards = live.client_port;
    // What began before tlstrace knew of the loss might have been touched by it.
    while live.watch.stderr.next(PATIENCE).is_some_and(|line| !line.text.contains("events lost")) {}
    for _ in 0..AFTERWARDS {
        connect(&mut live);
    }
    let last = live.client_port - 1;
    let expected = [expected, verdicts(&mut whole, last)].concat();
    let said = verdicts(&mut live.watch, last);

    for verdict in &said {
        let port = client(verdict).port();
        let id = text(verdict, "/tlstrace/verdict");
        let whole = expected.iter().find(|whole| client(whole).port() == port).unwrap();
        let is_cautious = id == "undetermined" || text(verdict, "/tlstrace/confidence") == "suspected";
        if port >= first_afterwards || !is_cautious {
            assert_eq!(id, text(whole, "/tlstrace/verdict"), "port {port}: {verdict:#}");
        }
    }

    let [lossy, whole] = [&mut live.watch, &mut whole].map(|watch| {
        watch.signal(Signal::SIGINT).unwrap();
        let said = watch.stderr.rest(PATIENCE).unwrap();
        let summary = said.into_iter().rfind(|line| line.contains(" events; ")).unwrap();
        (number_before(&summary, "events;"), number_before(&summary, "events lost"))
    });
    assert_eq!(whole.1, 0);
    assert!(lossy.1 > 100, "{lossy:?}");
    assert_eq!(lossy.0 + lossy.1, whole.0);
}

/// A handshake that succeeds, and one that a gateway refuses, in turn.
fn connect(live: &mut Live) {
    let is_named = live.client_port.is_multiple_of(2);
    // rustls sends no server_name for an IP address.
    let name = if is_named { NAME } else { "192.0.2.1" };
    let config = rustls_client(&live.identity, ALL_VERSIONS, name).unwrap();
    let mut tls = StreamOwned::new(config, live.connect());
    if is_named {
        echo(&mut tls);
    } else {
        let _ = tls.write_all(b"ping").and_then(|()| tls.read_exact(&mut [0; 4]));
    }
    live.client_port += 1;
}

/// All verdicts up to one on the connection from `last`.
fn verdicts(watch: &mut Process, last: u16) -> Vec<Value> {
    let mut verdicts = Vec::<Value>::new();
    while verdicts.last().is_none_or(|verdict| client(verdict).port() != last) {
        let line =
            watch.stdout.next(PATIENCE).unwrap_or_else(|| panic!("no verdict on {last}: {verdicts:#?}"));
        verdicts.push(serde_json::from_str(&line.text).unwrap());
    }
    verdicts
}

fn text<'a>(verdict: &'a Value, pointer: &str) -> &'a str {
    verdict.pointer(pointer).and_then(Value::as_str).unwrap()
}

/// The number in front of `what`; 0 if that does not occur.
fn number_before(summary: &str, what: &str) -> u64 {
    let Some((before, _)) = summary.split_once(what) else { return 0 };
    before.split_whitespace().last().unwrap().parse().unwrap()
}
