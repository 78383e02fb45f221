//! Screens as they were read last, and what keys do.

use std::net::SocketAddr;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::aggregate::Aggregate;
use crate::engine::facts::ConnectionId;
use crate::engine::timestamp::Timestamp;
use crate::entry::{Detail, Details, Entry, Leaf, Timings};
use crate::names::{Ends, Identity, Process, Workload};
use crate::summary::CaptureTotals;
use crate::verdict::Severity;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_795_341_600_000_000_000).after(Duration::from_secs(seconds))
}

fn failure(verdict: &'static str, seconds: u64, server: &str) -> Entry<'static> {
    Entry {
        time: at(seconds),
        verdict: verdict.into(),
        client: SocketAddr::from(([10, 8, 0, u8::try_from(seconds % 40).unwrap()], 40_000)),
        server: server.parse().unwrap(),
        summary: "The client sent no server_name and the server reset the connection 0.3 ms later, without an alert; \
                  with a server_name it accepts."
            .into(),
        ja4: Some("t12i030300_aaaaaaaaaaaa_bbbbbbbbbbbb".into()),
        ..Entry::sample()
    }
}

fn success(seconds: u64, server: &str, name: &'static str) -> Entry<'static> {
    Entry {
        severity: Severity::Info,
        server_name: Some(name.into()),
        timings: Timings { handshake: Some(8000 + seconds % 7 * 1000), ..Timings::default() },
        ..failure("ok", seconds, server)
    }
}

fn details() -> Details<'static> {
    let detail = |name: &'static str, text: &'static str| Detail { name: name.into(), text: text.into() };
    Details {
        evidence: vec![
            detail("client_hello_without_sni", "the ClientHello has no server_name extension"),
            detail("listener_history", "accepted 412 with SNI, 0 of 37 without, in the last 10 min"),
        ],
        warnings: Vec::new(),
        alternatives: vec![detail(
            "proxy_header_missing",
            "a listener that expects a PROXY header resets, too",
        )],
        remedy: Some("Make the client send SNI, or give the listener a default certificate.".into()),
    }
}

const GATEWAY: &str = "10.4.0.9:8443";
const DATABASE: &str = "[2001:db8:4::20]:5432";

/// A gateway that some clients reach without a name, and a database whose certificate has expired.
fn incident() -> State {
    let mut state = State::new(0);
    state.set_source("eth0 (tcx)");
    for second in 0..120 {
        for name in ["api.example.com", "api.example.com", "www.example.com"] {
            state.add(&success(second, GATEWAY, name), Details::default);
        }
        if second >= 60 {
            state.add(&failure("sni_missing", second, GATEWAY), details);
        }
        if second % 10 == 0 {
            let expired = Entry {
                server_name: Some("db.example.com".into()),
                summary: "The server's certificate expired 3 days ago, and the client refused it.".into(),
                certificate: Some(Leaf {
                    subject: "CN=db.example.com".into(),
                    not_after: at(0).as_secs().cast_signed() - 3 * 86_400,
                }),
                ..failure("server_certificate_expired", second, DATABASE)
            };
            state.add(&expired, Details::default);
        }
    }
    state.set_capture(CaptureTotals {
        packets: 12_345,
        tcp: 12_000,
        candidates: Some(900),
        events: Some(850),
        ..CaptureTotals::default()
    });
    state
}

fn key(view: &mut View, model: &Model, code: KeyCode) -> Action {
    view.handle_key(KeyEvent::new(code, KeyModifiers::NONE), model)
}

fn keys(model: &Model, codes: &[KeyCode]) -> View {
    let mut view = View::default();
    for code in codes {
        assert_eq!(key(&mut view, model, *code), Action::Draw);
    }
    view
}

fn drawn(model: &Model, view: &mut View, (width, height): (u16, u16)) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| render(frame, model, view, true)).unwrap();
    terminal.backend().clone()
}

