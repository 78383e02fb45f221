//! `cargo xtask bench kernel`: what the BPF programs cost a packet, beside an empty program.
//!
//! Two measurements, since each misleads alone. `BPF_PROG_TEST_RUN` times one frame at a time exactly,
//! but its packets are linear and always in the cache. Bulk data over a veth, timed by the kernel's own
//! statistics, has real packets, but only of one kind.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{ProgramArray, RingBuf};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, EbpfLoader};
use tlstrace_common::event::TcpFlags;
use tlstrace_common::symbols;
use tlstrace_peers::{Family, Namespace, Pair, Service, foreign};

use super::table::Table;

/// Nanoseconds per packet of the BPF programs (needs root).
#[derive(Default, clap::Args)]
pub(super) struct Args {
    /// Only how the cost grows with the number of flows and of listeners.
    #[arg(long)]
    scale: bool,
    /// Only the cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

pub(super) fn run(args: &Args) -> Result<Table> {
    let mut table = Table::new("BPF programs, ns per packet", &["above an empty program", "empty program"]);
    let mut ours = Program::load(&fs::read(crate::ebpf::object()?)?, symbols::PROGRAM_IN)?;
    // The measure for programs that do something.
    let nothing = foreign::always(foreign::NEXT_PROGRAM);
    let mut empty = Program::load(&foreign::classifier(OTHER, &nothing)?, OTHER)?;
    let touching = [&READ_ETHER_TYPE[..], &nothing].concat();
    let mut touching = Program::load(&foreign::classifier(OTHER, &touching)?, OTHER)?;
    let mut push = |case: String, ours: Duration, empty: Duration| {
        let nanos = |time: Duration| vec![time.as_secs_f64() * 1e9];
        table.push(case, vec![nanos(ours.saturating_sub(empty)), nanos(empty)]);
    };
    let crowds = if args.scale { SCALE } else { &[NOBODY, FULL] };
    for crowd in crowds {
        let cases = Case::ALL.map(|case| (case, format!("{}{}", case.name(), crowd.name)));
        let mut cases = cases.into_iter().filter(|(_, name)| name.contains(&args.only)).peekable();
        if cases.peek().is_some() {
            ours.fill(crowd)?;
        }
        for (case, name) in cases {
            let floor = empty.minimum(case)?;
            push(name, ours.minimum(case)?, floor);
        }
    }
    if args.scale {
        return Ok(table);
    }
    for (hook, attach_type) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
        let name = format!("bulk TCP over a veth, {hook}");
        if !name.contains(&args.only) {
            continue;
        }
        let times = veth(&mut [&mut empty, &mut touching, &mut ours], attach_type)?;
        let [empty, touching, ours] = times[..] else { unreachable!("a time for each program") };
        push(name, ours, empty);
        push("  a program that reads the EtherType".to_owned(), touching, empty);
    }
    for name in [symbols::PROGRAM_IN, symbols::PROGRAM_SELECT] {
        let info = ours.ebpf.program(name).context("the object lacks a program")?.info()?;
        let (size, walked) = (info.size_translated(), info.verified_instruction_count());
        table.remark(format!(
            "{name}: {} instructions, {} walked by the verifier",
            size.unwrap_or(0) / 8,
            walked.unwrap_or(0)
        ));
    }
    Ok(table)
}

/// Flows that are known while others are measured, and the listeners that they have gone to.
struct Crowd {
    flows: u32,
    listeners: u16,
    name: &'static str,
}

const NOBODY: Crowd = Crowd { flows: 0, listeners: 1, name: "" };
/// As many as the table holds.
const FULL: Crowd = Crowd { flows: 65_536, listeners: 1, name: ", 65,536 flows known" };
const SCALE: &[Crowd] = &[
    NOBODY,
    Crowd { flows: 1024, listeners: 1, name: ", 1,024 flows known" },
    Crowd { flows: 16_384, listeners: 1, name: ", 16,384 flows known" },
    FULL,
    Crowd { flows: 65_536, listeners: 4096, name: ", 65,536 flows known, of 4,096 listeners" },
];
const MTU: &str = "1500";

/// What a packet may be to the program.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Case {
    Udp,
    Acknowledgement,
    Data,
    OwnAcknowledgement,
    Syn,
    ClientHello,
    FastOpen,
}

