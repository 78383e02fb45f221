//! Frames in, events out: what the BPF programs select, skip, copy and leave behind.

use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr};

use tlstrace_common::choice::{Choice, EXCLUDED, LISTED};
use tlstrace_common::config::Control;
use tlstrace_common::event::{Notes, TcpFlags, TcpOptions};
use tlstrace_common::link::Start;
use tlstrace_common::skip::Counter;
use tlstrace_common::{flow, limits, packet, symbols};

use crate::frame::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, Frame, GRE, HANDSHAKE, Network, UDP, client_hello, message,
    record, server_hello,
};
use crate::harness::{Connection, Programs};

fn open() -> Connection {
    Connection::open(Programs::load(), Network::v4())
}

#[test]
#[ignore = "needs root"]
fn a_connection_that_opens_gives_the_three_segments_of_its_handshake() {
    for network in [Network::v4(), Network::v6()] {
        let mut connection = Connection::closed(Programs::load(), network);
        connection.client.tcp_options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        let events = connection.connect();
        let [syn, syn_ack, ack] = &events[..] else { panic!("{events:?}") };
        assert_eq!(syn.header.tcp_flags, TcpFlags::SYN);
        assert_eq!(syn.header.tcp_options, TcpOptions::MSS | TcpOptions::TIMESTAMPS);
        assert_eq!(syn.header.source_port, 40_000);
        assert_eq!(syn.header.destination_port, 443);
        assert_eq!(syn.header.hop_limit, 64);
        assert_eq!(syn.header.window, 0x2000);
        assert_eq!(syn_ack.header.tcp_flags, TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!(syn_ack.header.source, syn.header.destination);
        assert_eq!(syn_ack.header.tcp_options, 0);
        assert!(syn_ack.header.timestamp_ns > syn.header.timestamp_ns);
        assert_eq!((ack.header.tcp_flags, ack.header.payload_len), (TcpFlags::ACK, 0));
    }
}

/// What every packet pays for, and every start: these figures repeat exactly on one kernel, as times do not.
#[test]
#[ignore = "needs root"]
fn the_programs_do_not_grow_unnoticed() {
    let mut programs = Programs::load();
    for (program, most, most_walked) in [
        (symbols::PROGRAM_IN, 800, 12_000),
        (symbols::PROGRAM_OUT, 800, 12_000),
        (symbols::PROGRAM_L3_IN, 800, 12_000),
        (symbols::PROGRAM_L3_OUT, 800, 12_000),
        (symbols::PROGRAM_SELECT, 5_000, 55_000),
        (symbols::PROGRAM_TAP, 100, 1_000),
        (symbols::PROGRAM_L3_TAP, 100, 1_000),
        (symbols::PROGRAM_TAP_SELECT, 5_000, 55_000),
    ] {
        let (instructions, walked) = programs.size(program);
        assert!(instructions <= most && walked <= most_walked, "{program}: {instructions}, {walked} walked");
    }
}

/// No time by itself: the ratio to a packet that is let go at its EtherType, with room for any machine. On one it is 2.
#[test]
#[ignore = "needs root"]
fn what_is_no_candidate_costs_little_more_than_what_is_no_ip() {
    const MOST: u32 = 10;
    let mut connection = Connection::open(Programs::load(), Network::v4());
    let frame = connection.client.clone();
    let arp = [&[0xff; 6][..], &[2; 6], &[0x08, 0x06], &[0; 46]].concat();
    let floor = connection.programs.least_time(symbols::PROGRAM_IN, &arp);
    let mut of_nobody = frame.clone();
    of_nobody.payload = vec![0x17; 1000];
    for (what, frame) in [
        ("an ACK of a flow that is not followed", Frame { source_port: 50_000, ..frame.clone() }),
        ("data of a flow that is not followed", Frame { source_port: 50_000, ..of_nobody }),
    ] {
        let time = connection.programs.least_time(symbols::PROGRAM_IN, &frame.bytes());
        assert!(connection.programs.events().is_empty(), "{what}");
        assert!(time <= floor * MOST, "{what}: {time:?}, no IP: {floor:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_client_hello_is_copied_whole_whatever_is_in_front_of_it() {
    let options = vec![0, 1, 4, 0, 0, 0, 0];
    let mut long_v4 = Network::v4();
    if let Network::V4 { options, .. } = &mut long_v4 {
        *options = vec![1; 8];
    }
    let mut long_v6 = Network::v6();
    if let Network::V6 { extensions, .. } = &mut long_v6 {
        let routing = [&[2, 0, 0][..], &[0; 20]].concat();
        let atomic_fragment = vec![0, 0, 0, 0, 0, 0, 7];
        let authentication = [&[4, 0, 0][..], &[1; 20]].concat();
        *extensions = vec![
            (0, options.clone()),
            (60, options),
            (43, routing),
            (44, atomic_fragment),
            (51, authentication),
        ];
    }
    let vlans = [vec![], vec![(0x8100, 7)], vec![(0x88a8, 5), (0x8100, 9)]];
    for network in [Network::v4(), Network::v6(), long_v4, long_v6] {
        for vlans in &vlans {
            let mut connection = Connection::closed(Programs::load(), network.clone());
            connection.client.vlans.clone_from(vlans);
            connection.server.vlans.clone_from(vlans);
            connection.connect();
            let hello = client_hello(512);
            let events = connection.client_sends(&hello);
            let [event] = &events[..] else {
                panic!("{network:?} {vlans:?} {:?}", connection.programs.counts())
            };
            assert_eq!(event.whole(), hello);
            assert_eq!(event.header.notes, 0);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn an_interface_without_ethernet_has_programs_of_its_own() {
    let mut programs = Programs::load();
    for network in [Network::v4(), Network::v6()] {
        let syn = Frame { flags: TcpFlags::SYN, has_ethernet: false, ..Frame::new(network) };
        for (program, direction) in [(symbols::PROGRAM_L3_IN, 0), (symbols::PROGRAM_L3_OUT, 1)] {
            let events = programs.run_bytes(program, &syn.bytes());
            let [event] = &events[..] else { panic!("{:?}", programs.counts()) };
            assert_eq!(event.header.tcp_flags, TcpFlags::SYN);
            assert_eq!(event.header.kind, direction);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn the_filter_of_a_packet_socket_gives_the_events_of_the_classifier() {
    let mut routed = Network::v6();
    if let Network::V6 { extensions, .. } = &mut routed {
        *extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0])];
    }
    for network in [Network::v4(), Network::v6(), routed] {
        let (mut classifier, mut filter) = (Programs::load(), Programs::load());
        let client = Frame { tcp_options: vec![1; 12], ..Frame::new(network) };
        let server = Frame { sequence: 9, ..client.swapped() };
        let hello = client_hello(700);
        let after = client.sequence.wrapping_add(1 + u32::try_from(hello.len()).unwrap());
        let frames = [
            Frame { flags: TcpFlags::SYN, ..client.clone() },
            Frame { flags: TcpFlags::SYN | TcpFlags::ACK, ..server.clone() },
            Frame { sequence: client.sequence.wrapping_add(1), payload: hello, ..client.clone() },
            Frame { sequence: 10, acknowledgement: after, payload: server_hello(90), ..server.clone() },
            Frame { flags: TcpFlags::RST, sequence: after, ..client.clone() },
        ];
        for frame in frames {
            let mut events = classifier.run(&frame);
            // Here the kernel hides the Ethernet header from a socket filter.
            let mut others = filter.run_bytes(symbols::PROGRAM_L3_TAP, &frame.bytes());
            for event in events.iter_mut().chain(&mut others) {
                event.header.timestamp_ns = 0;
            }
            let [event, other] = [events, others].map(|events| {
                let [event] = &events[..] else { panic!("{frame:?}: {events:?}") };
                (event.header, event.chunks.clone())
            });
            assert_eq!(event, other);
        }
        assert_eq!(classifier.counts(), filter.counts());
    }
}

#[test]
#[ignore = "needs root"]
fn a_client_hello_in_two_segments_is_copied_whole_wherever_it_is_split() {
    let hello = client_hello(64);
    let mut connection = open();
    for split in 1..hello.len() {
        connection.client.source_port += 1;
        connection.server.destination_port += 1;
        connection.connect();
        let first = connection.client_sends(&hello[..split]);
        let second = connection.client_sends(&hello[split..]);
        assert_eq!(first[0].whole(), &hello[..split], "split at {split}");
        assert_eq!(second[0].whole(), &hello[split..], "split at {split}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_client_hello_in_single_bytes_is_copied_whole() {
    let mut connection = open();
    let hello = client_hello(200);
    let copied: Vec<u8> =
        hello.iter().flat_map(|byte| connection.client_sends(&[*byte])[0].whole().to_vec()).collect();
    assert_eq!(copied, hello);
}

#[test]
#[ignore = "needs root"]
fn a_client_hello_in_records_of_a_few_bytes_is_copied_whole() {
    let mut connection = open();
    let hello: Vec<u8> = message(1, 80).chunks(3).flat_map(|part| record(HANDSHAKE, part)).collect();
    let events = connection.client_sends(&hello);
    assert_eq!(events[0].whole(), hello);
    assert_eq!(events[0].header.notes, 0);
}

#[test]
#[ignore = "needs root"]
fn connections_with_the_same_hash_are_told_apart() {
    let mut one = open();
    let mut other = (one.client.clone(), one.server.clone());
    let turn = |connection: &mut Connection, other: &mut (Frame, Frame)| {
        mem::swap(&mut connection.client, &mut other.0);
        mem::swap(&mut connection.server, &mut other.1);
    };
    // The sum of the ports is all that the hash has of them.
    (other.0.source_port, other.0.destination_port) = (32_000, 8443);
    (other.1.source_port, other.1.destination_port) = (8443, 32_000);
    let hash = |frame: &Frame| flow::hash(&packet::walk(&&frame.bytes()[..], Start::Ethernet).unwrap());
    assert_eq!(hash(&one.client), hash(&other.0));
    let hello = client_hello(512);
    let (first, rest) = hello.split_at(200);
    assert_eq!(one.client_sends(first)[0].whole(), first);
    turn(&mut one, &mut other);
    one.connect();
    assert_eq!(one.client_sends(first)[0].whole(), first);
    for _ in 0..2 {
        turn(&mut one, &mut other);
        let event = &one.client_sends(rest)[0];
        assert_eq!((event.whole(), event.header.notes), (rest, 0));
        assert_eq!(one.server_sends(&server_hello(80))[0].header.notes, 0);
    }
    assert_eq!(one.programs.count(Counter::FlowsFollowed), 2);
}

#[test]
#[ignore = "needs root"]
fn tcp_options_are_recognised_with_and_without_a_payload_in_whatever_order() {
    let timestamps = [8, 10, 0, 0, 0, 2, 0, 0, 0, 1];
    let selective = [5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let cases = [
        (vec![], 0),
        ([&[1, 1][..], &timestamps].concat(), TcpOptions::TIMESTAMPS),
        ([&timestamps[..], &[1, 1]].concat(), TcpOptions::TIMESTAMPS),
        ([&[1, 1][..], &timestamps, &[1, 1], &selective].concat(), TcpOptions::TIMESTAMPS | TcpOptions::SACK),
        // The length that goes with the timestamps' is another option's.
        (vec![1, 1, 9, 10, 0, 0, 0, 2, 0, 0, 0, 1], 0),
        // The option ends behind the header.
        (vec![1, 1, 8, 10], 0),
        (vec![1; 40], 0),
    ];
    for (options, expected) in cases {
        for payload in [client_hello(4), client_hello(512)] {
            let mut connection = open();
            connection.client.tcp_options.clone_from(&options);
            let events = connection.client_sends(&payload);
            assert_eq!(events[0].header.tcp_options, expected, "{options:?}");
            assert_eq!(events[0].whole(), payload);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_tls_1_3_handshake_gives_hellos_and_the_headers_of_encrypted_records() {
    let mut connection = open();
    connection.client_sends(&client_hello(300));
    let mut flight = server_hello(90);
    let hello_len = flight.len();
    flight.extend(record(CHANGE_CIPHER_SPEC, &[1]));
    flight.extend(record(APPLICATION_DATA, &[0xee; 700]));
    flight.extend(record(APPLICATION_DATA, &[0xee; 60]));
    let events = connection.server_sends(&flight);
    let [event] = &events[..] else { panic!("{:?}", connection.programs.counts()) };
    // Hello, ChangeCipherSpec and the first encrypted record's header are next to each other.
    let start = hello_len + 6 + 5;
    assert_eq!(event.chunks[&0], flight[..start]);
    let second = u32::try_from(start + 700).unwrap();
    assert_eq!(event.chunks[&second], flight[start + 700..start + 705]);
    assert_eq!(event.chunks.len(), 2);
    assert_eq!(event.header.notes, 0);
}

#[test]
#[ignore = "needs root"]
fn of_messages_that_hold_secrets_or_signatures_only_the_beginning_is_copied() {
    for (message_type, copied) in [(4, 4), (15, 4), (16, 4), (12, 8), (11, 104), (14, 104)] {
        let mut connection = open();
        let payload = record(HANDSHAKE, &message(message_type, 100));
        let events = connection.client_sends(&payload);
        assert_eq!(events[0].chunks[&0], payload[..5 + copied], "message type {message_type}");
        assert_eq!(events[0].chunks.len(), 1);
    }
}

#[test]
#[ignore = "needs root"]
fn after_change_cipher_spec_only_hellos_are_copied() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    let mut flight = record(CHANGE_CIPHER_SPEC, &[1]);
    let second_hello = client_hello(150);
    flight.extend(&second_hello);
    let events = connection.client_sends(&flight);
    assert_eq!(events[0].whole(), flight, "a second ClientHello after HelloRetryRequest");

    let mut connection = open();
    connection.client_sends(&client_hello(100));
    let mut flight = record(CHANGE_CIPHER_SPEC, &[1]);
    flight.extend(record(HANDSHAKE, &[1; 40]));
    let events = connection.client_sends(&flight);
    assert_eq!(events[0].chunks[&0], flight[..6 + 5], "an encrypted Finished");
}

#[test]
#[ignore = "needs root"]
fn an_alert_is_copied_if_it_is_a_cleartext_one() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    let alert = record(ALERT, &[2, 40]);
    assert_eq!(connection.server_sends(&alert)[0].whole(), alert);
    let encrypted = record(ALERT, &[0xee; 26]);
    assert_eq!(connection.server_sends(&encrypted)[0].chunks[&0], encrypted[..5]);
}

#[test]
#[ignore = "needs root"]
fn data_of_a_flow_that_was_open_before_us_emits_nothing() {
    let mut connection = Connection::closed(Programs::load(), Network::v4());
    connection.client.flags = TcpFlags::ACK;
    connection.server.flags = TcpFlags::ACK;
    assert!(connection.client_sends(&record(APPLICATION_DATA, &[1; 100])).is_empty());
    assert!(connection.server_sends(&client_hello(100)).is_empty());
    assert!(connection.client_sends(&[]).is_empty());
    assert_eq!(connection.programs.counts(), [(Counter::Established, 3)]);
}

#[test]
#[ignore = "needs root"]
fn while_warming_up_a_client_hello_is_enough_to_be_followed() {
    let mut connection = Connection::closed(Programs::load(), Network::v4());
    connection.programs.set_control(Control { warm_up: 1, ..Control::default() });
    connection.client.flags = TcpFlags::ACK;
    connection.server.flags = TcpFlags::ACK;
    connection.server_sends(&[]);
    assert!(connection.client_sends(b"GET / HTTP/1.1\r\n").is_empty());
    let hello = client_hello(100);
    assert_eq!(connection.client_sends(&hello)[0].whole(), hello);
    let answer = server_hello(100);
    assert_eq!(connection.server_sends(&answer)[0].whole(), answer);
}

#[test]
#[ignore = "needs root"]
fn what_is_not_tcp_over_ip_is_counted_by_its_reason() {
    let mut programs = Programs::load();
    let mut arp = vec![0xff; 12];
    arp.extend([0x08, 0x06]);
    arp.extend([0; 28]);
    let Network::V4 { source, destination, .. } = Network::v4() else { unreachable!() };
    let v4 = |fragment, protocol| {
        let network = Network::V4 { source, destination, options: Vec::new(), fragment, protocol };
        Frame { flags: TcpFlags::SYN, ..Frame::new(network) }.bytes()
    };
    let Network::V4 { source, destination, .. } = Network::v4() else { unreachable!() };
    let network = Network::V4 { source, destination, options: Vec::new(), fragment: 0, protocol: UDP };
    let vxlan = Frame { destination_port: 8472, ..Frame::new(network) }.bytes();
    let Network::V6 { source, destination, .. } = Network::v6() else { unreachable!() };
    let v6 = |extensions| {
        let network = Network::V6 { source, destination, extensions, protocol: 6 };
        Frame { flags: TcpFlags::SYN, ..Frame::new(network) }.bytes()
    };
    let destination_options = (60, vec![0, 1, 4, 0, 0, 0, 0]);
    let cases = [
        (arp, Counter::NotIp),
        (v4(0, UDP), Counter::NotTcp),
        (vxlan, Counter::Encapsulated),
        (v4(0, GRE), Counter::Encapsulated),
        (v4(0x2000, 6), Counter::Fragment),
        (v4(0x0010, 6), Counter::Fragment),
        (v6(vec![(44, vec![0, 0, 1, 0, 0, 0, 7])]), Counter::Fragment),
        (v6(vec![(44, vec![0, 0, 8, 0, 0, 0, 7])]), Counter::Fragment),
        (v6(vec![destination_options; 9]), Counter::TooManyExtensionHeaders),
    ];
    for (bytes, counter) in cases {
        let before = programs.count(counter);
        assert!(programs.run_bytes(symbols::PROGRAM_IN, &bytes).is_empty());
        assert_eq!(programs.count(counter), before + 1, "{counter:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn lengths_that_lie_are_counted_and_never_lead_to_bytes_outside_the_segment() {
    let mut programs = Programs::load();
    let syn = Frame { flags: TcpFlags::SYN, ..Frame::new(Network::v4()) };
    for frame in [
        Frame { ip_len: Some(19), ..syn.clone() },
        Frame { ip_len: Some(39), ..syn.clone() },
        Frame { data_offset: Some(4), ..syn.clone() },
        Frame { data_offset: Some(6), ..syn.clone() },
    ] {
        let before = programs.count(Counter::BadLength);
        assert!(programs.run(&frame).is_empty(), "{frame:?}");
        assert_eq!(programs.count(Counter::BadLength), before + 1, "{frame:?}");
    }

    // Of a segment that a link has padded, the padding is no payload.
    let mut connection = open();
    connection.client.padding = 30;
    let hello = client_hello(40);
    assert_eq!(connection.client_sends(&hello)[0].whole(), hello);

    // BIG TCP states no length, and a length beyond the packet is none.
    for ip_len in [0, 0xffff] {
        let mut connection = open();
        connection.client.ip_len = Some(ip_len);
        assert_eq!(connection.client_sends(&hello)[0].whole(), hello);
    }

    // A record may end in a later segment, or never.
    let mut connection = open();
    let mut lie = client_hello(40);
    lie[3..5].copy_from_slice(&0x4000_u16.to_be_bytes());
    assert_eq!(connection.client_sends(&lie)[0].whole(), lie);
}

#[test]
#[ignore = "needs root"]
fn no_prefix_of_a_frame_gives_more_than_its_bytes() {
    for network in [Network::v4(), Network::v6()] {
        let mut connection = open();
        connection.client.network = network;
        connection.client.payload = client_hello(60);
        connection.client.vlans = vec![(0x8100, 7)];
        connection.client.tcp_options = vec![1; 12];
        let frame = connection.client.bytes();
        let header_len = connection.client.header_len();
        // The kernel takes no test frame shorter than an Ethernet header.
        for len in 14..=frame.len() {
            let events = connection.programs.run_bytes(symbols::PROGRAM_IN, &frame[..len]);
            for event in &events {
                // Cut where the payload begins, it is an acknowledgement.
                assert!(len >= header_len);
                for (offset, bytes) in &event.chunks {
                    let start = header_len + *offset as usize;
                    assert_eq!(bytes[..], frame[start..start + bytes.len()]);
                }
            }
        }
        let lost = connection.programs.count(Counter::Truncated);
        assert!(lost > 20, "{:?}", connection.programs.counts());
    }
}

#[test]
#[ignore = "needs root"]
fn a_reset_and_a_close_are_reported_with_or_without_a_handshake() {
    let mut connection = Connection::closed(Programs::load(), Network::v4());
    connection.client.flags = TcpFlags::SYN;
    connection.programs.run(&connection.client);
    let refused = Frame { flags: TcpFlags::RST | TcpFlags::ACK, sequence: 0, ..connection.server.clone() };
    assert_eq!(connection.programs.run(&refused).len(), 1, "a closed port");

    let mut connection = open();
    connection.client_sends(&client_hello(100));
    connection.server.flags = TcpFlags::RST | TcpFlags::ACK;
    let events = connection.server_sends(&[]);
    assert_eq!(events[0].header.tcp_flags, TcpFlags::RST | TcpFlags::ACK);

    let mut connection = open();
    connection.client_sends(&client_hello(100));
    connection.server.flags = TcpFlags::FIN | TcpFlags::ACK;
    let alert = record(ALERT, &[2, 80]);
    let events = connection.server_sends(&alert);
    assert_eq!(events[0].whole(), alert);
    assert_eq!(events[0].header.tcp_flags, TcpFlags::FIN | TcpFlags::ACK);

    // A reset of a connection that nobody follows is no news.
    let mut programs = Programs::load();
    let stray = Frame { flags: TcpFlags::RST, ..Frame::new(Network::v4()) };
    assert!(programs.run(&stray).is_empty());
    assert_eq!(programs.counts(), [(Counter::Established, 1)]);
}

#[test]
#[ignore = "needs root"]
fn the_gate_closes_when_a_connection_is_reset_and_opens_for_the_next_one() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    connection.server.flags = TcpFlags::RST | TcpFlags::ACK;
    connection.server_sends(&[]);
    let before = connection.programs.count(Counter::Established);
    assert!(connection.client_sends(&client_hello(100)).is_empty());
    assert_eq!(connection.programs.count(Counter::Established), before + 1);

    // The same ports again.
    connection.client.sequence = 0x7000_0000;
    connection.server.sequence = 0x6000_0000;
    assert_eq!(connection.connect().len(), 3);
    let hello = client_hello(100);
    assert_eq!(connection.client_sends(&hello)[0].whole(), hello);
}

#[test]
#[ignore = "needs root"]
fn the_gate_closes_when_both_ends_have_finished_but_not_by_a_fin_elsewhere_in_the_window() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    // What the server sends behind two such FINs is looked at, or not.
    let mut is_open_after = |shift: u32| {
        for frame in [&connection.client, &connection.server] {
            let fin = Frame {
                flags: TcpFlags::FIN | TcpFlags::ACK,
                sequence: frame.sequence.wrapping_add(shift),
                ..frame.clone()
            };
            connection.programs.run(&fin);
        }
        !connection.server_sends(&server_hello(90)).is_empty()
    };
    assert!(is_open_after(1000));
    assert!(!is_open_after(0));
}

#[test]
#[ignore = "needs root"]
fn acknowledgements_of_an_unfinished_handshake_are_reported_and_then_no_more() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    let mut reported = 0;
    for _ in 0..100 {
        reported += connection.server_sends(&[]).len();
    }
    assert_eq!(reported, usize::from(limits::MAX_ACKNOWLEDGEMENTS));
    assert!(connection.programs.count(Counter::Repetitive) > 0);
}

#[test]
#[ignore = "needs root"]
fn a_retransmission_is_reported_without_its_bytes_and_an_overlap_with_its_new_ones() {
    let mut connection = open();
    let hello = client_hello(100);
    connection.client_sends(&hello[..60]);
    connection.client.sequence = connection.client.sequence.wrapping_sub(60);
    let events = connection.client_sends(&hello[..60]);
    assert!(events[0].has_note(Notes::RETRANSMISSION));
    assert!(events[0].chunks.is_empty());

    connection.client.sequence = connection.client.sequence.wrapping_sub(20);
    let events = connection.client_sends(&hello[40..]);
    assert_eq!(events[0].chunks[&20], hello[60..]);
    assert_eq!(events[0].chunks.len(), 1);

    // A keep-alive repeats one byte that was acknowledged long ago.
    connection.client.sequence = connection.client.sequence.wrapping_sub(1);
    assert!(connection.client_sends(&[0]).is_empty());
}

#[test]
#[ignore = "needs root"]
fn a_hole_inside_a_record_does_not_end_the_framing_and_is_filled_when_it_comes() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    let mut flight = server_hello(90);
    flight.extend(record(HANDSHAKE, &message(11, 2000)));
    flight.extend(record(HANDSHAKE, &message(14, 0)));
    connection.server_sends(&flight[..500]);
    // The segment from 500 to 1000 is lost, and sent again after the one behind it.
    let start = connection.server.sequence;
    connection.server.sequence = start.wrapping_add(500);
    let events = connection.server_sends(&flight[1000..]);
    assert_eq!(events[0].whole(), &flight[1000..]);
    connection.server.sequence = start;
    let events = connection.server_sends(&flight[500..1000]);
    assert_eq!(events[0].whole(), &flight[500..1000]);
}

#[test]
#[ignore = "needs root"]
fn behind_a_hole_over_a_record_boundary_nothing_is_copied() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    let mut flight = server_hello(90);
    flight.extend(record(APPLICATION_DATA, &[0xee; 400]));
    flight.extend(record(APPLICATION_DATA, &[0xee; 400]));
    connection.server.sequence = connection.server.sequence.wrapping_add(300);
    let events = connection.server_sends(&flight[300..]);
    assert!(events[0].has_note(Notes::UNFRAMED));
    assert!(events[0].chunks.is_empty());
    assert_eq!(connection.programs.count(Counter::Unframed), 1);
}

#[test]
#[ignore = "needs root"]
fn a_client_hello_whose_segments_change_places_is_not_taken_for_something_else() {
    let mut connection = open();
    let hello = client_hello(400);
    let start = connection.client.sequence;
    connection.client.sequence = start.wrapping_add(200);
    let events = connection.client_sends(&hello[200..]);
    assert!(events[0].has_note(Notes::UNFRAMED));
    connection.client.sequence = start;
    let events = connection.client_sends(&hello[..200]);
    assert_eq!(events[0].whole(), &hello[..200]);
}

#[test]
#[ignore = "needs root"]
fn plain_http_gives_sixteen_bytes_per_direction() {
    let mut connection = open();
    let request = b"GET /secret-path HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let events = connection.client_sends(request);
    assert_eq!(events[0].chunks[&0], request[..16]);
    assert!(events[0].has_note(Notes::NOT_TLS));
    let response = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    let events = connection.server_sends(response);
    assert_eq!(events[0].chunks[&0], response[..16]);
    let mut reported = 0;
    for _ in 0..200 {
        for event in connection.client_sends(b"more of the secret") {
            assert!(event.chunks.is_empty());
            reported += 1;
        }
    }
    assert_eq!(reported, limits::MAX_NOT_TLS_REPORTED - 2);
    assert_eq!(connection.programs.count(Counter::FlowsFinished), 1);
    assert!(connection.programs.count(Counter::Established) > 0, "the gate has closed");
}

#[test]
#[ignore = "needs root"]
fn tls_after_starttls_is_found() {
    let mut connection = open();
    connection.server_sends(b"220 mail.example.com ESMTP\r\n");
    connection.client_sends(b"STARTTLS\r\n");
    connection.server_sends(b"220 2.0.0 Ready to start TLS\r\n");
    let hello = client_hello(200);
    let events = connection.client_sends(&hello);
    assert_eq!(events[0].whole(), hello);
    assert!(!events[0].has_note(Notes::NOT_TLS));
    let answer = server_hello(90);
    assert_eq!(connection.server_sends(&answer)[0].whole(), answer);
}

#[test]
#[ignore = "needs root"]
fn a_proxy_header_is_copied_without_its_type_length_values_and_tls_is_found_behind_it() {
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n".to_vec();
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x40".to_vec();
    binary.extend([0x11; 36]);
    binary.extend([0x55; 28]);
    for (header, copied) in [(line.clone(), line.len()), (binary, 52)] {
        let hello = client_hello(100);
        let together: Vec<u8> = header.iter().chain(&hello).copied().collect();
        let event = open().client_sends(&together).remove(0);
        let mut chunks: Vec<u8> = event.chunks.values().flatten().copied().collect();
        assert_eq!(chunks.split_off(copied), hello);
        assert_eq!(chunks, header[..copied]);

        let mut connection = open();
        connection.client_sends(&header);
        assert_eq!(connection.client_sends(&hello)[0].whole(), hello);
    }
}

#[test]
#[ignore = "needs root"]
fn a_client_hello_in_the_format_of_ssl_2_is_copied() {
    let mut hello = vec![0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16];
    hello.extend(vec![7; 37]);
    assert_eq!(open().client_sends(&hello)[0].whole(), hello);
}

#[test]
#[ignore = "needs root"]
fn data_in_a_syn_is_copied() {
    let mut connection = Connection::closed(Programs::load(), Network::v4());
    let hello = client_hello(100);
    let syn = Frame { flags: TcpFlags::SYN, payload: hello.clone(), ..connection.client.clone() };
    let events = connection.programs.run(&syn);
    assert_eq!(events[0].whole(), hello);
    // What the server did not take comes again, behind the SYN.
    connection.client.sequence = connection.client.sequence.wrapping_add(1);
    connection.client.flags = TcpFlags::ACK;
    let events = connection.client_sends(&hello);
    assert!(events[0].has_note(Notes::RETRANSMISSION));
}

#[test]
#[ignore = "needs root"]
fn the_same_packet_on_another_hook_is_skipped() {
    let mut connection = open();
    connection.client.payload = client_hello(100);
    let frame = connection.client.bytes();
    assert_eq!(connection.programs.run_bytes(symbols::PROGRAM_IN, &frame).len(), 1);
    assert!(connection.programs.run_bytes(symbols::PROGRAM_OUT, &frame).is_empty());
    assert_eq!(connection.programs.count(Counter::OtherInterface), 1);
}

#[test]
#[ignore = "needs root"]
fn a_flow_is_finished_when_application_data_of_tls_1_2_was_seen_both_ways() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    connection.server_sends(&server_hello(80));
    for _ in 0..2 {
        let mut flight = record(CHANGE_CIPHER_SPEC, &[1]);
        flight.extend(record(HANDSHAKE, &[0xee; 40]));
        connection.client_sends(&flight);
        mem::swap(&mut connection.client, &mut connection.server);
    }
    let data = record(APPLICATION_DATA, &[0xee; 300]);
    let events = connection.client_sends(&data);
    assert_eq!(events[0].chunks[&0], data[..5]);
    assert!(events[0].has_note(Notes::LAST));
    assert!(connection.client_sends(&data).is_empty());
    assert!(connection.server_sends(&data)[0].has_note(Notes::LAST));
    assert_eq!(connection.programs.count(Counter::FlowsFinished), 1);
    let before = connection.programs.count(Counter::Established);
    assert!(connection.server_sends(&data).is_empty());
    assert_eq!(connection.programs.count(Counter::Established), before + 1, "the gate has closed");
}

#[test]
#[ignore = "needs root"]
fn a_flow_of_tls_1_3_is_finished_after_its_budget_of_encrypted_records() {
    let mut connection = open();
    connection.client_sends(&client_hello(100));
    connection.server_sends(&server_hello(80));
    let data = record(APPLICATION_DATA, &[0xee; 300]);
    for _ in 0..limits::ENOUGH_ENCRYPTED_RECORDS {
        assert_eq!(connection.client_sends(&data).len(), 1);
    }
    for index in 1..=limits::MAX_ENCRYPTED_RECORDS {
        let events = connection.server_sends(&data);
        assert_eq!(events[0].has_note(Notes::LAST), index == limits::MAX_ENCRYPTED_RECORDS);
    }
    assert!(connection.server_sends(&data).is_empty());
    assert_eq!(connection.programs.count(Counter::FlowsFinished), 1);
}

#[test]
#[ignore = "needs root"]
fn nothing_secret_leaves_the_kernel() {
    const MARKER: &[u8] = b"confidential marker of the application";
    let mut raw = Vec::new();
    let mut keep = |events: Vec<crate::harness::Event>| raw.extend(events.into_iter().map(|event| event.raw));

    // TLS, with the marker in encrypted records, in one segment and in parts.
    for part in [usize::MAX, 100, 7, 1] {
        let mut connection = open();
        let mut flight = client_hello(100);
        flight.extend(record(CHANGE_CIPHER_SPEC, &[1]));
        for content_type in [APPLICATION_DATA, HANDSHAKE, ALERT, 24, APPLICATION_DATA] {
            flight.extend(record(content_type, &MARKER.repeat(8)));
        }
        for segment in flight.chunks(part.min(flight.len())) {
            keep(connection.client_sends(segment));
        }
    }
    // Application data after a segment was lost.
    let mut connection = open();
    keep(connection.client_sends(&client_hello(100)));
    connection.client.sequence = connection.client.sequence.wrapping_add(1000);
    for _ in 0..10 {
        keep(connection.client_sends(&MARKER.repeat(10)));
    }
    // What claims to be TLS, and is not.
    let mut connection = open();
    let mut pretender = client_hello(20);
    pretender.extend(MARKER.repeat(10));
    keep(connection.client_sends(&pretender));
    keep(connection.client_sends(&MARKER.repeat(10)));
    // A plain POST, and a connection that was open before us.
    let mut connection = open();
    let mut post = b"POST /form HTTP/1.1\r\n\r\n".to_vec();
    post.extend(MARKER.repeat(10));
    keep(connection.client_sends(&post));
    keep(connection.client_sends(&MARKER.repeat(10)));

    assert!(raw.len() > 20);
    for event in raw {
        for window in MARKER.windows(6) {
            assert!(!event.windows(6).any(|bytes| bytes == window), "{}", String::from_utf8_lossy(&event));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn what_does_not_fit_into_the_ring_is_counted_exactly_and_the_flow_says_so() {
    let mut programs = Programs::with_ring(4096);
    let frames = 200;
    for port in 0..frames {
        let syn = Frame { source_port: 10_000 + port, flags: TcpFlags::SYN, ..Frame::new(Network::v4()) };
        programs.pass(symbols::PROGRAM_IN, &syn.bytes());
    }
    let received = u64::try_from(programs.events().len()).unwrap();
    assert_eq!(programs.count(Counter::Events), received);
    assert_eq!(programs.count(Counter::RingFull), u64::from(frames) - received);
    assert!(programs.count(Counter::RingFull) > 0);

    let mut connection = Connection::open(programs, Network::v4());
    for _ in 0..100 {
        connection.client.payload = client_hello(100);
        connection.programs.pass(symbols::PROGRAM_IN, &connection.client.bytes());
        connection.client.sequence = connection.client.sequence.wrapping_add(109);
    }
    connection.programs.events();
    let events = connection.client_sends(&client_hello(100));
    assert!(events[0].has_note(Notes::LOSS_BEFORE));
    let events = connection.client_sends(&client_hello(100));
    assert!(!events[0].has_note(Notes::LOSS_BEFORE));
}

#[test]
#[ignore = "needs root"]
fn a_flood_of_syns_evicts_no_handshake_in_progress() {
    const FLOOD: u32 = 200_000;
    const HANDSHAKES: u16 = 1000;
    let mut programs = Programs::load();
    let (hello, answer) = (client_hello(300), server_hello(90));
    let client =
        |handshake| Frame { source_port: 10_000 + handshake, sequence: 7, ..Frame::new(Network::v4()) };
    for handshake in 0..HANDSHAKES {
        let client = client(handshake);
        programs.run(&Frame { flags: TcpFlags::SYN, ..client.clone() });
        let server = Frame { flags: TcpFlags::SYN | TcpFlags::ACK, acknowledgement: 8, ..client.swapped() };
        programs.run(&server);
        let segment =
            Frame { sequence: 8, acknowledgement: 8, flags: TcpFlags::ACK, payload: hello.clone(), ..client };
        assert_eq!(programs.run(&segment)[0].whole(), hello);
    }

    let mut reported = 0;
    for number in 0..FLOOD {
        let network = Network::v4_from(198, number, [10, 0, 0, 2]);
        let syn = Frame { sequence: number, flags: TcpFlags::SYN, ..Frame::new(network) };
        programs.pass(symbols::PROGRAM_IN, &syn.bytes());
        if number % 1000 == 999 {
            reported += programs.events().len();
        }
    }
    // None was left out: the flood is what the programs take it for.
    assert_eq!(u32::try_from(reported), Ok(FLOOD), "{:?}", programs.counts());

    let in_order = |handshake| {
        let server = client(handshake).swapped();
        let len = u32::try_from(hello.len()).unwrap();
        Frame {
            sequence: 8,
            acknowledgement: 8 + len,
            flags: TcpFlags::ACK,
            payload: answer.clone(),
            ..server
        }
    };
    for handshake in 0..HANDSHAKES {
        let events = programs.run(&in_order(handshake));
        let [event] = &events[..] else { panic!("{handshake}: {:?}", programs.counts()) };
        assert_eq!((event.whole(), event.header.notes), (&answer[..], 0), "{handshake}");
    }
    assert_eq!(programs.count(Counter::FlowsFollowed), u64::from(HANDSHAKES));
}

#[test]
#[ignore = "needs root"]
fn a_sleeping_consumer_is_told_once() {
    let mut connection = open();
    connection.programs.set_control(Control { consumer_sleeping: 1, ..Control::default() });
    connection.client_sends(&client_hello(100));
    assert_eq!(connection.programs.control().consumer_sleeping, 0);
}

/// What is chosen by which networks, and whether the connection over the network is.
type Case<'a> = (Choice, &'a [(u32, Ipv6Addr, u32)], &'a Network, bool);

/// Opens so many connections one after the other, each with a ClientHello, and says of how many there was an event.
fn seen(programs: &mut Programs, network: &Network, port: u16, count: u16) -> u16 {
    let mut is_seen = |source_port| {
        let client = Frame { source_port, destination_port: port, ..Frame::new(network.clone()) };
        let server = client.swapped();
        let (next, isn) = (client.sequence.wrapping_add(1), server.sequence);
        let frames = [
            Frame { flags: TcpFlags::SYN, ..client.clone() },
            Frame { flags: TcpFlags::SYN | TcpFlags::ACK, acknowledgement: next, ..server },
            Frame {
                sequence: next,
                acknowledgement: isn.wrapping_add(1),
                payload: client_hello(300),
                ..client
            },
        ];
        let events: usize = frames.iter().map(|frame| programs.run(frame).len()).sum();
        assert!(events == 0 || events == frames.len(), "{events} events");
        events > 0
    };
    u16::try_from(
        (0..count).map(|flow| is_seen(port.wrapping_mul(61) + flow)).filter(|is_seen| *is_seen).count(),
    )
    .unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_connection_with_another_port_is_left_out_from_its_beginning() {
    for network in [Network::v4(), Network::v6()] {
        let mut programs = Programs::choosing(Choice { by_port: 1, ..Choice::ANY }, &[443, 8443], &[]);
        assert_eq!(seen(&mut programs, &network, 443, 20), 20);
        assert_eq!(seen(&mut programs, &network, 8443, 20), 20);
        // One a second is let through, to tell where else there is TLS.
        let others = seen(&mut programs, &network, 444, 20);
        assert!((1..=2).contains(&others), "{others}");
        assert_eq!(programs.count(Counter::LeftOut), 2 * u64::from(20 - others), "SYN, and SYN and ACK");
        assert_eq!(programs.count(Counter::Established), u64::from(20 - others));
        // Of either end.
        let from_443 = Frame { source_port: 443, destination_port: 9, ..Frame::new(network.clone()) };
        assert_eq!(programs.run(&Frame { flags: TcpFlags::SYN, ..from_443 }).len(), 1);
    }
}

#[test]
#[ignore = "needs root"]
fn a_connection_to_another_server_is_left_out_from_its_beginning() {
    let mapped = |address: [u8; 4]| Ipv4Addr::from(address).to_ipv6_mapped();
    let server_of = |network: &Network| match network {
        Network::V4 { destination, .. } => mapped(*destination),
        Network::V6 { destination, .. } => Ipv6Addr::from(*destination),
    };
    let client_of = |network: &Network| match network {
        Network::V4 { source, .. } => mapped(*source),
        Network::V6 { source, .. } => Ipv6Addr::from(*source),
    };
    let (v4, v6) = (Network::v4(), Network::v6());
    let only = Choice { by_server: Choice::ONLY_LISTED, ..Choice::ANY };
    let all_but = Choice { by_server: Choice::ALL_BUT_EXCLUDED, ..Choice::ANY };
    let (ten, all) = (mapped([10, 0, 0, 0]), Ipv6Addr::UNSPECIFIED);
    let cases: [Case<'_>; 10] = [
        (only, &[(104, ten, LISTED)], &v4, true),
        (only, &[(104, ten, LISTED)], &v6, false),
        (only, &[(128, server_of(&v6), LISTED)], &v6, true),
        // The client's address is not the server's, not in the answer either.
        (only, &[(128, client_of(&v6), LISTED)], &v6, false),
        (only, &[(104, ten, LISTED), (128, server_of(&v4), EXCLUDED)], &v4, false),
        (only, &[(96, mapped([0; 4]), LISTED)], &v4, true),
        (all_but, &[(128, server_of(&v4), EXCLUDED)], &v4, false),
        (all_but, &[(128, client_of(&v4), EXCLUDED)], &v4, true),
        (all_but, &[(128, server_of(&v4), EXCLUDED)], &v6, true),
        (all_but, &[(0, all, EXCLUDED)], &v6, false),
    ];
    for (choice, networks, network, is_chosen) in cases {
        let mut programs = Programs::choosing(choice, &[], networks);
        let seen = seen(&mut programs, network, 443, 20);
        let as_it_should = if is_chosen { seen == 20 } else { (1..=2).contains(&seen) };
        assert!(as_it_should, "{choice:?} {networks:?} {network:?}: {seen}");
    }
}
