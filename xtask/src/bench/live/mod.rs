//! `cargo xtask bench live`: what it costs to watch real TCP connections, beside other programs that watch the same.
//!
//! Each run has network namespaces of its own, a veth pair between them, and one observer at the server's end. In
//! every round all observers take their turn at each load, and so does none.

mod generator;
mod observer;
mod script;

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use aya::sys::{Stats, enable_stats};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Uid;

use super::release_build;
use super::table::{Table, count_of};
use generator::{Hosts, Made};
use observer::{Observer, Program, Report, Task};
use script::Script;

/// CPU time, losses, latency and memory of `tlstrace watch`, beside other programs (needs root).
#[derive(clap::Args)]
pub(super) struct Args {
    /// How often each program has its turn at each load.
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each load lasts.
    #[arg(long, default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Only these programs, and none.
    #[arg(long, value_name = "OBSERVER")]
    only: Vec<Program>,
    /// Watch with this tlstrace instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

const ROUNDS: u32 = 3;
const SECONDS: u64 = 5;

impl Default for Args {
    fn default() -> Self {
        Self { rounds: ROUNDS, seconds: SECONDS, only: Vec::new(), binary: None }
    }
}

impl Args {
    /// One round of a tlstrace alone.
    pub(super) fn of_tlstrace(binary: &Path) -> Self {
        Self { rounds: 1, only: vec![Program::Tlstrace], binary: Some(binary.to_owned()), ..Self::default() }
    }
}

/// The port that all programs take for one of TLS.
const PORT: u16 = 443;
const PACED: f64 = 1000.0;
/// Connections per second at which latency is measured.
const RATES: [f64; 2] = [200.0, 5000.0];
const MTU: &str = "1500";

pub(super) fn run(args: &Args) -> Result<Vec<Table>> {
    anyhow::ensure!(
        Uid::effective().is_root(),
        "only root may make network namespaces and load BPF programs"
    );
    let tlstrace = args.binary.clone().map_or_else(|| release_build("tlstrace"), Ok)?;
    let chosen = |program: &Program| args.only.is_empty() || args.only.contains(program);
    let mut programs: Vec<_> = Program::ALL.into_iter().filter(chosen).collect();
    let mut tables = Tables::new();
    programs.retain(|program| {
        let is_there = program.is_there();
        if !is_there {
            tables.paced.remark(format!("{} is not installed", program.name()));
        }
        is_there
    });
    let bench = Bench {
        tlstrace,
        duration: Duration::from_secs(args.seconds),
        handshake: Script::handshake()?,
        refusal: Script::refusal()?,
    };
    let with_none = || [None].into_iter().chain(programs.iter().copied().map(Some));
    for round in 1..=args.rounds {
        let tell = |what: &str| writeln!(io::stderr(), "round {round} of {}: {what}", args.rounds);
        tell("handshakes, paced")?;
        bench.paced_sleeper(&mut tables)?;
        for program in &programs {
            bench.paced(*program, &mut tables)?;
        }
        tell("handshakes, as many as go")?;
        for program in with_none() {
            bench.unpaced(program, &mut tables)?;
        }
        tell("latency")?;
        for rate in RATES {
            for program in &programs {
                bench.latency(*program, rate, &mut tables)?;
            }
        }
        tell("bulk")?;
        let alone = bench.bulk(None, &mut tables)?;
        tables.bulk.add(name(None), &[Some(alone), Some(1.0)]);
        for program in &programs {
            let rate = bench.bulk(Some(*program), &mut tables)?;
            tables.bulk.add(program.name(), &[Some(rate), Some(rate / alone)]);
        }
    }
    Ok(tables.into())
}

/// One per kind of figure.
struct Tables {
    paced: Table,
    unpaced: Table,
    latency: Table,
    bulk: Table,
    start: Table,
}

impl Tables {
    fn new() -> Self {
        const MEMORY: &str = "PSS, MiB";
        const GROWN: &str = "grown since a third, MiB";
        let mut unpaced = Table::new(
            "handshakes, as many as go",
            &["per second", "lost", "lost, %", "CPU, µs per handshake", MEMORY, GROWN],
        );
        unpaced
            .remark("lost: handshakes without a line; of tcpdump, packets that it says the kernel dropped");
        let mut latency = Table::new(
            "from the deciding packet to the line",
            &["per second", "p50, ms", "p99, ms", "without a line"],
        );
        latency.remark("accepted: from the client's first application data; reset: from the server's RST");
        latency.remark("tcpdump and tshark print the RST, and not why it came; ssldump is not measured");
        Self {
            paced: Table::new(
                "1000 handshakes a second",
                &["per second", "lost", "CPU, µs per handshake", "BPF, µs per handshake", MEMORY, GROWN],
            ),
            unpaced,
            latency,
            bulk: Table::new("bulk, packets of 1500 bytes", &["MB/s", "of no observer"]),
            start: Table::new("from start to attached", &["ms"]),
        }
    }
}

impl From<Tables> for Vec<Table> {
    fn from(tables: Tables) -> Self {
        let Tables { paced, unpaced, latency, bulk, start } = tables;
        vec![paced, unpaced, latency, bulk, start]
    }
}

fn name(program: Option<Program>) -> &'static str {
    program.map_or("no observer", Program::name)
}

