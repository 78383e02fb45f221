//! Connections over a veth pair, paced or as many as go. Both sides are threads of this process that replay a
//! [`Script`], so that nearly all that the CPUs do is what the kernel and the observer do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::{MsgFlags, recv, shutdown};
use tlstrace_peers::{Family, Pair};

use super::script::{Ending, Script, Side, play};
use super::{PORT, now};
use crate::bench::table::count_of;

/// Client port and last byte of the server's address: they tell the connections of a run apart.
pub(super) type Connection = (u16, u8);

/// Threads of each side. Enough that no connection waits for another one's round trips.
const THREADS: usize = 8;
/// Servers, each with ports of the client's own: none is used twice in a run.
const SERVERS: u8 = 8;
const FIRST_SERVER: u8 = 100;

/// A client and a server, ready for many connections.
pub(super) struct Hosts {
    pub(super) pair: Pair,
}

/// What a load was.
pub(super) struct Made {
    pub(super) connections: u64,
    pub(super) time: Duration,
    /// When what decides about a connection was about to be sent.
    pub(super) decided: Vec<(Connection, Instant)>,
}

impl Made {
    pub(super) fn rate(&self) -> f64 {
        count_of(self.connections) / self.time.as_secs_f64()
    }
}

impl Hosts {
    /// With packets that a wire of this MTU would have, if so asked.
    pub(super) fn new(segment_size: Option<&str>) -> Result<Self> {
        let pair = Pair::new()?;
        for server in servers() {
            let address = format!("{server}/32");
            pair.server.ip(&["address", "add", &address, "dev", Pair::SERVER_INTERFACE])?;
            let via = Pair::server_address(Family::Ipv4).to_string();
            pair.client.ip(&["route", "add", &address, "via", &via])?;
        }
        pair.client.enter(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")
                .context("cannot widen the range of ports")
        })?;
        if let Some(mtu) = segment_size {
            for (namespace, interface) in
                [(&pair.client, Pair::CLIENT_INTERFACE), (&pair.server, Pair::SERVER_INTERFACE)]
            {
                namespace.ip(&["link", "set", interface, "gso_max_segs", "1"])?;
                namespace.ip(&["link", "set", interface, "mtu", mtu])?;
            }
        }
        Ok(Self { pair })
    }

    /// Connections for so long, so many a second; without a rate, as many as go.
    pub(super) fn load(&self, script: &Script, rate: Option<f64>, duration: Duration) -> Result<Made> {
        let listener = self.listen()?;
        let start = now();
        let load = Load { script, interval: rate.map(|rate| 1.0 / rate), start, next: AtomicU64::new(0) };
        thread::scope(|scope| {
            let servers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| load.serve(&listener))).collect();
            let connected = self.pair.client.enter(|| load.connect_all(duration));
            let time = now() - start;
            // Wakes the threads in accept(2).
            shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both)?;
            let mut decided = Vec::new();
            for server in servers {
                decided.extend(join(server)?);
            }
            let (connections, by_client) = connected?;
            decided.extend(by_client);
            Ok(Made { connections, time, decided })
        })
    }

    /// Bytes per second of one connection that lasts so long: a handshake, then records of application data.
    pub(super) fn bulk(&self, script: &Script, duration: Duration) -> Result<f64> {
        let opening = script.opening()?;
        let listener = self.listen()?;
        let mut record = vec![23, 3, 3, 0x40, 0];
        record.resize(5 + 0x4000, 0x5a);
        let data = record.repeat(16);
        thread::scope(|scope| {
            let sink = scope.spawn(|| -> Result<()> {
                let (mut stream, _) = listener.accept()?;
                play(&mut stream, Side::Server, opening, |_| ())?;
                let mut buffer = vec![0; 1 << 20];
                while stream.read(&mut buffer)? != 0 {}
                Ok(())
            });
            let to = SocketAddr::new(Pair::server_address(Family::Ipv4), PORT);
            let mut stream = self.pair.client.enter(|| TcpStream::connect(to))?;
            play(&mut stream, Side::Client, opening, |_| ())?;
            let start = now();
            let mut sent = 0;
            while now() - start < duration {
                stream.write_all(&data)?;
                sent += data.len() as u64;
            }
            stream.shutdown(Shutdown::Write)?;
            join(sink)?;
            Ok(count_of(sent) / (now() - start).as_secs_f64())
        })
    }

    fn listen(&self) -> Result<TcpListener> {
        let address = (Ipv4Addr::UNSPECIFIED, PORT);
        self.pair.server.enter(|| TcpListener::bind(address)).context("cannot listen")
    }
}

