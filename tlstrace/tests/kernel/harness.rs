//! Runs frames through the BPF programs (`BPF_PROG_TEST_RUN`), and reads what comes out of the ring.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::{Program, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use tlstrace_common::choice::{Choice, Ports};
use tlstrace_common::config::Control;
use tlstrace_common::event::{self, SegmentHeader, TcpFlags};
use tlstrace_common::skip::Counter;
use tlstrace_common::symbols;

use crate::frame::{Frame, Network};

static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tlstrace-ebpf/object/tlstrace.bpf.o"));

/// What a classifier returns that leaves the packet to the rest of the chain.
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// What a socket filter returns that lets the socket have nothing of the packet.
const KEEP_NOTHING: u32 = 0;

/// The loaded programs, with rings and tables of their own.
pub(crate) struct Programs {
    ebpf: Ebpf,
}

/// An event, with its chunks by offset.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) header: SegmentHeader,
    pub(crate) chunks: BTreeMap<u32, Vec<u8>>,
    pub(crate) raw: Vec<u8>,
}

impl Event {
    /// The bytes of a payload of which everything was copied.
    pub(crate) fn whole(&self) -> &[u8] {
        let bytes = self.chunks.get(&0).unwrap_or_else(|| panic!("no chunk at 0: {self:?}"));
        assert_eq!(bytes.len(), self.header.payload_len as usize);
        bytes
    }

    pub(crate) fn has_note(&self, note: u8) -> bool {
        self.header.notes & note != 0
    }
}

impl Programs {
    pub(crate) fn load() -> Self {
        Self::with_ring(1 << 22)
    }

    /// With a ring of so many bytes.
    pub(crate) fn with_ring(bytes: u32) -> Self {
        Self { ebpf: EbpfLoader::new().map_max_entries(symbols::EVENTS, bytes).load(OBJECT).unwrap() }
    }

    /// That leave out connections.
    pub(crate) fn choosing(choice: Choice, chosen: &[u16], networks: &[(u32, Ipv6Addr, u32)]) -> Self {
        let mut ports = Ports::NONE;
        for port in chosen {
            ports.insert(*port);
        }
        let mut ebpf = EbpfLoader::new()
            .override_global(symbols::CHOICE, &choice, true)
            .override_global(symbols::PORTS, &ports, true)
            .map_max_entries(symbols::SERVERS, 8)
            .load(OBJECT)
            .unwrap();
        let mut servers =
            LpmTrie::<_, [u8; 16], u32>::try_from(ebpf.map_mut(symbols::SERVERS).unwrap()).unwrap();
        for (prefix, address, kind) in networks {
            servers.insert(&Key::new(*prefix, address.octets()), kind, 0).unwrap();
        }
        Self { ebpf }
    }

    /// Runs one frame through the ingress program of Ethernet interfaces.
    pub(crate) fn run(&mut self, frame: &Frame) -> Vec<Event> {
        self.run_bytes(symbols::PROGRAM_IN, &frame.bytes())
    }

    /// Runs bytes through a program and reads the events that this gave.
    pub(crate) fn run_bytes(&mut self, program: &str, bytes: &[u8]) -> Vec<Event> {
        self.pass(program, bytes);
        self.events()
    }

    /// Runs bytes through a program and leaves the events in the ring.
    pub(crate) fn pass(&mut self, program: &str, bytes: &[u8]) {
        self.pass_often(program, bytes, 1);
    }

    /// The least time per packet, of many batches of many runs each, that a program took for bytes that give no event.
    pub(crate) fn least_time(&mut self, program: &str, bytes: &[u8]) -> Duration {
        (0..100).map(|_| self.pass_often(program, bytes, 1000)).min().unwrap()
    }

    fn pass_often(&mut self, program: &str, bytes: &[u8], times: u32) -> Duration {
        let (rest, array) = match self.ebpf.program(program).unwrap() {
            Program::SchedClassifier(_) => (symbols::PROGRAM_SELECT, symbols::SELECT),
            _ => (symbols::PROGRAM_TAP_SELECT, symbols::TAP_SELECT),
        };
        self.verify(program);
        self.verify(rest);
        let rest = self.ebpf.program(rest).unwrap().fd().unwrap().try_clone().unwrap();
        let array = self.ebpf.map_mut(array).unwrap();
        ProgramArray::try_from(array).unwrap().set(0, &rest, 0).unwrap();
        let options = TestRunOptions { data_in: Some(bytes), repeat: times, ..TestRunOptions::new() };
        let (result, expected) = match self.ebpf.program_mut(program).unwrap() {
            Program::SchedClassifier(classifier) => (classifier.test_run(options), TC_ACT_UNSPEC),
            Program::SocketFilter(filter) => (filter.test_run(options), KEEP_NOTHING),
            other => panic!("{program} is a {:?}", other.prog_type()),
        };
        let result = result.unwrap();
        assert_eq!(result.return_value, expected);
        result.duration
    }