/// Microseconds of `time` for each handshake made.
fn per_handshake(time: Duration, made: &Made) -> f64 {
    time.as_secs_f64() * 1e6 / count_of(made.connections)
}

struct Bench {
    tlstrace: PathBuf,
    duration: Duration,
    handshake: Script,
    refusal: Script,
}

/// What one load came to with an observer.
struct Outcome {
    made: Made,
    report: Report,
    cpu: Duration,
    bpf: Duration,
    pss_kib: u64,
    pss_kib_after_a_third: u64,
}

impl Outcome {
    /// Handshakes without a line; of a program that prints none, packets.
    fn lost(&self) -> f64 {
        count_of(
            self.report.dropped.unwrap_or_else(|| self.made.connections.saturating_sub(self.report.seen)),
        )
    }

    fn memory(&self) -> [Option<f64>; 2] {
        let [end, third] = [self.pss_kib, self.pss_kib_after_a_third].map(|kib| count_of(kib) / 1024.0);
        [Some(end), Some(end - third)]
    }
}

impl Bench {
    fn paced(&self, program: Program, tables: &mut Tables) -> Result<()> {
        let statistics = enable_stats(Stats::RunTime)?;
        let outcome = self.watch(program, Task::Handshakes, &self.handshake, Some(PACED), tables)?;
        drop(statistics);
        let bpf = (program == Program::Tlstrace).then(|| per_handshake(outcome.bpf, &outcome.made));
        let cpu = per_handshake(outcome.cpu, &outcome.made);
        let [memory, grown] = outcome.memory();
        tables.paced.add(
            program.name(),
            &[Some(outcome.made.rate()), Some(outcome.lost()), Some(cpu), bpf, memory, grown],
        );
        Ok(())
    }

