//! The live loop: one input, one engine, one output, on one thread.
//!
//! ```text
//! drain the ring ▶ engine ▶ outputs ▶ what is due by now ▶ outputs ▶ flush ▶ wait for whatever comes first
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{self, MissedTickBehavior};

use crate::capture::addresses;
use crate::capture::clock::{self, Clock};
use crate::capture::health::{self, Conditions, Health};
use crate::capture::interfaces::Change;
use crate::capture::ring::{Pace, Wait};
use crate::capture::turnover::{Turn, Turnover};
use crate::capture::{Capture, Input, Wake};
use crate::cli::notice;
use crate::engine::timestamp::Timestamp;
use crate::engine::{Engine, Output};
use crate::metrics::server::Exporter;
use crate::metrics::{Format, Reading};
use crate::names::Names;
use crate::outlet::{Lost, Monitor};
use crate::report::Report;
use crate::summary::CaptureTotals;

/// How long the data of connections that began before us is looked at.
const WARM_UP: Duration = Duration::from_mins(1);
/// The same for connections on an interface that has just come: their SYN may have been faster than we were.
const WARM_UP_OF_NEWCOMER: Duration = Duration::from_secs(5);

/// How long the ring alone is looked at, while events flow, before signals, interfaces and everybody else have their turn.
const TURN_EVERY: Duration = Duration::from_millis(16);

/// How often a collector is told what was counted.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// Why the loop ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// SIGINT, SIGTERM or SIGHUP.
    Signal,
    /// The time that was given is over.
    Timeout,
    /// As many verdicts were printed as were asked for.
    Count,
    /// Nobody reads the output any more.
    ClosedPipe,
    /// The last interface is gone.
    NoInterface,
}

/// Signals that end the program in good order, and the one that asks how things are.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    user: Signal,
    /// As good as a signal to end.
    enough: Arc<Notify>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Request {
    End,
    Summary,
}

impl Signals {
    /// Listens from now on, so that one that comes while programs are loaded is not lost; needs a tokio runtime.
    pub fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            user: listen(SignalKind::user_defined1())?,
            enough: Arc::default(),
        })
    }

    /// Ends also when somebody in the program has had enough.
    pub fn or(self, enough: Arc<Notify>) -> Self {
        Self { enough, ..self }
    }

    /// Waits for one that ends the program.
    pub async fn end(&mut self) {
        while self.next().await != Request::End {}
    }

    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::End,
            _ = self.terminate.recv() => Request::End,
            _ = self.hang_up.recv() => Request::End,
            () = self.enough.notified() => Request::End,
            _ = self.user.recv() => Request::Summary,
        }
    }
}

/// Where verdicts go.
pub struct Printing<'a, 'w> {
    pub report: &'a mut Report<'w>,
    /// Watches over what `report` prints to.
    pub printer: &'a Monitor,
    /// Counts them for others.
    pub exporter: Option<&'a Exporter>,
    /// Knows who their ends are.
    pub names: Option<&'a Names>,
}

/// Runs until something ends it; then detaches, judges what was left open, and prints what was kept back.
pub async fn run(
    capture: &mut Capture,
    engine: &mut Engine,
    printing: Printing<'_, '_>,
    signals: &mut Signals,
    timeout: Option<Duration>,
) -> anyhow::Result<End> {
    let Printing { report, printer, exporter, names } = printing;
    for interface in capture.interfaces() {
        report.name_interface(interface.index, &interface.name);
    }
    let clock = Clock::start();
    let start = clock.now();
    let turnover = Turnover::default();
    let warm_up = Some(WARM_UP);
    let mut live =
        Live { capture, engine, report, printer, exporter, names, clock, start, warm_up, turnover, lost: 0 };
    live.look_for_addresses()?;
    let end = live.until_end(signals, timeout).await;
    live.capture.detach();
    let end = end.and_then(|end| live.conclude(end).map(|()| end));
    match end {
        Err(error) if is_closed_pipe(&error) => Ok(End::ClosedPipe),
        end => end,
    }
}

