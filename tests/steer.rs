//! Steering in the kernel, with real sockets. Loading a program needs `CAP_BPF`: where that is missing
//! the tests are listed as ignored, and in CI they fail.

use libtest_mimic::{Arguments, Failed, Trial};
use maitred::core::source::{Prefix, Source};
use maitred::kernel::exact::Exact;
use maitred::kernel::order::{Share, place, table};
use maitred::kernel::program::Choice;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
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
        trial("weights_are_kept_exactly_in_every_round", weights),
        trial("a_client_always_gets_the_same_slot", the_same_slot),
        trial("what_is_beyond_the_prefix_does_not_count", prefixes),
        trial("clients_over_ipv6_have_their_slot_and_those_over_ipv4_the_same_there", ipv6),
        trial("only_clients_of_a_slot_that_leaves_get_another", a_slot_leaves),
        trial("a_client_that_moves_gets_the_slot_that_it_will_have", a_client_moves),
        trial("without_slots_a_client_waits_somewhere_and_late_packets_count_for_nobody", nobody_by_source),
        trial("late_packets_use_up_nobodys_turn", late_packets),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn may_load() -> bool {
    match Exact::load(Choice::InTurn) {
        Ok(_) => true,
        Err(refused) if refused.source.raw_os_error() == Some(libc::EPERM) => false,
        Err(refused) => panic!("the program is refused: {refused}"),
    }
}

/// So many listeners of one group, each in its slot.
fn group(slots: u32) -> (Exact, Vec<Socket>, SocketAddr) {
    group_at(Choice::InTurn, slots, Ipv4Addr::LOCALHOST.into())
}

fn group_at(choice: Choice, slots: u32, ip: IpAddr) -> (Exact, Vec<Socket>, SocketAddr) {
    let steering = Exact::load(choice).unwrap();
    let mut address = SocketAddr::new(ip, 0);
    let mut sockets = Vec::new();
    for slot in 0..slots {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(false).unwrap();
        }
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1024).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        steering.enter(slot, socket.as_fd()).unwrap();
        sockets.push(socket);
    }
    steering.attach(sockets[0].as_fd()).unwrap();
    (steering, sockets, address)
}

fn weighing(weights: &[u32]) -> Vec<Share> {
    weights.iter().zip(0..).map(|(&weight, slot)| Share { slot, weight }).collect()
}

fn equal(slots: &[u32]) -> Vec<Share> {
    slots.iter().map(|&slot| Share { slot, weight: 1 }).collect()
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
    steering.order(&equal(&[0, 1, 2, 3, 4]));
    let clients = connect(address, 500);
    assert_eq!(waiting(&sockets), [100; 5]);
    assert_eq!(steering.steered(), 500);
    drop(clients);
}

fn an_excluded_slot() {
    let (steering, sockets, address) = group(4);
    steering.order(&equal(&[0, 1, 2, 3]));
    let _first = connect(address, 40);
    steering.order(&equal(&[0, 1, 3]));
    let _second = connect(address, 60);
    assert_eq!(waiting(&sockets), [30, 30, 10, 30]);
    steering.order(&equal(&[0, 1, 2, 3]));
    let _third = connect(address, 40);
    assert_eq!(waiting(&sockets), [10; 4]);
}

fn nobody_eligible() {
    let (steering, sockets, address) = group(3);
    let _clients = connect(address, 30);
    assert_eq!(waiting(&sockets).iter().sum::<usize>(), 30);
    steering.order(&equal(&[2]));
    steering.order(&equal(&[]));
    let _clients = connect(address, 30);
    assert_eq!(waiting(&sockets).iter().sum::<usize>(), 30);
    assert_eq!(steering.steered(), 0);
}

fn shut_down() {
    let (steering, sockets, address) = group(3);
    if !steering.migrates() {
        panic!("moving what waits needs Linux 5.14");
    }
    steering.order(&equal(&[0, 1, 2]));
    let clients = connect(address, 30);
    steering.order(&equal(&[0, 2]));
    sockets[1].shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(waiting(&[sockets[0].try_clone().unwrap(), sockets[2].try_clone().unwrap()]), [15, 15]);
    assert_eq!([0, 1, 2].map(|slot| steering.steered_to(slot)), [15, 10, 15]);
    drop(clients);
}

