//! Steering in the kernel, with real sockets. Loading a program needs `CAP_BPF`: where that is missing
//! the tests are listed as ignored, and in CI they fail.

use libtest_mimic::{Arguments, Failed, Trial};
use maitred::steer::exact::Exact;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

fn main() {
    let permitted = may_load();
    let wanted = std::env::var_os("CI").is_some();
    let trial = |name: &str, test: fn()| {
        let test = move || {
            if !permitted {
                return Err(Failed::from("loading a program needs CAP_BPF: run the tests as root"));
            }
            test();
            Ok(())
        };
        Trial::test(name, test).with_kind("needs CAP_BPF").with_ignored_flag(!permitted && !wanted)
    };
    let trials = vec![
        trial("each_slot_gets_its_exact_share", each_slot_gets_its_exact_share),
        trial("an_excluded_slot_gets_nothing_and_the_others_its_share", an_excluded_slot),
        trial("with_nobody_eligible_connections_wait_and_are_not_refused", nobody_eligible),
        trial("what_waits_moves_when_a_socket_is_shut_down", shut_down),
        trial("a_closing_group_refuses_and_keeps_what_waits", refusing),
        trial("the_order_may_name_a_slot_twice", a_slot_twice),
        trial("late_packets_use_up_nobodys_turn", late_packets),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn may_load() -> bool {
    match Exact::load() {
        Ok(_) => true,
        Err(refused) if refused.source.raw_os_error() == Some(libc::EPERM) => false,
        Err(refused) => panic!("the program is refused: {refused}"),
    }
}

/// So many listeners of one group, each in its slot.
fn group(slots: u32) -> (Exact, Vec<Socket>, SocketAddr) {
    let steering = Exact::load().unwrap();
    let mut address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut sockets = Vec::new();
    for slot in 0..slots {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1024).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        steering.seat(slot, socket.as_fd()).unwrap();
        sockets.push(socket);
    }
    steering.attach(sockets[0].as_fd()).unwrap();
    (steering, sockets, address)
}

fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

/// How many wait at each socket; they are taken.
fn waiting(sockets: &[Socket]) -> Vec<usize> {
    sockets.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count()).collect()
}

fn each_slot_gets_its_exact_share() {
    let (steering, sockets, address) = group(5);
    steering.order(&[0, 1, 2, 3, 4]);
    let clients = connect(address, 500);
    assert_eq!(waiting(&sockets), [100; 5]);
    assert_eq!(steering.steered(), 500);
    drop(clients);
}

fn an_excluded_slot() {
    let (steering, sockets, address) = group(4);
    steering.order(&[0, 1, 2, 3]);
    let _first = connect(address, 40);
    steering.order(&[0, 1, 3]);
    let _second = connect(address, 60);
    assert_eq!(waiting(&sockets), [30, 30, 10, 30]);
    steering.order(&[0, 1, 2, 3]);
    let _third = connect(address, 40);
    assert_eq!(waiting(&sockets), [10; 4]);
}

fn nobody_eligible() {
    let (steering, sockets, address) = group(3);
    let _clients = connect(address, 30);
    assert_eq!(waiting(&sockets).iter().sum::<usize>(), 30);
    steering.order(&[2]);
    steering.order(&[]);
    let _clients = connect(address, 30);
    assert_eq!(waiting(&sockets).iter().sum::<usize>(), 30);
    assert_eq!(steering.steered(), 0);
}

fn shut_down() {
    let (steering, sockets, address) = group(3);
    if !steering.migrates() {
        panic!("moving what waits needs Linux 5.14");
    }
    steering.order(&[0, 1, 2]);
    let clients = connect(address, 30);
    steering.order(&[0, 2]);
    sockets[1].shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(waiting(&[sockets[0].try_clone().unwrap(), sockets[2].try_clone().unwrap()]), [15, 15]);
    assert_eq!([0, 1, 2].map(|slot| steering.steered_to(slot)), [15, 10, 15]);
    drop(clients);
}

fn refusing() {
    let (steering, sockets, address) = group(2);
    steering.order(&[0, 1]);
    let _clients = connect(address, 10);
    steering.refuse();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // What waits may move all the same, and another order does not end the refusal.
    steering.order(&[1]);
    sockets[0].shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(waiting(&sockets[1..]), [10]);
    assert!(TcpStream::connect(address).is_err());
}

fn a_slot_twice() {
    let (steering, sockets, address) = group(2);
    steering.order(&[0, 1, 1]);
    let _clients = connect(address, 300);
    assert_eq!(waiting(&sockets), [100, 200]);
}

/// The kernel asks the program about every packet without a connection, too.
fn late_packets() {
    let (steering, sockets, address) = group(3);
    steering.order(&[0, 1, 2]);
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("raw sockets need CAP_NET_RAW");
    for flags in [0x10, 0x11, 0x04, 0x12] {
        // Of a connection from port 1, which nobody has.
        let segment = segment(1, address.port(), flags);
        assert_eq!(raw.send_to(&segment, &SockAddr::from(address)).unwrap(), segment.len());
        let _client = TcpStream::connect(address).unwrap();
    }
    let _clients = connect(address, 2);
    assert_eq!(steering.steered(), 6);
    assert_eq!([0, 1, 2].map(|slot| steering.steered_to(slot)), [2; 3]);
    assert_eq!(waiting(&sockets), [2; 3]);
}

/// A TCP segment without data from 127.0.0.1 to 127.0.0.1 (RFC 9293, section 3.1).
fn segment(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let header = |checksum: u16| {
        let numbers = [0u8; 8];
        let rest = [5 << 4, flags, 0x10, 0];
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &numbers, &rest, &checksum.to_be_bytes(), &[0, 0]].concat()
    };
    let pseudo = [127, 0, 0, 1, 127, 0, 0, 1, 0, 6, 0, 20];
    let words = [&pseudo[..], &header(0)].concat();
    let sum: u32 = words.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    header(!((sum & 0xffff) + (sum >> 16)) as u16)
}
