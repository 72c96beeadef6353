//! What a worker writes and reads ([`crate::worker`]).

use super::{Fields, Listens, Malformed, Ownership, RequestId, ToWorker};
use crate::wire::address::Address;
use std::fmt::Write;

/// Writes a worker's `LISTEN` (used by [`crate::worker`]).
#[must_use]
pub fn write_listen(address: &Address, id: RequestId) -> String {
    format!("LISTEN={address}\nID={id}\n")
}

/// Writes a worker's `ACCEPTING` or `CLOSE`.
#[must_use]
pub fn write_note(key: &str, address: &Address, id: RequestId, backlog: Option<u32>) -> String {
    let mut text = format!("{key}={address}\nID={id}\n");
    if let Some(backlog) = backlog {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "BACKLOG={backlog}");
    }
    text
}

/// Reads what the master sent (used by [`crate::worker`]).
///
/// # Errors
/// [`Malformed`]; the master speaks a protocol that this worker does not know.
pub fn read_answer(bytes: &[u8]) -> Result<Option<ToWorker>, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotText)?;
    let fields = Fields(text.split('\n').filter_map(|line| line.split_once('=')).collect());
    let (via, count) = (fields.via(), fields.count());
    let ownership = if fields.is_set("ADOPTED") { Ownership::Adopted } else { Ownership::Master };
    let datagrams = fields.text("LISTENING").and_then(|address| address.strip_prefix("udp:"));
    if let Some(address) = datagrams {
        let address = address.parse().map_err(|_| Malformed::Value { key: "LISTENING", value: address.to_owned() })?;
        return Ok(Some(ToWorker::Datagram { address, id: fields.id("LISTENING")?, ownership }));
    }
    if let Some(address) = fields.address("LISTENING")? {
        return Ok(Some(ToWorker::Listening { address, id: fields.id("LISTENING")?, via, ownership, count }));
    }
    if let Some(address) = fields.address("FOLLOWS")? {
        let listens = if fields.is_set("LISTENS") { Listens::Yes } else { Listens::NotYet };
        return Ok(Some(ToWorker::Follows { address, id: fields.id("FOLLOWS")?, via, listens, count }));
    }
    if fields.is_set("PRIVATE") {
        return Ok(Some(ToWorker::Private { id: fields.id("PRIVATE")? }));
    }
    if fields.is_set("ACCEPTED") {
        return Ok(Some(ToWorker::Accepted { id: fields.id("ACCEPTED")? }));
    }
    if let Some(errno) = fields.number("ERROR")? {
        return Ok(Some(ToWorker::Error { errno, id: fields.id("ERROR")? }));
    }
    if fields.is_set("STOP") {
        return Ok(Some(ToWorker::Stop));
    }
    let ping = fields.number("PING")?.map(ToWorker::Ping);
    Ok(ping.or(fields.number("PONG")?.map(ToWorker::Pong)))
}