impl Case {
    const ALL: [Self; 7] = [
        Self::Udp,
        Self::Acknowledgement,
        Self::Data,
        Self::OwnAcknowledgement,
        Self::Syn,
        Self::ClientHello,
        Self::FastOpen,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Acknowledgement => "pure ACK of an established flow",
            Self::Data => "data segment of an established flow",
            Self::OwnAcknowledgement => "segment of a flow in its handshake, no event",
            Self::Syn => "SYN, event",
            Self::ClientHello => "ClientHello of 512 bytes, new flow, event",
            Self::FastOpen => "the same in a SYN, old flow removed",
        }
    }

    fn frame(self) -> Vec<u8> {
        let acked = TcpFlags::ACK;
        match self {
            Self::Udp => {
                let mut frame = segment(ESTABLISHED, 0, 0, 0, &[0; 1000]);
                frame[ETHERNET_LEN + 9] = 17;
                frame
            }
            Self::Acknowledgement => segment(ESTABLISHED, acked, 1, 1, &[]),
            Self::Data => segment(ESTABLISHED, acked, 1, 1, &[0x17; 1400]),
            Self::OwnAcknowledgement => segment(IN_HANDSHAKE, acked, 1, 1, &[]),
            Self::Syn => segment(OPENING, TcpFlags::SYN, 0, 0, &[]),
            Self::ClientHello => segment(OPENING, acked, 1, 1, &client_hello()),
            Self::FastOpen => segment(OPENING, TcpFlags::SYN, 0, 0, &client_hello()),
        }
    }
}

/// Client ports of the flows that the cases are about.
const ESTABLISHED: u32 = 1;
const IN_HANDSHAKE: u32 = 2;
const OPENING: u32 = 3;
const ETHERNET_LEN: usize = 14;
/// Where a frame of `segment` has it.
const DESTINATION_PORT: usize = ETHERNET_LEN + 20 + 2;

/// A loaded program, and what it was loaded with.
struct Program {
    ebpf: Ebpf,
    name: &'static str,
}

impl Program {
    fn load(object: &[u8], name: &'static str) -> Result<Self> {
        let mut program = Self { ebpf: EbpfLoader::new().load(object)?, name };
        program.classifier()?.load()?;
        if let Some(rest) = program.ebpf.program_mut(symbols::PROGRAM_SELECT) {
            let rest: &mut SchedClassifier = rest.try_into()?;
            rest.load()?;
            let rest = rest.fd()?.try_clone()?;
            let array = program.ebpf.map_mut(symbols::SELECT).context("the object lacks an array")?;
            ProgramArray::try_from(array)?.set(0, &rest, 0)?;
        }
        Ok(program)
    }

    fn classifier(&mut self) -> Result<&mut SchedClassifier> {
        Ok(self.ebpf.program_mut(self.name).context("the object lacks the program")?.try_into()?)
    }

    fn pass(&mut self, frame: &[u8], repeat: u32) -> Result<Duration> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        Ok(self.classifier()?.test_run(options)?.duration)
    }

    /// Empties the ring, lest events be lost: that would be cheaper.
    fn drain(&mut self) -> Result<()> {
        if let Some(map) = self.ebpf.map_mut(symbols::EVENTS) {
            let mut ring = RingBuf::try_from(map)?;
            while ring.next().is_some() {}
        }
        Ok(())
    }

    /// The least time that the program took for such a packet, in many batches.
    fn minimum(&mut self, case: Case) -> Result<Duration> {
        let frame = case.frame();
        if case == Case::ClientHello {
            return self.minimum_of_first(&frame);
        }
        self.pass(&segment(IN_HANDSHAKE, TcpFlags::SYN, 0, 0, &[]), 1)?;
        self.pass(&segment(IN_HANDSHAKE, TcpFlags::ACK, 1, 1, &client_hello()), 1)?;
        self.pass(&case.frame(), 1000)?;
        let mut minimum = Duration::MAX;
        for _ in 0..200 {
            self.drain()?;
            minimum = minimum.min(self.pass(&frame, 1000)?);
        }
        Ok(minimum)
    }

    /// The same for a packet that is something special only the first time.
    fn minimum_of_first(&mut self, frame: &[u8]) -> Result<Duration> {
        let mut minimum = Duration::MAX;
        for _ in 0..20_000 {
            self.drain()?;
            self.pass(&segment(OPENING, TcpFlags::SYN, 0, 0, &[]), 1)?;
            minimum = minimum.min(self.pass(frame, 1)?);
        }
        Ok(minimum)
    }

    /// Makes the program follow flows, which are then reset: known, but not in a handshake.
    fn fill(&mut self, crowd: &Crowd) -> Result<()> {
        let hello = client_hello();
        let end = 1 + u32::try_from(hello.len())?;
        for flow in 0..crowd.flows {
            let listener = 443 + u16::try_from(flow % u32::from(crowd.listeners))?;
            for (flags, sequence, acknowledgement, payload) in
                [(TcpFlags::SYN, 0, 0, &[][..]), (TcpFlags::ACK, 1, 1, &hello), (TcpFlags::RST, end, 0, &[])]
            {
                let mut frame = segment(1000 + flow, flags, sequence, acknowledgement, payload);
                frame[DESTINATION_PORT..DESTINATION_PORT + 2].copy_from_slice(&listener.to_be_bytes());
                self.pass(&frame, 1)?;
            }
            self.drain()?;
        }
        Ok(())
    }
}