/// What the screen shows after some keys.
fn screen(state: &State, codes: &[KeyCode], size: (u16, u16)) -> TestBackend {
    let model = state.model();
    drawn(&model, &mut keys(&model, codes), size)
}

#[test]
fn screens_are_as_they_were_read_last() {
    let state = incident();
    let model = state.model();
    for (name, codes) in [
        ("home", &[][..]),
        ("listener", &[KeyCode::Enter]),
        ("failure", &[KeyCode::Tab, KeyCode::Enter]),
        ("capture", &[KeyCode::Char('c')]),
        ("help", &[KeyCode::Char('?')]),
    ] {
        for size in [(80, 24), (120, 40)] {
            let screen = drawn(&model, &mut keys(&model, codes), size);
            insta::assert_snapshot!(format!("{name}_{}x{}", size.0, size.1), screen);
        }
    }
}

#[test]
fn losses_come_first_where_there_is_one_line_for_the_capture() {
    let mut state = incident();
    let losses = vec![("events lost: the ring was full".into(), 1234)];
    state.set_capture(CaptureTotals { packets: 5000, losses, ..CaptureTotals::default() });
    let screen = screen(&state, &[], (80, 24)).to_string();
    assert!(screen.contains("LOST      1,234 events lost: the ring was full of 5,000 packets"), "{screen}");
}

#[test]
fn a_screen_without_handshakes_says_why() {
    let mut state = State::new(0);
    state.note("nothing seen for 10 s: no packet passes here: is the traffic on another interface (-i)?");
    let screen = screen(&state, &[], (80, 24)).to_string();
    assert!(
        screen.contains("No handshake was seen yet.") && screen.contains("no packet passes here"),
        "{screen}"
    );
}

#[test]
fn no_size_is_too_small() {
    let model = incident().model();
    for codes in [&[][..], &[KeyCode::Enter], &[KeyCode::Tab, KeyCode::Enter], &[KeyCode::Char('c')]] {
        let heights = [1, 2, 3, 5, 8, 13, 21];
        for size in [1, 2, 9, 25, 60].into_iter().flat_map(|width| heights.map(|height| (width, height))) {
            drawn(&model, &mut keys(&model, codes), size);
        }
    }
}

#[test]
fn who_the_ends_are_is_told_and_can_be_looked_for() {
    let mut state = incident();
    let pod = Identity {
        namespace: Some("apigee".into()),
        pod: Some("ingress-x".into()),
        workload: Some(Workload { kind: "Deployment".into(), name: "ingress".into() }),
        node: Some("node-1".into()),
        ..Identity::default()
    };
    let process = Process { pid: 7, command: "haproxy".into() };
    let client = Identity { process: Some(process), ..Identity::default() };
    let names = Ends { client: Some(client.into()), server: Some(pod.into()) };
    state.add(&Entry { names, ..failure("sni_missing", 119, GATEWAY) }, details);
    let listener = screen(&state, &[KeyCode::Enter], (120, 40)).to_string();
    assert!(listener.contains("apigee/ingress-x, Deployment ingress, on node-1"), "{listener}");
    let failure = screen(&state, &[KeyCode::Tab, KeyCode::Enter], (120, 40)).to_string();
    assert!(failure.contains("haproxy (pid 7)"), "{failure}");
    let found = "/ingress-x".chars().map(KeyCode::Char).chain([KeyCode::Enter]).collect::<Vec<_>>();
    let found = screen(&state, &found, (120, 40)).to_string();
    assert!(found.contains("listeners 1 of 2"), "{found}");
}

