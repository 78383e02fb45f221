//! Beside other people's programs: who is on the hooks decides where tlstrace goes, and nobody notices that it is
//! there or that it was.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::Path;
use std::thread;

use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier};
use aya::sys::{Stats, enable_stats};
use nix::sys::signal::Signal;
use tlstrace_peers::{Family, Pair, Process, Service, foreign};

use crate::live::{Live, NAME, PATIENCE, PORT, clsact_filters, tcx_programs};
use crate::skip;

/// Somebody else's program on both directions of the server's interface. It lets every packet pass, and ends the
/// chain of programs there.
struct Foreign {
    ebpf: Ebpf,
    name: &'static str,
}

impl Foreign {
    fn attach(pair: &Pair, name: &'static str, options: impl Fn() -> TcAttachOptions + Send + Sync) -> Self {
        let object = foreign::classifier(name, &foreign::always(foreign::END_OF_CHAIN)).unwrap();
        let mut ebpf = Ebpf::load(&object).unwrap();
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        pair.server.enter(|| {
            for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                program.attach_with_options(Pair::SERVER_INTERFACE, direction, options()).unwrap();
            }
        });
        Self { ebpf, name }
    }

    /// First in the chain, as of now.
    fn on_tcx(pair: &Pair, name: &'static str) -> Self {
        Self::attach(pair, name, || TcAttachOptions::TcxOrder(LinkOrder::first()))
    }

    /// Where an automatic handle at the first priority comes to be: Cilium's own place.
    fn on_clsact(pair: &Pair, name: &'static str) -> Self {
        pair.server.enter(|| qdisc_add_clsact(Pair::SERVER_INTERFACE)).unwrap();
        Self::attach(pair, name, || {
            TcAttachOptions::Netlink(NlOptions { priority: 1, handle: TcHandle::new(0, 1), classid: None })
        })
    }

    /// How often it ran while statistics were kept.
    fn runs(&mut self) -> u64 {
        let program: &mut SchedClassifier = self.ebpf.program_mut(self.name).unwrap().try_into().unwrap();
        program.info().unwrap().run_count()
    }
}

/// tlstrace on the server's interface, and what it said up to the moment from which it watches.
fn watched(pair: Pair, arguments: &[&str]) -> (Live, String) {
    let mut said = Vec::new();
    let live = Live::watched_by(pair, Family::Ipv4, |pair| {
        let mut command = pair.server.command(Path::new(env!("CARGO_BIN_EXE_tlstrace")));
        command.args(["watch", "-o", "json", "--all", "-i", Pair::SERVER_INTERFACE]).args(arguments);
        let mut watch = Process::spawn(&mut command).unwrap();
        while !said.last().is_some_and(|line: &String| line.starts_with("watching ")) {
            let line = watch.stderr.next(PATIENCE);
            said.push(line.unwrap_or_else(|| panic!("tlstrace does not watch: {said:#?}")).text);
        }
        watch
    });
    (live, said.join("\n"))
}

/// A connection that must have its verdict.
fn sees_a_connection(live: &mut Live) {
    let _gateway = live.gateway(&[NAME]);
    live.openssl_client(&["-noservername"]);
    live.verdict("sni_missing");
    live.client_port += 1;
}

#[test]
#[ignore = "needs root"]
fn a_tcx_program_that_ends_the_chain_hides_nothing_and_loses_nothing() {
    let pair = Pair::new().unwrap();
    if tcx_programs(&pair).is_none() {
        return skip("this kernel has no TCX (Linux 6.6)");
    }
    let mut foreign = Foreign::on_tcx(&pair, "policy");
    let (mut live, said) = watched(pair, &[]);
    assert!(said.contains("(tcx, first in the chain)"), "{said}");
    assert!(said.contains("policy"), "{said}");
    let statistics = enable_stats(Stats::RunTime).unwrap();
    let before = foreign.runs();
    sees_a_connection(&mut live);
    drop(statistics);
    // A handshake of TCP, a ClientHello and its end.
    assert!(foreign.runs() - before >= 5, "{}", foreign.runs());
    live.stop();
    assert_eq!(tcx_programs(&live.pair), Some(2), "the other program is where it was, and ours is not");
}

#[test]
#[ignore = "needs root"]
fn where_cilium_has_the_hooks_a_packet_socket_is_used_unless_the_user_says_otherwise() {
    let pair = Pair::new().unwrap();
    if tcx_programs(&pair).is_none() {
        return skip("this kernel has no TCX (Linux 6.6)");
    }
    let _foreign = Foreign::on_tcx(&pair, "cil_from_netdev");
    let (mut live, said) = watched(pair, &[]);
    assert!(said.contains("packet socket") && said.contains("cil_from_netdev"), "{said}");
    assert_eq!(tcx_programs(&live.pair), Some(2), "only the other's");
    sees_a_connection(&mut live);
    live.stop();

    let Live { pair, .. } = live;
    let (mut live, said) = watched(pair, &["--attach", "tcx"]);
    assert!(said.contains("(tcx, first in the chain)"), "{said}");
    assert_eq!(tcx_programs(&live.pair), Some(4));
    sees_a_connection(&mut live);
    live.stop();
    assert_eq!(tcx_programs(&live.pair), Some(2));
}