/// What was captured and what was missed, from the programs to the output.
pub fn totals(
    capture: &Capture,
    engine: &Engine,
    lost: &Lost,
    unexported: &Lost,
) -> anyhow::Result<CaptureTotals> {
    let mut totals = conditions(capture, engine)?.totals();
    let unprinted = [
        ("verdicts not printed: standard output was not read fast enough", lost.no_room),
        ("verdicts not printed: standard output could not be written", lost.failed),
        ("records not exported: the collector did not take them in time", unexported.no_room),
        ("records not exported: the collector was not reached, or refused them", unexported.failed),
    ];
    let unprinted = unprinted.into_iter().filter(|(_, count)| *count > 0);
    totals.losses.extend(unprinted.map(|(text, count)| (text.into(), count)));
    Ok(totals)
}

fn conditions(capture: &Capture, engine: &Engine) -> anyhow::Result<Conditions> {
    Ok(Conditions { counters: capture.counters()?, engine: engine.counts(), malformed: capture.malformed() })
}

/// Tells the user what all verdicts together say.
pub fn tell_summary(report: &Report<'_>, connections: u64, totals: &CaptureTotals) {
    notice(format_args!("{} on {connections} connections", report.gate().tally()));
    let text = report.gate().summary_text();
    if !text.is_empty() {
        notice(text.trim_end());
    }
    notice(totals);
}

/// Shortest sleep until a deadline of the engine's: the runtime's timers count milliseconds.
const SHORTEST: Duration = Duration::from_millis(1);

struct Live<'a, 'w> {
    capture: &'a mut Capture,
    engine: &'a mut Engine,
    report: &'a mut Report<'w>,
    printer: &'a Monitor,
    exporter: Option<&'a Exporter>,
    names: Option<&'a Names>,
    clock: Clock,
    start: Timestamp,
    /// When, since the start, connections that began before us are left alone. `None`: they are.
    warm_up: Option<Duration>,
    turnover: Turnover,
    /// Events that did not fit into the ring, as of the last look.
    lost: u64,
}

