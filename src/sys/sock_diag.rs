//! Asking the kernel which TCP connections there are (`sock_diag(7)`), without the closed ones that
//! only wait: on a busy machine those are tens of thousands, and `/proc/net/tcp` lists them all.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;

/// The kernel fills at most 32 KiB of a dump at a time (`NLMSG_GOODSIZE`, netlink(7)).
const BUFFER: usize = 32 * 1024;

/// The sockets that are TCP connections with one of these local ports: the inode of each, and its cookie
/// (`SO_COOKIE`), by which its close is told.
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

/// The same for some families. Each is a walk over all connections of the machine, the closed ones that
/// wait (`TIME_WAIT`) included: 10 ms for a hundred thousand.
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

/// The cookies of the same connections; also of those that nobody has open any more and that the kernel ends.
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

fn dump_connections(families: &[Family], ports: &HashSet<u16>, mut each: impl FnMut(u64, u64)) -> io::Result<()> {
    let states = StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING;
    let mut each = |inode, cookie, local: SocketAddr| {
        if ports.contains(&local.port()) {
            each(inode, cookie);
        }
    };
    families.iter().try_for_each(|family| dump_one(*family, states.clone(), &mut each))
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

/// Shows every TCP socket of either family that is in one of these states.
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
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut buffer = vec![0; BUFFER];
    loop {
        let size = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = &buffer[..size.min(BUFFER)];
        while !rest.is_empty() {
            let message = <NetlinkMessage<SockDiagMessage>>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                    let id = found.header.socket_id;
                    let cookie = u64::from_ne_bytes(id.cookie);
                    each(u64::from(found.header.inode), cookie, (id.source_address, id.source_port).into());
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(16)..).unwrap_or_default();
        }
    }
}