#[test]
#[ignore = "needs root"]
fn a_clsact_filter_of_somebody_else_stays_after_our_exit_and_after_our_death() {
    let pair = Pair::new().unwrap();
    let _foreign = Foreign::on_clsact(&pair, "agent");
    let alone = clsact_filters(&pair);
    assert!(alone.contains("pref 1 bpf") && alone.contains("handle 0x1 agent"), "{alone}");

    let (mut live, _) = watched(pair, &["--attach", "clsact"]);
    sees_a_connection(&mut live);
    live.stop();
    assert_eq!(clsact_filters(&live.pair), alone, "after the exit");

    let Live { pair, .. } = live;
    let (mut live, _) = watched(pair, &["--attach", "clsact"]);
    live.watch.signal(Signal::SIGKILL).unwrap();
    live.watch.wait(PATIENCE).unwrap();
    assert_ne!(
        clsact_filters(&live.pair),
        alone,
        "a filter outlives its owner: there must be something to sweep"
    );

    let Live { pair, .. } = live;
    let (mut live, _) = watched(pair, &["--attach", "clsact"]);
    sees_a_connection(&mut live);
    live.stop();
    assert_eq!(clsact_filters(&live.pair), alone, "after the sweep of the next run");
}

#[test]
#[ignore = "needs root"]
fn a_packet_socket_puts_nothing_on_the_hooks() {
    let (mut live, said) = watched(Pair::new().unwrap(), &["--attach", "packet"]);
    assert!(said.contains("(packet socket)"), "{said}");
    assert_eq!((tcx_programs(&live.pair).unwrap_or(0), clsact_filters(&live.pair).as_str()), (0, ""));
    sees_a_connection(&mut live);
    live.stop();
}

#[test]
#[ignore = "needs root"]
fn a_packet_socket_takes_cap_bpf_and_cap_net_raw_and_no_more() {
    let pair = Pair::new().unwrap();
    let as_nobody = |capabilities: &str, arguments: &[&str]| {
        let mut command = pair.server.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(format!("--inh-caps={capabilities}")).arg(format!("--ambient-caps={capabilities}"));
        command
            .arg(env!("CARGO_BIN_EXE_tlstrace"))
            .args(["watch", "-i", Pair::SERVER_INTERFACE])
            .args(arguments);
        Process::spawn(&mut command).unwrap()
    };
    let enough = "-all,+bpf,+perfmon,+net_raw";
    for (mode, said) in [("packet", "(packet socket)"), ("auto", "the tc hooks take CAP_NET_ADMIN")] {
        let mut watch = as_nobody(enough, &["--attach", mode]);
        let line = watch.stderr.find(PATIENCE, |line| line.starts_with("watching ")).unwrap().text;
        assert!(line.contains(said), "{line}");
    }
    for (capabilities, mode, missing) in [
        ("-all,+bpf,+perfmon,+net_admin", "packet", "CAP_NET_RAW"),
        ("-all,+perfmon,+net_raw", "packet", "CAP_BPF"),
        (enough, "tcx", "CAP_NET_ADMIN"),
    ] {
        let mut watch = as_nobody(capabilities, &["--attach", mode]);
        watch.stderr.find(PATIENCE, |line| line.contains(&format!("tlstrace needs {missing} to"))).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn what_passes_the_interface_is_the_same_with_each_hook() {
    const LEN: usize = 16 << 20;
    // Bytes that repeat at no power of two.
    let data: Vec<u8> = (0..LEN).map(|at| u8::try_from(at * at % 251).unwrap()).collect();
    for mode in ["tcx", "clsact", "packet"] {
        let (mut live, _) = watched(Pair::new().unwrap(), &["--attach", mode]);
        let _echo = Service::start(&live.pair.server, PORT, |mut stream| {
            let mut writing = stream.try_clone().unwrap();
            std::io::copy(&mut stream, &mut writing).unwrap();
        })
        .unwrap();
        let mut stream = live.connect();
        let mut writing = stream.try_clone().unwrap();
        let mut echoed = Vec::with_capacity(LEN);
        thread::scope(|scope| {
            scope.spawn(|| {
                writing.write_all(&data).unwrap();
                writing.shutdown(Shutdown::Write).unwrap();
            });
            stream.read_to_end(&mut echoed).unwrap();
        });
        assert!(echoed == data, "{mode}: the data changed on its way");
        live.stop();
    }
}