#[test]
fn a_line_that_stands_for_many_counts_as_many() {
    let mut state = State::new(0);
    let aggregate = Aggregate {
        start: at(1),
        end: at(10),
        verdict: "ok".into(),
        severity: Severity::Info,
        server: Some(GATEWAY.parse().unwrap()),
        server_name: Some("api.example.com".into()),
        identity: None,
        count: 990,
        handshake: None,
        is_suppressed: false,
    };
    state.add_aggregate(&aggregate);
    let suppressed =
        Aggregate { verdict: "sni_missing".into(), severity: Severity::Error, count: 9, ..aggregate };
    state.add_aggregate(&suppressed);
    state.add(&failure("sni_missing", 10, GATEWAY), details);
    let model = state.model();
    assert_eq!((model.handshakes, model.successes, model.failed), (1000, 990, 10));
    let [gateway] = &*model.listeners else { panic!("{:?}", model.listeners) };
    assert_eq!((gateway.handshakes, gateway.successes, gateway.failures), (1000, 990, 10));
    assert_eq!(gateway.names, [("api.example.com".to_owned(), 999)]);
    assert_eq!(gateway.kinds, [("sni_missing".to_owned(), 10)]);
    let [one] = &*model.failures else { panic!("{:?}", model.failures) };
    assert_eq!(one.count, 1, "of the others nothing is known");
}