fn refusing() {
    let (steering, sockets, address) = group(2);
    steering.order(&equal(&[0, 1]));
    let _clients = connect(address, 10);
    steering.refuse();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // What waits may move all the same, and another order does not end the refusal.
    steering.order(&equal(&[1]));
    sockets[0].shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(waiting(&sockets[1..]), [10]);
    assert!(TcpStream::connect(address).is_err());
}

fn weights() {
    let (steering, sockets, address) = group(4);
    steering.order(&weighing(&[3, 1, 1, 1]));
    let _clients = connect(address, 60);
    assert_eq!(waiting(&sockets), [30, 10, 10, 10]);
    // Every single round.
    for _ in 0..5 {
        let _clients = connect(address, 6);
        assert_eq!(waiting(&sockets), [3, 1, 1, 1]);
    }
    steering.order(&weighing(&[512, 256, 256]));
    let _clients = connect(address, 100);
    assert_eq!(waiting(&sockets), [50, 25, 25, 0]);
    assert_eq!(steering.steered(), 190);
}

const WHOLE: Prefix = Prefix { v4: 32, v6: 128 };

/// A connection from this address.
fn connect_from(from: IpAddr, to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket
}

/// So many different clients of this machine.
fn clients(count: u8) -> impl Iterator<Item = IpAddr> + Clone {
    (1..=count).map(|last| Ipv4Addr::new(127, 0, last % 7, last).into())
}

/// Which slots each client waits at; they are taken.
fn who_waits(sockets: &[Socket]) -> BTreeMap<IpAddr, BTreeSet<u32>> {
    let mut found: BTreeMap<IpAddr, BTreeSet<u32>> = BTreeMap::new();
    for (socket, slot) in sockets.iter().zip(0..) {
        while let Ok((_, peer)) = socket.accept() {
            found.entry(peer.as_socket().unwrap().ip().to_canonical()).or_default().insert(slot);
        }
    }
    found
}

/// Where each of these clients belongs.
fn expected(
    clients: impl Iterator<Item = IpAddr>,
    shares: &[Share],
    prefix: Prefix,
) -> BTreeMap<IpAddr, BTreeSet<u32>> {
    let table = table(shares);
    let slot = |ip: IpAddr| BTreeSet::from([table[place(Source::of(ip, prefix))]]);
    clients.map(|ip| (ip, slot(ip))).collect()
}

fn the_same_slot() {
    for weights in [&[1, 1, 1, 1][..], &[5, 1, 1]] {
        let (steering, sockets, address) = group_at(Choice::BySource(WHOLE), 4, Ipv4Addr::LOCALHOST.into());
        let shares = weighing(weights);
        steering.order(&shares);
        let open: Vec<Socket> = (0..3).flat_map(|_| clients(60)).map(|ip| connect_from(ip, address)).collect();
        let waits = who_waits(&sockets);
        assert_eq!(waits, expected(clients(60), &shares, WHOLE));
        // Not all at one, and everything is counted.
        assert!(waits.values().collect::<BTreeSet<_>>().len() == weights.len());
        assert_eq!(steering.steered(), open.len() as u64);
        assert_eq!((0..4).map(|slot| steering.steered_to(slot)).sum::<u64>(), open.len() as u64);
    }
}

fn prefixes() {
    let prefix = Prefix { v4: 24, v6: 64 };
    let (steering, sockets, address) = group_at(Choice::BySource(prefix), 3, Ipv4Addr::LOCALHOST.into());
    let shares = equal(&[0, 1, 2]);
    steering.order(&shares);
    let _open: Vec<Socket> = clients(70).map(|ip| connect_from(ip, address)).collect();
    let waits = who_waits(&sockets);
    assert_eq!(waits, expected(clients(70), &shares, prefix));
    for network in 0..7 {
        let within = waits.iter().filter(|(ip, _)| matches!(ip, IpAddr::V4(v4) if v4.octets()[2] == network));
        assert_eq!(within.map(|(_, slots)| slots).collect::<BTreeSet<_>>().len(), 1, "{waits:?}");
    }
}