/// Time per packet of each program on the same hook while data passes it: the least of some rounds, in
/// which they take turns.
fn veth(programs: &mut [&mut Program], hook: TcAttachType) -> Result<Vec<Duration>> {
    let statistics = enable_stats(Stats::RunTime)?;
    let pair = Pair::new()?;
    for (namespace, interface) in
        [(&pair.client, Pair::CLIENT_INTERFACE), (&pair.server, Pair::SERVER_INTERFACE)]
    {
        namespace.ip(&["link", "set", interface, "gso_max_segs", "1"])?;
        namespace.ip(&["link", "set", interface, "mtu", MTU])?;
    }
    let sink = Service::start(&pair.server, 0, |mut stream| {
        let mut buffer = vec![0; 1 << 20];
        while stream.read(&mut buffer).is_ok_and(|len| len != 0) {}
    })?;
    // Where the data passes: it leaves the client and enters the server.
    let (namespace, interface) = match hook {
        TcAttachType::Egress => (&pair.client, Pair::CLIENT_INTERFACE),
        _ => (&pair.server, Pair::SERVER_INTERFACE),
    };
    let mut best = vec![Duration::MAX; programs.len()];
    for _ in 0..ROUNDS {
        for (best, program) in best.iter_mut().zip(&mut *programs) {
            let time = with_attached(program, namespace, interface, hook, || send(&pair, sink.port()))?;
            *best = time.min(*best);
        }
    }
    drop(statistics);
    Ok(best)
}

// Many short ones: what else the machine does hits some of them, and not the least.
const ROUNDS: usize = 60;
const BULK: usize = 16 << 20;

/// Time per packet of a program while `work` runs.
fn with_attached(
    program: &mut Program,
    namespace: &Namespace,
    interface: &str,
    hook: TcAttachType,
    work: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let classifier = program.classifier()?;
    let link = namespace.enter(|| classifier.attach_with_options(interface, hook, options));
    let link = link?;
    let before = classifier.info()?;
    work()?;
    let after = classifier.info()?;
    classifier.detach(link)?;
    program.drain()?;
    let runs = after.run_count() - before.run_count();
    Ok(after.run_time().saturating_sub(before.run_time()) / u32::try_from(runs.max(1))?)
}

fn send(pair: &Pair, port: u16) -> Result<()> {
    let server = (Pair::server_address(Family::Ipv4), port);
    let mut stream = pair.client.enter(|| TcpStream::connect(server))?;
    // TLS records of application data, so that the flow is what it mostly is: none to follow.
    let data = vec![0x17; 1 << 20];
    for _ in 0..BULK >> 20 {
        stream.write_all(&data)?;
    }
    Ok(())
}

const OTHER: &str = "other";

/// Reads the EtherType in place. Whoever reads a packet's header first waits for its cache line, be it a
/// program or the stack behind it.
const READ_ETHER_TYPE: [u8; 48] = [
    0x61, 0x12, 0x4c, 0, 0, 0, 0, 0, // r2 = skb->data
    0x61, 0x13, 0x50, 0, 0, 0, 0, 0, // r3 = skb->data_end
    0xbf, 0x24, 0, 0, 0, 0, 0, 0, // r4 = r2
    0x07, 0x04, 0, 0, 14, 0, 0, 0, // r4 += 14
    0x2d, 0x34, 1, 0, 0, 0, 0, 0, // if r4 > r3 goto +1
    0x69, 0x25, 12, 0, 0, 0, 0, 0, // r5 = *(u16 *)(r2 + 12)
];

/// An Ethernet frame with a TCP segment of the client of flow number `flow`, with the options of Linux.
fn segment(flow: u32, flags: u8, sequence: u32, acknowledgement: u32, payload: &[u8]) -> Vec<u8> {
    let options: &[u8] = if flags & TcpFlags::SYN == 0 {
        &[1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 1]
    } else {
        &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]
    };
    let total_len = u16::try_from(40 + options.len() + payload.len()).unwrap_or(u16::MAX);
    let data_offset = u8::try_from(5 + options.len() / 4).unwrap_or(15);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend(total_len.to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0]);
    frame.extend((flow >> 15).to_be_bytes()[2..].iter());
    frame.extend([10, 255, 0, 2]);
    frame.extend((0x8000 | (flow & 0x7fff)).to_be_bytes()[2..].iter());
    frame.extend(443_u16.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend(acknowledgement.to_be_bytes());
    frame.extend([data_offset << 4, flags, 0x20, 0, 0, 0, 0, 0]);
    frame.extend(options);
    frame.extend(payload);
    frame
}

fn client_hello() -> Vec<u8> {
    let mut bytes = vec![22, 3, 1, 2, 0, 1, 0, 1, 252];
    bytes.resize(5 + 512, 0x5a);
    bytes
}