    /// What is paid for waking every millisecond, as a latency of a millisecond demands, and doing nothing.
    fn paced_sleeper(&self, tables: &mut Tables) -> Result<()> {
        let hosts = Hosts::new(None)?;
        let is_over = AtomicBool::new(false);
        let (made, cpu) = thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
            });
            let made = hosts.load(&self.handshake, Some(PACED), self.duration);
            is_over.store(true, Ordering::Relaxed);
            let cpu = sleeper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            anyhow::Ok((made?, Duration::from(cpu)))
        })?;
        let cpu = per_handshake(cpu, &made);
        tables.paced.add("a thread that sleeps for 1 ms at a time", &[Some(made.rate()), None, Some(cpu)]);
        Ok(())
    }

    fn unpaced(&self, program: Option<Program>, tables: &mut Tables) -> Result<()> {
        let Some(program) = program else {
            let made = Hosts::new(None)?.load(&self.handshake, None, self.duration)?;
            tables.unpaced.add(name(None), &[Some(made.rate())]);
            return Ok(());
        };
        let outcome = self.watch(program, Task::Handshakes, &self.handshake, None, tables)?;
        if let Some(totals) = outcome.report.totals.as_ref().filter(|_| outcome.lost() > 0.0) {
            tables.unpaced.remark(format!("{} of {}: {totals}", program.name(), outcome.made.connections));
        }
        let share = program.prints().then(|| 100.0 * outcome.lost() / count_of(outcome.made.connections));
        let cpu = per_handshake(outcome.cpu, &outcome.made);
        let [memory, grown] = outcome.memory();
        tables.unpaced.add(
            program.name(),
            &[Some(outcome.made.rate()), Some(outcome.lost()), share, Some(cpu), memory, grown],
        );
        Ok(())
    }

    fn latency(&self, program: Program, rate: f64, tables: &mut Tables) -> Result<()> {
        for (task, what, script) in
            [(Task::Accepted, "accepted", &self.handshake), (Task::Resets, "reset", &self.refusal)]
        {
            if !program.can(task) {
                continue;
            }
            let outcome = self.watch(program, task, script, Some(rate), tables)?;
            let lines: HashMap<_, _> = outcome.report.lines.iter().copied().collect();
            let latency = |decided: &(_, Instant)| {
                let printed = lines.get(&decided.0)?;
                Some(printed.saturating_duration_since(decided.1))
            };
            let mut latencies: Vec<_> = outcome.made.decided.iter().filter_map(latency).collect();
            latencies.sort_unstable();
            let percentile =
                |percent: usize| Some(latencies.get(latencies.len() * percent / 100)?.as_secs_f64() * 1e3);
            let missing = outcome.made.decided.len() - latencies.len();
            tables.latency.add(
                format!("{}, {what}, {rate}/s", program.name()),
                &[Some(outcome.made.rate()), percentile(50), percentile(99), Some(count_of(missing))],
            );
        }
        Ok(())
    }

    /// Megabytes per second.
    fn bulk(&self, program: Option<Program>, tables: &mut Tables) -> Result<f64> {
        let hosts = Hosts::new(Some(MTU))?;
        let observer = program.map(|program| self.start(program, Task::Handshakes, &hosts, tables));
        let observer = observer.transpose()?;
        let rate = hosts.bulk(&self.handshake, self.duration)? / 1e6;
        if let Some(observer) = observer {
            observer.stop()?;
        }
        Ok(rate)
    }

    /// Has a program watch a load.
    fn watch(
        &self,
        program: Program,
        task: Task,
        script: &Script,
        rate: Option<f64>,
        tables: &mut Tables,
    ) -> Result<Outcome> {
        let hosts = Hosts::new(None)?;
        let observer = self.start(program, task, &hosts, tables)?;
        let cpu = observer.cpu_time()?;
        let bpf = observer.bpf_time()?;
        let (made, pss_kib_after_a_third) = thread::scope(|scope| {
            let load = scope.spawn(|| hosts.load(script, rate, self.duration));
            thread::sleep(self.duration / 3);
            let pss_kib = observer.pss_kib();
            let made = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            anyhow::Ok((made, pss_kib?))
        })?;
        let pss_kib = observer.pss_kib()?;
        let bpf = observer.bpf_time()?.saturating_sub(bpf);
        observer.settle(made.connections);
        let cpu = observer.cpu_time()?.saturating_sub(cpu);
        let report = observer.stop()?;
        Ok(Outcome { made, report, cpu, bpf, pss_kib, pss_kib_after_a_third })
    }

    fn start(&self, program: Program, task: Task, hosts: &Hosts, tables: &mut Tables) -> Result<Observer> {
        let observer = Observer::start(program, task, &hosts.pair.server, &self.tlstrace)?;
        tables.start.add(program.name(), &[Some(observer.started_in.as_secs_f64() * 1e3)]);
        Ok(observer)
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench takes real time")]
fn now() -> Instant {
    Instant::now()
}
