//! The test networks themselves: what the other tests take for granted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use tlstrace_peers::{Family, Namespace, Pair, Service};

#[test]
#[ignore = "needs root"]
fn a_pair_carries_tcp_over_ipv4_and_ipv6_as_soon_as_it_is_there() {
    let pair = Pair::new().unwrap();
    let echo = Service::start(&pair.server, 0, |mut stream| {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    })
    .unwrap();
    for family in Family::ALL {
        let address = (Pair::server_address(family), echo.port());
        let mut stream = pair.client.enter(|| TcpStream::connect(address)).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), Pair::client_address(family));
        stream.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    }
}

#[test]
#[ignore = "needs root"]
fn pairs_with_the_same_addresses_do_not_see_each_other() {
    let (one, other) = (Pair::new().unwrap(), Pair::new().unwrap());
    let service = Service::start(&one.server, 0, drop).unwrap();
    let address = (Pair::server_address(Family::Ipv4), service.port());
    one.client.enter(|| TcpStream::connect(address)).unwrap();
    let refused = other.client.enter(|| TcpStream::connect(address)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
#[ignore = "needs root"]
fn a_command_runs_inside_the_namespace_and_the_caller_stays_outside() {
    let outside = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let namespace = Namespace::new().unwrap();
    let output = namespace.command("readlink").arg("/proc/self/ns/net").output().unwrap();
    let inside = String::from_utf8(output.stdout).unwrap();
    let entered = namespace.enter(|| std::fs::read_link("/proc/thread-self/ns/net")).unwrap();
    assert_eq!(Path::new(inside.trim()), entered);
    assert_ne!(entered, outside);
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), outside);
}

#[test]
#[ignore = "needs root"]
fn a_panic_inside_a_namespace_reaches_the_caller_with_its_message() {
    let namespace = Namespace::new().unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        namespace.enter(|| panic!("from inside"));
    }));
    assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "from inside");
}