impl Live<'_, '_> {
    async fn until_end(&mut self, signals: &mut Signals, timeout: Option<Duration>) -> anyhow::Result<End> {
        let mut health = Health::default();
        let mut pace = Pace::default();
        let mut waited = Duration::ZERO;
        let mut looked = Duration::ZERO;
        let mut measured = Duration::ZERO;
        let mut output = OutputHealth::default();
        let timeout = time::sleep(timeout.unwrap_or(Duration::MAX));
        tokio::pin!(timeout);
        let mut second = time::interval(clock::RESYNCHRONISE_EVERY);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wait = pace.after_drain(self.step()?);
            if self.report.gate().is_full() {
                return Ok(End::Count);
            }
            if let Wait::Tick(tick) = wait {
                self.capture.tick(tick)?;
                waited += tick;
                if waited < TURN_EVERY {
                    continue;
                }
            }
            waited = Duration::ZERO;
            let due = [self.engine.poll_timeout(), self.report.deadline()].into_iter().flatten().min();
            let due = due.map(|due| due.since(self.clock.now()).max(SHORTEST));
            tokio::select! {
                biased;
                request = signals.next() => match request {
                    Request::End => return Ok(End::Signal),
                    Request::Summary => self.sum_up()?,
                },
                () = &mut timeout => return Ok(End::Timeout),
                _ = second.tick() => {
                    self.clock.resynchronise();
                    let now = self.elapsed();
                    if self.warm_up.is_some_and(|end| now >= end) {
                        self.warm_up = None;
                        self.capture.set_warm_up(false)?;
                    }
                    self.turnover.say(now).into_iter().for_each(notice);
                    self.export()?;
                    if now.saturating_sub(measured) >= MEASURE_EVERY {
                        measured = now;
                        self.measure()?;
                    }
                    if now.saturating_sub(looked) >= health::LOOK_EVERY {
                        looked = now;
                        // No message tells of an address that comes later, as DHCP's do.
                        self.look_for_addresses()?;
                        let conditions = conditions(self.capture, self.engine)?;
                        self.report.observe_capture(&conditions.totals());
                        for line in health.look(now, &conditions, || self.capture.surroundings()) {
                            notice(line);
                        }
                        for line in output.look(now, self.printer.lost(), self.report) {
                            notice(line);
                        }
                    }
                }
                () = sleep(due) => {}
                wake = self.capture.wait(wait) => match wake? {
                    Wake::Ring => {}
                    Wake::Interfaces(changes) => {
                        self.follow(changes)?;
                        if self.capture.has_ended() {
                            self.turnover.say_all().into_iter().for_each(notice);
                            notice("no interface is left to watch");
                            return Ok(End::NoInterface);
                        }
                    }
                },
            }
        }
    }

    /// Takes a batch from the ring and does what is due; says how many events there were.
    fn step(&mut self) -> anyhow::Result<usize> {
        let Self { capture, engine, report, exporter, names, clock, lost, .. } = self;
        // Whatever happened before this moment is in the ring by now, or lost, unless the batch ends before.
        let mut horizon = clock.now();
        let now_lost = capture.lost_events()?;
        if now_lost != *lost {
            *lost = now_lost;
            engine.note_loss(horizon);
        }
        let mut last = Timestamp::default();
        let mut result = Ok(());
        let taken = capture.drain(clock, |input| {
            match input {
                Input::Segment(segment) => {
                    last = segment.timestamp;
                    engine.advance_to(segment.timestamp);
                    engine.handle_segment(&segment);
                }
                Input::Reset(reset) => engine.handle_local_reset(reset),
            }
            if result.is_ok() {
                result = publish(engine, report, *exporter, *names);
            }
        });
        result?;
        if taken == crate::capture::ring::BATCH {
            horizon = horizon.min(last);
        }
        if engine.expects_reset_report()
            && let Some(since) = capture.resets_told_since(horizon)?
        {
            engine.vouch_for_resets(since, horizon);
        }
        engine.advance_to(horizon);
        publish(engine, report, *exporter, *names)?;
        report.advance_to(horizon)?;
        report.flush()?;
        Ok(taken)
    }

    /// After the hooks are gone: what is still in the ring, what never came to an end, and what was kept back.
    fn conclude(&mut self, end: End) -> anyhow::Result<()> {
        if end != End::Count {
            while self.step()? > 0 {}
            self.engine.finish();
            publish(self.engine, self.report, self.exporter, self.names)?;
        }
        self.export()?;
        self.measure()?;
        let totals = self.totals()?;
        Ok(self.report.finish(Some(&totals))?)
    }

    /// Hands what others count to who exports it, as a sign of life too.
    fn export(&self) -> anyhow::Result<()> {
        let Some(exporter) = self.exporter else { return Ok(()) };
        let Conditions { counters, engine, malformed } = conditions(self.capture, self.engine)?;
        let (lost, unexported) = (self.printer.lost(), self.report.lost_exports());
        let reading = Reading {
            tracked: self.engine.tracked(),
            evicted: engine.evicted,
            malformed,
            output_full: lost.no_room,
            output_failed: lost.failed,
            export_full: unexported.no_room,
            export_failed: unexported.failed,
        };
        exporter.metrics.update(|counter| counters.get(counter), &reading);
        exporter.beat(self.capture.interfaces().next().is_some());
        Ok(())
    }

    /// Hands on what is exported to who is not asking for it.
    fn measure(&mut self) -> anyhow::Result<()> {
        let Some(exporter) = self.exporter else { return Ok(()) };
        Ok(self.report.measure(|| exporter.metrics.render(Format::OpenMetrics), self.clock.now())?)
    }

    fn totals(&self) -> anyhow::Result<CaptureTotals> {
        totals(self.capture, self.engine, &self.printer.lost(), &self.report.lost_exports())
    }

    /// Says how things are.
    fn sum_up(&mut self) -> anyhow::Result<()> {
        let totals = self.totals()?;
        tell_summary(self.report, self.engine.counts().distinct_connections(), &totals);
        self.report.summarise(Some(&totals))?;
        Ok(self.report.flush()?)
    }

    /// Since the start.
    fn elapsed(&self) -> Duration {
        self.clock.now().since(self.start)
    }

    fn follow(&mut self, changes: io::Result<Vec<Change>>) -> anyhow::Result<()> {
        let changes = match changes {
            Ok(changes) => changes,
            Err(error) => {
                log::info!("interface changes were missed ({error}): looking for them");
                self.capture.catch_up()?
            }
        };
        for change in changes {
            let Some(turn) = self.capture.apply(change) else { continue };
            if matches!(turn, Turn::Came(_)) {
                self.warm_up = self.warm_up.max(Some(self.elapsed() + WARM_UP_OF_NEWCOMER));
                self.capture.set_warm_up(true)?;
            }
            self.turnover.note(turn);
        }
        self.turnover.say(self.elapsed()).into_iter().for_each(notice);
        for interface in self.capture.interfaces() {
            self.report.name_interface(interface.index, &interface.name);
        }
        self.look_for_addresses()
    }

    /// Tells everybody who has to know them which addresses this host has.
    fn look_for_addresses(&mut self) -> anyhow::Result<()> {
        let addresses = addresses::list()?;
        self.capture.set_local_addresses(&addresses);
        self.report.set_local_addresses(addresses);
        Ok(())
    }
}

