//! Asking the kernel which TCP connections there are (`sock_diag(7)`), without the closed ones that
//! only wait: on a busy machine those are tens of thousands, and `/proc/net/tcp` lists them all.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use std::collections::HashSet;
use std::io;

/// The kernel fills at most 32 KiB of a dump at a time (`NLMSG_GOODSIZE`, netlink(7)).
const BUFFER: usize = 32 * 1024;

/// Inodes of the sockets that are TCP connections with one of these local ports.
///
/// # Errors
/// When the kernel has no such interface, or refuses it.
pub fn connections_on(ports: &HashSet<u16>) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        dump(family, id, ports, &mut inodes)?;
    }
    Ok(inodes)
}

fn dump(family: u8, socket_id: SocketId, ports: &HashSet<u16>, inodes: &mut HashSet<u64>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let states = StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING;
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
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found))
                    if ports.contains(&found.header.socket_id.source_port) =>
                {
                    inodes.insert(u64::from(found.header.inode));
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