fn servers() -> impl Iterator<Item = IpAddr> {
    (FIRST_SERVER..FIRST_SERVER + SERVERS).map(|host| {
        let IpAddr::V4(near) = Pair::server_address(Family::Ipv4) else { unreachable!("of IPv4") };
        let [a, b, c, _] = near.octets();
        IpAddr::from([a, b, c, host])
    })
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Load<'a> {
    script: &'a Script,
    /// Seconds from one connection to the next.
    interval: Option<f64>,
    start: Instant,
    /// The number of the next connection.
    next: AtomicU64,
}

impl Load<'_> {
    /// To be called in the client's namespace.
    fn connect_all(&self, duration: Duration) -> Result<(u64, Vec<(Connection, Instant)>)> {
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..THREADS).map(|_| scope.spawn(|| self.connect(self.start + duration))).collect();
            let (mut made, mut decided) = (0, Vec::new());
            for client in clients {
                let (count, times) = join(client)?;
                made += count;
                decided.extend(times);
            }
            Ok((made, decided))
        })
    }

    /// One connection after the other, until it is time to end.
    fn connect(&self, end: Instant) -> Result<(u64, Vec<(Connection, Instant)>)> {
        let servers: Vec<_> = servers().map(|server| SocketAddr::new(server, PORT)).collect();
        let request = self.script.request();
        let (mut made, mut decided) = (0, Vec::new());
        for server in servers.iter().cycle() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(interval) = self.interval {
                let due = self.start + Duration::from_secs_f64(interval * count_of(number));
                if due >= end {
                    break;
                }
                thread::sleep(due.saturating_duration_since(now()));
            }
            if now() >= end {
                break;
            }
            let mut stream = TcpStream::connect(server).context("cannot connect")?;
            let mut sent = None;
            play(&mut stream, Side::Client, &self.script.flights, |flight| {
                if Some(flight) == request {
                    sent = Some(now());
                }
            })?;
            if let Some(sent) = sent {
                decided.push((connection(stream.local_addr()?, *server), sent));
            }
            if self.script.ending == Ending::Close {
                stream.shutdown(Shutdown::Write)?;
            }
            match stream.read(&mut [0; 16]) {
                Ok(0) => {}
                Ok(_) => anyhow::bail!("the server says more than the script"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error.into()),
            }
            made += 1;
        }
        Ok((made, decided))
    }

    /// Plays the server until the listener is shut down.
    fn serve(&self, listener: &TcpListener) -> Result<Vec<(Connection, Instant)>> {
        let mut decided = Vec::new();
        while let Ok((mut stream, client)) = listener.accept() {
            match self.script.ending {
                Ending::Close => {
                    play(&mut stream, Side::Server, &self.script.flights, |_| ())?;
                    // Until the client has closed.
                    while stream.read(&mut [0; 16])? > 0 {}
                }
                Ending::Reset => {
                    recv(stream.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_PEEK)?;
                    decided.push((connection(client, stream.local_addr()?), now()));
                    // With unread data in it, to close the socket is to reset the connection.
                    drop(stream);
                }
            }
        }
        Ok(decided)
    }
}

fn connection(client: SocketAddr, server: SocketAddr) -> Connection {
    let host = match server.ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => 0,
    };
    (client.port(), host)
}
