//! Asks the kernel which TCP connections there are (`sock_diag(7)`), without the closed ones that only wait: on a
//! busy machine those are tens of thousands, and `/proc/net/tcp` lists them all.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::unix;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel fills at most 32 KiB of a dump at a time (`NLMSG_GOODSIZE`, netlink(7)).
const BUFFER: usize = 32 * 1024;

/// The sockets that are TCP connections with one of these local ports: the inode of each, and its cookie
/// (`SO_COOKIE`), by which its close is reported.
///
/// # Errors
/// When the kernel has no such interface, or refuses it.
pub fn connections_on(ports: &HashSet<u16>) -> io::Result<HashMap<u64, u64>> {
    connections_of(&[Family::V4, Family::V6], ports)
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`, which also has IPv4 connections that came in on such a socket.
    V6,
}

/// The same for some families. Each costs a walk over all connections of the machine, including the closed ones that
/// wait (`TIME_WAIT`): 10 ms for a hundred thousand.
///
/// # Errors
/// As for [`connections_on`].
pub fn connections_of(families: &[Family], ports: &HashSet<u16>) -> io::Result<HashMap<u64, u64>> {
    let mut found = HashMap::new();
    dump_connections(families, ports, |inode, cookie| {
        found.insert(inode, cookie);
    })?;
    Ok(found)
}

/// A connection with a served port at one of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    /// Its inode.
    pub inode: u64,
    /// Its cookie.
    pub cookie: u64,
    /// The address of this end; an IPv4 address is always given as one.
    pub local: SocketAddr,
    /// The address of the other end.
    pub peer: SocketAddr,
    /// What went over it, if the kernel tells.
    pub activity: Option<Activity>,
}

/// What went over a connection (`struct tcp_info`, `tcp_diag_get_info` in net/ipv4/tcp_diag.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The time since this end last sent data, or since it was made. The kernel counts in jiffies, 1 to 10 ms long.
    pub sent: Duration,
    /// The same for what it received.
    pub received: Duration,
    /// Bytes that came in over its whole life.
    pub bytes_received: u64,
    /// Bytes that the other end has acknowledged.
    pub bytes_acked: u64,
    /// Bytes that the program has not read, and that the other end has not acknowledged.
    pub queues: (u32, u32),
}

impl Activity {
    /// Whether the connection waits for its next request, and has for this long: nothing is unread or on its way, and
    /// what went over it last was an answer, if anything ever came in. A quick answer leaves in the jiffy in which its
    /// request came, so a tie counts as answered; a request that is answered in pieces with a pause looks the same.
    #[must_use]
    pub fn is_idle(&self, after: Duration) -> bool {
        let answered = self.bytes_received == 0 || (self.bytes_acked > 0 && self.sent <= self.received);
        self.queues == (0, 0) && answered && self.sent.min(self.received) >= after
    }
}

/// All connections that have one of these ports at either end, with what went over them.
///
/// # Errors
/// As for [`connections_on`].
pub fn talks_on(families: &[Family], ports: &HashSet<u16>) -> io::Result<Vec<Talk>> {
    let mut found = Vec::new();
    for family in families {
        let (code, socket_id) = match family {
            Family::V4 => (AF_INET, SocketId::new_v4()),
            Family::V6 => (AF_INET6, SocketId::new_v6()),
        };
        ask_about_tcp(code, socket_id, connected(), ExtensionFlags::INFO, &mut |answer| {
            let id = &answer.header.socket_id;
            if !ports.contains(&id.source_port) && !ports.contains(&id.destination_port) {
                return;
            }
            let plain = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
            found.push(Talk {
                inode: u64::from(answer.header.inode),
                cookie: u64::from_ne_bytes(id.cookie),
                local: plain(id.source_address, id.source_port),
                peer: plain(id.destination_address, id.destination_port),
                activity: activity(answer),
            });
        })?;
    }
    Ok(found)
}

fn activity(answer: &InetResponse) -> Option<Activity> {
    let info = answer.nlas.iter().find_map(|nla| if let Nla::TcpInfo(info) = nla { Some(info) } else { None })?;
    let u32_at = |offset: usize| Some(u32::from_ne_bytes(info.get(offset..offset + 4)?.try_into().ok()?));
    let u64_at = |offset: usize| Some(u64::from_ne_bytes(info.get(offset..offset + 8)?.try_into().ok()?));
    // The offsets are those of `struct tcp_info` in include/uapi/linux/tcp.h, which only grows at its end.
    Some(Activity {
        sent: Duration::from_millis(u32_at(44)?.into()),
        received: Duration::from_millis(u32_at(52)?.into()),
        bytes_acked: u64_at(120)?,
        bytes_received: u64_at(128)?,
        queues: (answer.header.recv_queue, answer.header.send_queue),
    })
}

/// The cookies of the same connections; also of those that no process has open any more and that the kernel is
/// ending.
///
/// # Errors
/// As for [`connections_on`].
pub fn cookies_on(families: &[Family], ports: &HashSet<u16>) -> io::Result<HashSet<u64>> {
    let mut found = HashSet::new();
    dump_connections(families, ports, |_, cookie| {
        found.insert(cookie);
    })?;
    Ok(found)
}

/// The states of a connection that a process may have open.
fn connected() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING
}

fn dump_connections(families: &[Family], ports: &HashSet<u16>, mut each: impl FnMut(u64, u64)) -> io::Result<()> {
    let mut each = |inode, cookie, local: SocketAddr| {
        if ports.contains(&local.port()) {
            each(inode, cookie);
        }
    };
    families.iter().try_for_each(|family| dump_one(*family, connected(), &mut each))
}

/// All listening TCP sockets: inode and address.
///
/// # Errors
/// As for [`connections_on`].
pub fn listening() -> io::Result<Vec<(u64, SocketAddr)>> {
    let mut found = Vec::new();
    dump(StateFlags::LISTEN, |inode, _, local| found.push((inode, local)))?;
    Ok(found)
}

/// Passes to `each` every TCP socket of either family that is in one of these states.
fn dump(states: StateFlags, mut each: impl FnMut(u64, u64, SocketAddr)) -> io::Result<()> {
    dump_one(Family::V4, states.clone(), &mut each)?;
    dump_one(Family::V6, states, &mut each)
}

fn dump_one(family: Family, states: StateFlags, each: &mut impl FnMut(u64, u64, SocketAddr)) -> io::Result<()> {
    match family {
        Family::V4 => dump_family(AF_INET, SocketId::new_v4(), states, each),
        Family::V6 => dump_family(AF_INET6, SocketId::new_v6(), states, each),
    }
}

fn dump_family(
    family: u8,
    socket_id: SocketId,
    states: StateFlags,
    each: &mut impl FnMut(u64, u64, SocketAddr),
) -> io::Result<()> {
    ask_about_tcp(family, socket_id, states, ExtensionFlags::empty(), &mut |found| {
        let id = &found.header.socket_id;
        let cookie = u64::from_ne_bytes(id.cookie);
        each(u64::from(found.header.inode), cookie, (id.source_address, id.source_port).into());
    })
}

fn ask_about_tcp(
    family: u8,
    socket_id: SocketId,
    states: StateFlags,
    extensions: ExtensionFlags,
    each: &mut impl FnMut(&InetResponse),
) -> io::Result<()> {
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
    ask_for_all(SockDiagMessage::InetRequest(request), &mut |answer| {
        if let SockDiagMessage::InetResponse(found) = answer {
            each(&found);
        }
    })
}

/// Inodes of the connections that were accepted on these socket files: what `accept` returns has the listener's name.
/// In `/proc/net/unix` names cannot be told from lines, and any process can choose a name that breaks them.
///
/// # Errors
/// As for [`connections_on`].
pub fn accepted_on(paths: &HashSet<PathBuf>) -> io::Result<HashSet<u64>> {
    let (state_flags, show_flags) = (unix::StateFlags::ESTABLISHED, unix::ShowFlags::NAME);
    let request = unix::UnixRequest { state_flags, show_flags, inode: 0, cookie: [0xff; 8] };
    let mut found = HashSet::new();
    ask_for_all(SockDiagMessage::UnixRequest(request), &mut |answer| {
        if let SockDiagMessage::UnixResponse(socket) = answer
            && let Some(unix::nlas::UnixDiagName::Pathname(path)) = socket.name()
            && paths.contains(Path::new(path))
        {
            found.insert(u64::from(socket.header.inode));
        }
    })?;
    Ok(found)
}

/// Asks for all sockets of a kind.
fn ask_for_all(request: SockDiagMessage, each: &mut impl FnMut(SockDiagMessage)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut buffer = vec![0; BUFFER];
    loop {
        let size = socket.recv(&mut &mut buffer[..], 0)?;
        if read_piece(buffer.get(..size).unwrap_or(&buffer), each)? == Piece::Last {
            return Ok(());
        }
    }
}

/// A piece of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    More,
    Last,
}

fn read_piece(mut rest: &[u8], each: &mut impl FnMut(SockDiagMessage)) -> io::Result<Piece> {
    while !rest.is_empty() {
        let message = <NetlinkMessage<SockDiagMessage>>::deserialize(rest).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => each(answer),
            NetlinkPayload::Done(_) => return Ok(Piece::Last),
            NetlinkPayload::Error(error) => {
                return Err(io::Error::from_raw_os_error(error.raw_code().saturating_neg()));
            }
            _ => {}
        }
        let length = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(length.max(16)..).unwrap_or_default();
    }
    Ok(Piece::More)
}

#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let _ = read_piece(bytes, &mut |_| {});
}

/// A connection as the kernel can look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its cookie (`SO_COOKIE`).
    pub cookie: u64,
    /// The address of this end.
    pub local: SocketAddr,
    /// The address of the other end.
    pub peer: SocketAddr,
}

/// Queries that are sent in one packet; their answers must fit into the socket's buffer.
const QUESTIONS: usize = 64;
/// One answer is far shorter.
const ANSWER_MAX: usize = 4096;

/// Queries single connections, each of which the kernel looks up in its table. That takes one microsecond, whereas a
/// dump is a walk over all connections.
pub struct Asking(Socket);

impl Asking {
    /// A socket for queries.
    ///
    /// # Errors
    /// When no descriptor is free, or the kernel has no such interface.
    pub fn new() -> io::Result<Asking> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Asking(socket))
    }

    /// Passes to `each` the cookies of those that no process has open any more.
    ///
    /// # Errors
    /// When not all were answered; nothing is known about the rest.
    pub fn closed(&self, connections: &[Connection], mut each: impl FnMut(u64)) -> io::Result<()> {
        let mut buffer = [0; ANSWER_MAX];
        for questions in connections.chunks(QUESTIONS) {
            let packet: Vec<u8> =
                questions.iter().zip(0..).flat_map(|(about, number)| question(about, number)).collect();
            self.0.send(&packet, 0)?;
            for _ in questions {
                // The kernel has answered by the time the packet is sent.
                let size = self.0.recv(&mut &mut buffer[..], 0)?;
                let answer = <NetlinkMessage<SockDiagMessage>>::deserialize(buffer.get(..size).unwrap_or(&buffer));
                let answer = answer.map_err(io::Error::other)?;
                let about = questions.get(answer.header.sequence_number as usize);
                let closed = match answer.payload {
                    // A connection that only waits, or that the kernel is ending, belongs to no process.
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => found.header.inode == 0,
                    NetlinkPayload::Error(_) => true,
                    _ => false,
                };
                if let Some(about) = about.filter(|_| closed) {
                    each(about.cookie);
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asking")
    }
}

fn question(about: &Connection, number: u32) -> Vec<u8> {
    let family = if about.local.is_ipv4() { AF_INET } else { AF_INET6 };
    let socket_id = SocketId {
        source_port: about.local.port(),
        destination_port: about.peer.port(),
        source_address: about.local.ip(),
        destination_address: about.peer.ip(),
        interface_id: 0,
        cookie: about.cookie.to_ne_bytes(),
    };
    let states = StateFlags::all();
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn closed(asking: &Asking, connections: &[Connection]) -> Vec<u64> {
        let mut found = Vec::new();
        asking.closed(connections, |cookie| found.push(cookie)).unwrap();
        found
    }

    #[test]
    fn who_is_open_and_who_is_not_is_known_one_by_one() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let to = if address.contains("1:0") || address.contains("1]") {
                listener.local_addr().unwrap()
            } else {
                // An IPv4 client on an IPv6 socket.
                SocketAddr::from(([127, 0, 0, 1], port))
            };
            let mut open: Vec<_> = (0..150)
                .map(|_| {
                    let client = TcpStream::connect(to).unwrap();
                    let (server, peer) = listener.accept().unwrap();
                    let cookie = socket2::SockRef::from(&server).cookie().unwrap();
                    let connection = Connection { cookie, local: server.local_addr().unwrap(), peer };
                    (connection, client, server)
                })
                .collect();
            let all: Vec<Connection> = open.iter().map(|(connection, ..)| *connection).collect();
            let asking = Asking::new().unwrap();
            assert!(closed(&asking, &all).is_empty(), "{address}");
            // Closed by the server first, by the client first, and by the server alone.
            let ended: Vec<_> = open.drain(..3).collect();
            let mut kept = Vec::new();
            for (index, (_, client, server)) in ended.into_iter().enumerate() {
                match index {
                    0 => drop((server, client)),
                    1 => {
                        drop(client);
                        drop(server);
                    }
                    _ => {
                        drop(server);
                        kept.push(client);
                    }
                }
            }
            let mut gone = closed(&asking, &all);
            gone.sort_unstable();
            let mut expected: Vec<u64> = all[..3].iter().map(|connection| connection.cookie).collect();
            expected.sort_unstable();
            assert_eq!(gone, expected, "{address}");
        }
    }

    #[test]
    fn a_connection_is_idle_between_an_answer_and_the_next_request() {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let inode = crate::sys::fd::inode(std::os::fd::AsFd::as_fd(&server)).unwrap();
        let ports = HashSet::from([address.port()]);
        let is_idle = || {
            let talks = talks_on(&[Family::V4], &ports).unwrap();
            // The other end has the port as its peer's.
            assert_eq!(talks.iter().filter(|talk| talk.peer == address).count(), 1);
            let talk = talks.iter().find(|talk| talk.inode == inode).unwrap();
            assert_eq!(talk.local, address);
            talk.activity.unwrap().is_idle(Duration::ZERO)
        };
        assert!(is_idle(), "nothing was ever asked");
        client.write_all(b"request").unwrap();
        assert!(!is_idle(), "a request waits");
        server.read_exact(&mut [0; 7]).unwrap();
        assert!(!is_idle(), "a request is being answered");
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        assert!(is_idle(), "it was answered");
        let silent = Activity {
            sent: Duration::from_millis(900),
            received: Duration::from_millis(904),
            bytes_received: 7,
            bytes_acked: 6,
            queues: (0, 0),
        };
        assert!(!silent.is_idle(Duration::from_secs(1)));
        assert!(silent.is_idle(Duration::from_millis(900)));
        assert!(!Activity { queues: (0, 1), ..silent }.is_idle(Duration::ZERO));
        // The next request has come.
        assert!(!Activity { received: Duration::from_millis(800), ..silent }.is_idle(Duration::ZERO));
    }

    #[test]
    fn any_error_is_an_error() {
        let mut message = [20_u32, 2, 0, 0, 0].map(u32::to_ne_bytes);
        for code in [i32::MIN, -libc::EPERM] {
            message[4] = code.to_ne_bytes();
            let error = read_piece(message.as_flattened(), &mut |_| {}).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(code.saturating_neg()));
        }
        // An acknowledgement says nothing.
        message[4] = [0; 4];
        assert!(read_piece(message.as_flattened(), &mut |_| {}).is_err());
    }

    #[test]
    fn names_that_others_choose_hide_no_connection() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::net::{UnixListener, UnixStream};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        // Neither text nor a single line.
        let strange = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        let name = [&[0, 0xff][..], format!("\n0: 3 0 0 1 3 7 {}\n\n", path.display()).as_bytes()].concat();
        strange.bind(&socket2::SockAddr::unix(std::ffi::OsStr::from_bytes(&name)).unwrap()).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let inode = crate::sys::fd::inode(std::os::fd::AsFd::as_fd(&server)).unwrap();
        let paths = HashSet::from([path]);
        assert_eq!(accepted_on(&paths).unwrap(), HashSet::from([inode]));
        drop((client, server));
        assert_eq!(accepted_on(&paths).unwrap(), HashSet::new());
    }
}
