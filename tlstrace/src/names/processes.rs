//! Which process listens: socket ▶ inode ▶ `/proc/PID/fd` ▶ command (proc(5)).
//!
//! The sockets that listen are few and cheap to list; to find who holds one takes a walk through `/proc`, which is made
//! only when one is new. A process is named while it lives, and only for what began after it was seen to listen.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::identity::Process;
use crate::capture::clock::{Clock, RESYNCHRONISE_EVERY};
use crate::capture::listeners::{self, ListeningSocket};
use crate::capture::{addresses, keep_rights_to_look_at_processes};
use crate::engine::timestamp::Timestamp;

/// Walks through `/proc` are at least so many looks apart.
const LOOKS_BETWEEN_WALKS: u32 = 3;
/// After so many looks one asks again who holds a socket of which that could not be told.
const LOOKS_UNTIL_FORGOTTEN: u32 = 60;
/// Most listening sockets that are followed.
const MAX_SOCKETS: usize = 4096;

/// Who listens, as of the last look.
#[derive(Debug, Default)]
pub struct Listeners {
    sockets: HashMap<ListeningSocket, Listener>,
    /// Addresses of this host.
    local: HashSet<IpAddr>,
}

#[derive(Debug)]
struct Listener {
    since: Timestamp,
    /// `None`: it could not be told, or several unlike processes hold it.
    holder: Option<Holder>,
}

#[derive(Clone, Debug)]
struct Holder {
    process: Process,
    /// Readable as soon as the process is dead, whoever has its number then.
    pidfd: Arc<OwnedFd>,
}

impl Listeners {
    /// The process that listens there, and did so at `first`.
    pub fn owner_of(&self, end: SocketAddr, first: Timestamp) -> Option<Process> {
        if !self.local.contains(&end.ip()) {
            return None;
        }
        let on_port = self.sockets.iter().filter(|(socket, _)| socket.address.port() == end.port());
        let at = |address: fn(IpAddr, IpAddr) -> bool| {
            on_port.clone().filter(move |(socket, _)| address(socket.address.ip(), end.ip())).peekable()
        };
        // The kernel prefers the most specific socket; the unspecified IPv6 address takes IPv4 too.
        let choices: [fn(IpAddr, IpAddr) -> bool; 3] = [
            |bound, asked| bound == asked,
            |bound, asked| bound.is_unspecified() && bound.is_ipv4() == asked.is_ipv4(),
            |bound, _| bound.is_unspecified() && bound.is_ipv6(),
        ];
        let mut chosen =
            choices.into_iter().map(at).find_map(|mut found| found.peek().is_some().then_some(found))?;
        let (_, Listener { since, holder }) = chosen.next()?;
        let holder = holder.as_ref().filter(|_| *since <= first)?;
        let is_only = chosen.all(|(_, other)| {
            other.holder.as_ref().is_some_and(|other| other.process.pid == holder.process.pid)
        });
        (is_only && holder.is_alive()).then(|| holder.process.clone())
    }
}

impl Holder {
    fn is_alive(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&*self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready == 0)
    }
}

/// Keeps the table, in a thread of its own, as long as somebody else has it. The first look is made before this
/// returns.
///
/// To be called in the network namespace that is watched, and before rights are given up: of those the thread keeps
/// what reading `/proc` takes.
pub fn follow_listeners(table: &Arc<Mutex<Listeners>>) -> anyhow::Result<()> {
    let mut follower = Follower { clock: Clock::start(), looks: 0, walked: None };
    follower.look(table)?;
    let table = Arc::downgrade(table);
    thread::Builder::new().name("listeners".to_owned()).spawn(move || {
        if let Err(error) = keep_rights_to_look_at_processes() {
            log::info!("rights could not be given up: {error}");
            return;
        }
        if let Err(error) = follower.run(&table) {
            log::info!("who listens is not known any more: {error:#}");
        }
    })?;
    Ok(())
}

