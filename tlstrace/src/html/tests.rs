use std::time::Duration;

use super::*;
use crate::engine::facts::ConnectionId;
use crate::engine::timestamp::Timestamp;
use crate::entry::{Detail, Leaf, Timings};
use crate::verdict::{Confidence, Severity};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_795_341_600_000_000_000).after(Duration::from_secs(seconds))
}

fn success(seconds: u64) -> Entry<'static> {
    let millis = 10 + seconds % 10;
    Entry {
        time: at(seconds),
        severity: Severity::Info,
        verdict: "ok".into(),
        server_name: Some("api.example.com".into()),
        certificate: Some(Leaf {
            subject: "CN=api.example.com".into(),
            not_after: at(20 * 86_400).as_secs().cast_signed(),
        }),
        timings: Timings {
            tcp_rtt: Some(1000 * millis),
            server_hello: Some(400),
            handshake: Some(1000 * millis + 2000),
            ..Timings::default()
        },
        ..Entry::sample()
    }
}

fn failure(seconds: u64) -> Entry<'static> {
    Entry { time: at(seconds), summary: "It was reset.".into(), ..Entry::sample() }
}

/// Counts entries as `watch` and `report` do.
fn page(entries: &[Entry<'_>], details: &Details<'_>, lines: Option<Lines>) -> String {
    let (mut summary, mut material) = (Summary::default(), Material::default());
    for entry in entries {
        summary.add(entry);
        material.add(entry, || details.clone());
    }
    let totals = CaptureTotals {
        packets: 48_123_001,
        tcp: 47_000_000,
        losses: vec![("events lost".into(), 7)],
        ..CaptureTotals::default()
    };
    let captures = [Capture { hostname: Some("node-1".into()), totals }];
    let captures = if lines.is_some() { &[][..] } else { &captures };
    Page { summary: &summary, material: &material, captures, lines, offset: 0 }.to_html()
}

/// Everything but tags, in lines; pictures are left out.
fn text(page: &str) -> String {
    let body = page.split_once("</style>").unwrap().1;
    let without_pictures = body.split("<svg").map(|part| part.rsplit("</svg>").next().unwrap());
    let mut text = String::new();
    for part in without_pictures.collect::<String>().split('<') {
        let (tag, after) = part.split_once('>').unwrap_or(("", part));
        let inline = ["code", "/code", "strong", "/strong", "span", "/span"];
        let ends_line = !inline.iter().any(|name| tag.split(' ').next() == Some(name));
        if ends_line && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(after);
    }
    text
}

#[test]
fn an_incident_reads_from_its_headline_to_what_the_capture_missed() {
    let details = Details {
        evidence: vec![Detail { name: "client_hello_without_sni".into(), text: "none was there".into() }],
        remedy: Some("Send a name.".into()),
        ..Details::default()
    };
    let mut entries: Vec<_> = (0..300).map(success).collect();
    entries.extend((60..90).map(failure));
    entries.push(Entry { is_whole: false, verdict: "port_closed".into(), ..failure(200) });
    insta::assert_snapshot!(text(&page(&entries, &details, None)));
}

#[test]
fn nothing_that_peers_chose_becomes_markup() {
    let hostile = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;\u{202e}moc\u{1b}[2J";
    let entry = Entry {
        server_name: Some(hostile.into()),
        verdict: hostile.into(),
        ja4: Some(hostile.into()),
        certificate: Some(Leaf { subject: hostile.into(), not_after: 0 }),
        summary: hostile.into(),
        ..failure(0)
    };
    let items = || vec![Detail { name: hostile.into(), text: hostile.into() }];
    let details =
        Details { evidence: items(), warnings: items(), alternatives: items(), remedy: Some(hostile.into()) };
    let page = page(&[entry], &details, None);
    assert!(page.matches("&lt;script&gt;alert(1)").count() > 8, "{page}");
    for markup in ["<script", "<img", "\u{202e}", "\u{1b}"] {
        assert!(!page.contains(markup), "{markup:?} in {page}");
    }
    assert_eq!(page.matches("</style>").count(), 1);
    // In an attribute, a quote would end it.
    let tags = page.split('<').filter_map(|part| part.split_once('>').map(|(tag, _)| tag));
    assert!(tags.clone().all(|tag| !tag.contains("onerror")), "{page}");
}

#[test]
fn nothing_is_fetched_and_only_our_style_applies() {
    let page = page(&[failure(0), success(1)], &Details::default(), None);
    for attribute in ["src=", "href=", "url(", "@import", "style=", "http://", "https://"] {
        assert!(!page.contains(attribute), "{attribute}");
    }
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let digest = BASE64_STANDARD.encode(Sha256::digest(style));
    assert!(page.contains(&format!("default-src 'none'; style-src 'sha256-{digest}'")), "{page}");
}

#[test]
fn lines_without_a_success_do_not_make_all_handshakes_fail() {
    let lines = Some(Lines { read: 12, foreign: 2, filtered: 0 });
    let saved = text(&page(&[failure(0), failure(1)], &Details::default(), lines));
    assert!(saved.contains("2 of 2 failures: sni_missing"), "{saved}");
    assert!(saved.contains("shares are of what was saved") && !saved.contains("of handshakes"), "{saved}");
    assert!(saved.contains("12 lines read, 2 of them not of tlstrace"), "{saved}");
    let live = text(&page(&[failure(0), failure(1)], &Details::default(), None));
    assert!(live.contains("100.0 % of handshakes"), "{live}");
}

#[test]
fn no_failure_and_nothing_at_all_are_said() {
    let all_well = page(&[success(0), success(1)], &Details::default(), None);
    assert!(text(&all_well).contains("No failure among 2 handshakes"), "{all_well}");
    let nothing = page(&[], &Details::default(), None);
    assert!(text(&nothing).contains("No handshake was judged"), "{nothing}");
}

#[test]
fn the_case_that_is_shown_is_the_surest_and_of_such_the_first() {
    let case = |seconds, confidence, summary: &'static str| Entry {
        confidence,
        summary: summary.into(),
        ..failure(seconds)
    };
    let entries = [
        case(0, Confidence::Suspected, "It was guessed."),
        case(9, Confidence::Observed, "It was seen later."),
        case(5, Confidence::Observed, "It was seen first."),
    ];
    let page = page(&entries, &Details::default(), None);
    assert!(page.contains("It was seen first.") && !page.contains("guessed") && !page.contains("later"));
}

#[test]
fn a_report_is_small_whatever_it_is_made_of() {
    let long = "x".repeat(5000);
    let entries = (0..20_000_u32).map(|number| Entry {
        verdict: format!("{number}{long}").into(),
        summary: long.clone().into(),
        client: ([10, 0, number.to_be_bytes()[2], number.to_be_bytes()[3]], 1).into(),
        server_name: Some(format!("{number}.example").into()),
        connection: Some(ConnectionId(number.into())),
        ..failure(u64::from(number) * 100)
    });
    let (mut summary, mut material) = (Summary::default(), Material::default());
    for entry in entries {
        summary.add(&entry);
        material.add(&entry, || Details { remedy: Some((&*long).into()), ..Details::default() });
    }
    let page = Page { summary: &summary, material: &material, captures: &[], lines: None, offset: 0 };
    let page = page.to_html();
    assert!(page.len() < 4 << 20, "{} bytes", page.len());
}

#[test]
fn numbers_and_durations_are_as_people_write_them() {
    let number = |number| Number(number).render().into_string();
    assert_eq!([0, 999, 1000, 48_123_001].map(number), ["0", "999", "1,000", "48,123,001"]);
    let span = |micros| Span(Duration::from_micros(micros)).to_string();
    let spans = [0, 999, 1234, 12_345, 1_500_000, 150_000_000].map(span);
    assert_eq!(spans, ["0 µs", "999 µs", "1.2 ms", "12 ms", "1.5 s", "2.5 min"]);
    assert_eq!(Percent(1, 3).to_string(), "33.33%");
    assert_eq!(Percent(u64::MAX, u64::MAX).to_string(), "100.00%");
}