/// Decides what is worth a line on stderr about what is printed, and what is not.
#[derive(Debug, Default)]
struct OutputHealth {
    lost: Lost,
    unexported: Lost,
    hidden: Option<String>,
    /// When the next line about what is hidden is due, since the start.
    next: Duration,
}

impl OutputHealth {
    /// Counts of what is not shown come with the first, and then once a minute if they change.
    const EVERY: Duration = Duration::from_mins(1);

    fn look(&mut self, now: Duration, lost: Lost, report: &Report<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        let new = lost.no_room - self.lost.no_room;
        if new > 0 {
            lines.push(format!("{new} verdicts were not printed: standard output is not read fast enough"));
        }
        let new = lost.failed - self.lost.failed;
        if new > 0 {
            let error = lost.error.as_deref().unwrap_or("it failed");
            lines.push(format!("{new} verdicts were not printed: cannot write to standard output: {error}"));
        }
        self.lost = lost;
        let unexported = report.lost_exports();
        let new = unexported.no_room + unexported.failed - self.unexported.no_room - self.unexported.failed;
        if new > 0 {
            let error = unexported.error.as_deref().unwrap_or("the collector does not take them in time");
            lines.push(format!("{new} records were not exported: {error}"));
        }
        self.unexported = unexported;
        let hidden = report.gate().tally().hidden();
        if hidden != self.hidden && now >= self.next {
            lines.extend(hidden.iter().map(|hidden| format!("not shown without --all, so far: {hidden}")));
            self.hidden = hidden;
            self.next = now + Self::EVERY;
        }
        lines
    }
}

fn publish(
    engine: &mut Engine,
    report: &mut Report<'_>,
    exporter: Option<&Exporter>,
    names: Option<&Names>,
) -> io::Result<()> {
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Verdict(mut verdict) => {
                if let Some(names) = names {
                    names.complete(&mut verdict);
                }
                if let Some(exporter) = exporter {
                    exporter.metrics.observe(&verdict);
                }
                report.publish(&verdict)?;
            }
        }
    }
    Ok(())
}

/// Sleeps for that long; for ever, if there is nothing to wake up for.
async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