struct Follower {
    clock: Clock,
    looks: u32,
    /// The look that walked last.
    walked: Option<u32>,
}

impl Follower {
    fn run(&mut self, table: &Weak<Mutex<Listeners>>) -> anyhow::Result<()> {
        loop {
            thread::sleep(RESYNCHRONISE_EVERY);
            self.clock.resynchronise();
            let Some(table) = table.upgrade() else { return Ok(()) };
            self.look(&table)?;
        }
    }

    fn look(&mut self, table: &Arc<Mutex<Listeners>>) -> anyhow::Result<()> {
        let now = self.clock.now();
        self.looks = self.looks.wrapping_add(1);
        let sockets: HashSet<_> = listeners::list()?.into_iter().take(MAX_SOCKETS).collect();
        let local: HashSet<_> = addresses::list()?.into_iter().collect();
        let lock = || table.lock().unwrap_or_else(PoisonError::into_inner);
        let new: HashSet<u32> = {
            let mut table = lock();
            table.local = local;
            let forgets = self.looks.is_multiple_of(LOOKS_UNTIL_FORGOTTEN);
            table.sockets.retain(|socket, listener| {
                let is_known = match &listener.holder {
                    Some(holder) => holder.is_alive(),
                    None => !forgets,
                };
                is_known && sockets.contains(socket)
            });
            let new = sockets.iter().filter(|socket| !table.sockets.contains_key(socket));
            new.map(|socket| socket.inode).collect()
        };
        let is_due = self.walked.is_none_or(|walked| self.looks.wrapping_sub(walked) >= LOOKS_BETWEEN_WALKS);
        if new.is_empty() || !is_due {
            return Ok(());
        }
        self.walked = Some(self.looks);
        let holders = walk(&new);
        let since = self.clock.now();
        let mut table = lock();
        for socket in sockets.into_iter().filter(|socket| new.contains(&socket.inode)) {
            let holder = holders.get(&socket.inode).cloned();
            table.sockets.entry(socket).or_insert(Listener { since, holder });
        }
        drop(table);
        log::debug!("{} new listening sockets since {now}, {} of known processes", new.len(), holders.len());
        Ok(())
    }
}

/// The processes that hold these sockets. Of several that have the same command, as workers have that inherited it, the
/// one that was started first; of several others none.
fn walk(inodes: &HashSet<u32>) -> HashMap<u32, Holder> {
    let mut found: HashMap<u32, Option<(u64, Holder)>> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let held: HashSet<u32> = descriptors
            .filter_map(|descriptor| inode(fs::read_link(descriptor.path()).ok()?.to_str()?))
            .filter(|inode| inodes.contains(inode))
            .collect();
        if held.is_empty() {
            continue;
        }
        let Some((started, holder)) = holder(pid) else { continue };
        for inode in held {
            let known = found.entry(inode).or_insert_with(|| Some((started, holder.clone())));
            *known = known.take().and_then(|known| {
                let is_alike = known.1.process.command == holder.process.command;
                is_alike.then(|| if started < known.0 { (started, holder.clone()) } else { known })
            });
        }
    }
    found.into_iter().filter_map(|(inode, holder)| Some((inode, holder?.1))).collect()
}

/// A process, held so that its number cannot come to mean another.
fn holder(pid: u32) -> Option<(u64, Holder)> {
    let number = Pid::from_raw(pid.cast_signed())?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (command, started) = parse_stat(&stat)?;
    let process = Process { pid, command: command.into() };
    let holder = Holder { process, pidfd: Arc::new(pidfd) };
    // What was read is of the process that the descriptor is for, if that is still there.
    holder.is_alive().then_some((started, holder))
}

/// Command and start time of `/proc/PID/stat`. The command may hold anything, parentheses too.
fn parse_stat(stat: &str) -> Option<(&str, u64)> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, command) = head.split_once('(')?;
    // Field 22, of which the third is the first behind the command.
    Some((command, rest.split_whitespace().nth(19)?.parse().ok()?))
}

/// Of `socket:[12345]`.
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