fn ipv6() {
    let shares = equal(&[0, 1, 2, 3]);
    let (steering, sockets, address) = group_at(Choice::BySource(WHOLE), 4, Ipv6Addr::UNSPECIFIED.into());
    steering.order(&shares);
    let to = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port());
    let local = std::iter::repeat_n(IpAddr::V6(Ipv6Addr::LOCALHOST), 5);
    let _open: Vec<Socket> = local.clone().map(|ip| connect_from(ip, to)).collect();
    assert_eq!(who_waits(&sockets), expected(local, &shares, WHOLE));
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
    let _open: Vec<Socket> = clients(40).map(|ip| connect_from(ip, to)).collect();
    assert_eq!(who_waits(&sockets), expected(clients(40), &shares, WHOLE));
}

fn a_slot_leaves() {
    let (steering, sockets, address) = group_at(Choice::BySource(WHOLE), 4, Ipv4Addr::LOCALHOST.into());
    let ask = |shares: &[Share]| {
        steering.order(shares);
        let _open: Vec<Socket> = clients(60).map(|ip| connect_from(ip, address)).collect();
        who_waits(&sockets)
    };
    let before = ask(&equal(&[0, 1, 2, 3]));
    let without = ask(&equal(&[0, 1, 3]));
    for (ip, slots) in &before {
        assert!(without[ip] == *slots || *slots == BTreeSet::from([2]), "{ip}: {slots:?}, then {:?}", without[ip]);
        assert!(!without[ip].contains(&2));
    }
    assert_eq!(ask(&equal(&[0, 1, 2, 3])), before);
}

fn a_client_moves() {
    let all_slots = equal(&[0, 1, 2, 3]);
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        let (steering, sockets, address) = group_at(Choice::BySource(WHOLE), 4, ip);
        if !steering.migrates() {
            panic!("moving what waits needs Linux 5.14");
        }
        steering.order(&all_slots);
        // On a socket of both families there is a client over IPv6, too, and it is one of those that move.
        let own = address.is_ipv6().then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
        let all = clients(60).chain(own);
        let reached = |ip: IpAddr| match ip {
            IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
            IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        };
        let _open: Vec<Socket> = all.clone().map(|ip| connect_from(ip, reached(ip))).collect();
        let before = expected(all.clone(), &all_slots, WHOLE);
        let gone = *before[&all.clone().last().unwrap()].first().unwrap();
        let stay: Vec<Share> = all_slots.iter().copied().filter(|share| share.slot != gone).collect();
        let after = expected(all, &stay, WHOLE);
        assert_ne!(before, after);
        steering.order(&stay);
        sockets[gone as usize].shutdown(Shutdown::Both).unwrap();
        assert_eq!(who_waits(&sockets), after);
    }
}

fn nobody_by_source() {
    let (steering, sockets, address) = group_at(Choice::BySource(WHOLE), 3, Ipv4Addr::LOCALHOST.into());
    let _first = connect(address, 20);
    assert_eq!(waiting(&sockets).iter().sum::<usize>(), 20);
    assert_eq!(steering.steered(), 0);
    steering.order(&equal(&[0, 1, 2]));
    LATE.into_iter().for_each(|flags| send_late_packet(address, flags));
    assert_eq!(steering.steered(), 0);
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!(steering.steered(), 1);
    steering.refuse();
    assert!(TcpStream::connect(address).is_err());
}

/// The kernel asks the program about every packet without a connection, too.
fn late_packets() {
    let (steering, sockets, address) = group(3);
    steering.order(&equal(&[0, 1, 2]));
    for flags in LATE {
        send_late_packet(address, flags);
        let _client = TcpStream::connect(address).unwrap();
    }
    let _clients = connect(address, 2);
    assert_eq!(steering.steered(), 6);
    assert_eq!([0, 1, 2].map(|slot| steering.steered_to(slot)), [2; 3]);
    assert_eq!(waiting(&sockets), [2; 3]);
}

/// Flags of packets that a connection which is gone may still send.
const LATE: [u8; 4] = [0x10, 0x11, 0x04, 0x12];

/// Sends a packet of a connection from port 1, which nobody has.
fn send_late_packet(address: SocketAddr, flags: u8) {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("raw sockets need CAP_NET_RAW");
    let segment = segment(1, address.port(), flags);
    assert_eq!(raw.send_to(&segment, &SockAddr::from(address)).unwrap(), segment.len());
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