#[test]
fn hostile_texts_are_shown_and_do_nothing() {
    let hostile = "\u{1b}]0;x\u{7}\r\n\u{9b}2J\u{202e}evil";
    let mut state = State::new(0);
    let pod = Identity { pod: Some(hostile.into()), ..Identity::default() };
    let entry = Entry {
        verdict: hostile.into(),
        server_name: Some(hostile.into()),
        summary: hostile.into(),
        ja4: Some(hostile.into()),
        names: Ends { client: None, server: Some(pod.into()) },
        certificate: Some(Leaf { subject: hostile.into(), not_after: at(0).as_secs().cast_signed() }),
        ..failure("", 0, GATEWAY)
    };
    let detail = || Detail { name: hostile.into(), text: hostile.into() };
    state.add(&entry, || Details {
        evidence: vec![detail()],
        warnings: vec![detail()],
        alternatives: vec![detail()],
        remedy: Some(hostile.into()),
    });
    state.set_source(hostile);
    state.note(hostile);
    for codes in [&[][..], &[KeyCode::Enter], &[KeyCode::Tab, KeyCode::Enter], &[KeyCode::Char('c')]] {
        let screen = screen(&state, codes, (120, 40));
        let text: String = screen.buffer().content().iter().map(ratatui::buffer::Cell::symbol).collect();
        assert!(text.contains("\\u{1b}]0;x"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
    }
}

#[test]
fn keys_sort_filter_and_reverse() {
    let model = incident().model();
    let order = |codes: &[KeyCode]| {
        let view = keys(&model, codes);
        view.listeners(&model).iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(order(&[]), [GATEWAY, DATABASE], "by failures");
    let by_share = [KeyCode::Char('s'), KeyCode::Char('s')];
    assert_eq!(order(&by_share), [DATABASE, GATEWAY], "by success");
    assert_eq!(order(&[KeyCode::Char('S')]), [DATABASE, GATEWAY], "reversed");
    let typed = |text: &str| {
        let typed = text.chars().map(KeyCode::Char);
        [KeyCode::Char('/')].into_iter().chain(typed).chain([KeyCode::Enter]).collect::<Vec<_>>()
    };
    assert_eq!(order(&typed("DB. expired")), [DATABASE]);
    assert_eq!(order(&typed("nonesuch")), [""; 0]);
    let view = keys(&model, &typed("www"));
    assert_eq!(view.failures(&model).len(), 0, "the filter is for failures, too");
    let cleared = [typed("nonesuch"), vec![KeyCode::Esc]].concat();
    assert_eq!(order(&cleared).len(), 2);
}

#[test]
fn a_selection_stays_with_what_was_selected() {
    let mut state = incident();
    let model = state.model();
    let view = keys(&model, &[KeyCode::Tab, KeyCode::Down]);
    let selected = |model: &Model| {
        let failures = view.failures(model);
        failures[view.selected_failure(&failures)].key.verdict.clone()
    };
    assert_eq!(selected(&model), "server_certificate_expired");
    state.add(&failure("port_closed", 130, GATEWAY), Details::default);
    let model = state.model();
    assert_eq!(model.failures[0].key.verdict, "port_closed");
    assert_eq!(selected(&model), "server_certificate_expired");
}

#[test]
fn whoever_selects_nothing_follows_the_newest() {
    let mut state = incident();
    state.add(&failure("port_closed", 130, GATEWAY), Details::default);
    let model = state.model();
    let view = View::default();
    let failures = view.failures(&model);
    assert_eq!(failures[view.selected_failure(&failures)].key.verdict, "port_closed");
}

#[test]
fn keys_ask_for_what_a_view_cannot_do() {
    let model = incident().model();
    let mut view = View::default();
    assert_eq!(key(&mut view, &model, KeyCode::Char('q')), Action::Quit);
    assert_eq!(key(&mut view, &model, KeyCode::Char('z')), Action::Reset);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.handle_key(interrupt, &model), Action::Quit);
    key(&mut view, &model, KeyCode::Char('/'));
    assert_eq!(key(&mut view, &model, KeyCode::Char('q')), Action::Draw, "it is being typed");
    assert_eq!(view.handle_key(interrupt, &model), Action::Quit);
}

#[test]
fn a_revision_takes_the_place_of_what_it_replaces() {
    let mut state = State::new(0);
    let said = |revision, replaces: Option<&'static str>, entry: Entry<'static>| Entry {
        connection: Some(ConnectionId(7)),
        revision,
        replaces: replaces.map(Into::into),
        ..entry
    };
    state.add(&said(0, None, success(0, GATEWAY, "a.example")), Details::default);
    let named =
        Entry { server_name: Some("a.example".into()), ..failure("client_certificate_missing", 1, GATEWAY) };
    state.add(&said(1, Some("ok"), named.clone()), Details::default);
    let model = state.model();
    let listener = &model.listeners[0];
    assert_eq!(
        (model.handshakes, listener.handshakes, listener.failures, model.failures.len()),
        (1, 1, 1, 1)
    );
    let better = Entry { verdict: "client_certificate_expired".into(), ..named };
    state.add(&said(2, Some("client_certificate_missing"), better), Details::default);
    let model = state.model();
    assert_eq!(
        model.failures.iter().map(|f| (&*f.key.verdict, f.count)).collect::<Vec<_>>(),
        [("client_certificate_expired", 1)]
    );
    let cells = model.cells(&model.all, series::Span::Minute, 1);
    assert_eq!((cells[0].handshakes, cells[0].failures), (1, 1));
}

#[test]
fn counting_begins_anew_where_it_is_asked_for() {
    let mut state = incident();
    state.reset();
    let model = state.model();
    assert_eq!((model.handshakes, model.listeners.len(), model.failures.len()), (0, 0, 0));
    assert_eq!(model.since, Some(at(119)));
    assert!(model.capture.is_some(), "it was not the capture that was asked about");
}

#[test]
fn whatever_comes_it_stays_bounded() {
    let mut state = State::new(0);
    for i in 0..20_000_u32 {
        let [_, a, b, c] = i.to_be_bytes();
        let entry = Entry {
            server: SocketAddr::from(([10, a, b, c], 443)),
            server_name: Some(format!("{i}.example").into()),
            ..failure("sni_missing", u64::from(i) / 100, GATEWAY)
        };
        state.add(&entry, Details::default);
        state.add(&Entry { server: GATEWAY.parse().unwrap(), ..entry }, Details::default);
        state.note("again");
    }
    let model = state.model();
    assert!(model.listeners.len() <= crate::summary::MAX_KEYS && model.forgotten > 0);
    assert_eq!((model.failures.len(), model.notes.len()), (512, 100));
    let gateway = model.listeners.iter().find(|listener| listener.address.to_string() == GATEWAY).unwrap();
    assert_eq!((gateway.failures, gateway.names.len()), (20_000, 16));
}