    fn verify(&mut self, program: &str) {
        match self.ebpf.program_mut(program).unwrap() {
            Program::SchedClassifier(classifier) if classifier.fd().is_err() => {
                classifier.load().unwrap();
            }
            Program::SocketFilter(filter) if filter.fd().is_err() => {
                filter.load().unwrap();
            }
            _ => {}
        }
    }

    /// How many instructions a program has, and how many the verifier walked.
    pub(crate) fn size(&mut self, program: &str) -> (u32, u32) {
        self.verify(program);
        let info = self.ebpf.program(program).unwrap().info().unwrap();
        (info.size_translated().unwrap() / 8, info.verified_instruction_count().unwrap())
    }

    /// Takes all events out of the ring.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut ring = RingBuf::try_from(self.ebpf.map_mut(symbols::EVENTS).unwrap()).unwrap();
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            let event::Event::Segment(event) = event::decode(&item).unwrap() else {
                panic!("not a segment: {:x?}", &*item)
            };
            let chunks = event.chunks().map(|(offset, bytes)| (offset, bytes.to_vec())).collect();
            events.push(Event { header: event.header, chunks, raw: item.to_vec() });
        }
        events
    }

    /// A counter's sum over all CPUs.
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        let counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.ebpf.map(symbols::COUNTERS).unwrap()).unwrap();
        counters.get(&(counter as u32), 0).unwrap().iter().sum()
    }

    /// All counters that are not 0.
    pub(crate) fn counts(&self) -> Vec<(Counter, u64)> {
        let counts = Counter::ALL.into_iter().map(|counter| (counter, self.count(counter)));
        counts.filter(|(_, count)| *count != 0).collect()
    }

    pub(crate) fn set_control(&mut self, control: Control) {
        let mut map: Array<_, Control> =
            Array::try_from(self.ebpf.map_mut(symbols::CONTROL).unwrap()).unwrap();
        map.set(0, control, 0).unwrap();
    }

    pub(crate) fn control(&mut self) -> Control {
        let map: Array<_, Control> = Array::try_from(self.ebpf.map_mut(symbols::CONTROL).unwrap()).unwrap();
        map.get(&0, 0).unwrap()
    }
}

/// A TCP connection whose segments are passed through the programs one by one.
pub(crate) struct Connection {
    pub(crate) programs: Programs,
    /// Headers of the client's next segment, and of the server's.
    pub(crate) client: Frame,
    pub(crate) server: Frame,
}

impl Connection {
    /// A connection after its three-way handshake, of which the events are dropped.
    pub(crate) fn open(programs: Programs, network: Network) -> Self {
        let mut connection = Self::closed(programs, network);
        connection.connect();
        connection
    }

    /// A connection that nobody has begun yet.
    pub(crate) fn closed(programs: Programs, network: Network) -> Self {
        let client = Frame { sequence: 0xffff_ff00, ..Frame::new(network) };
        let server = Frame { sequence: 0x1000_0000, ..client.swapped() };
        Self { programs, client, server }
    }

    pub(crate) fn connect(&mut self) -> Vec<Event> {
        self.client.flags = TcpFlags::SYN;
        let mut events = self.programs.run(&self.client);
        self.client.sequence = self.client.sequence.wrapping_add(1);
        self.server.acknowledgement = self.client.sequence;
        self.server.flags = TcpFlags::SYN | TcpFlags::ACK;
        events.extend(self.programs.run(&self.server));
        self.server.sequence = self.server.sequence.wrapping_add(1);
        self.client.acknowledgement = self.server.sequence;
        self.client.flags = TcpFlags::ACK;
        self.server.flags = TcpFlags::ACK;
        events.extend(self.programs.run(&self.client));
        events
    }

    /// The client sends a segment with this payload.
    pub(crate) fn client_sends(&mut self, payload: &[u8]) -> Vec<Event> {
        self.client.payload = payload.to_vec();
        let events = self.programs.run(&self.client);
        self.client.payload.clear();
        self.client.sequence = self.client.sequence.wrapping_add(u32::try_from(payload.len()).unwrap());
        self.server.acknowledgement = self.client.sequence;
        events
    }

    /// The server sends a segment with this payload.
    pub(crate) fn server_sends(&mut self, payload: &[u8]) -> Vec<Event> {
        self.server.payload = payload.to_vec();
        let events = self.programs.run(&self.server);
        self.server.payload.clear();
        self.server.sequence = self.server.sequence.wrapping_add(u32::try_from(payload.len()).unwrap());
        self.client.acknowledgement = self.server.sequence;
        events
    }
}
