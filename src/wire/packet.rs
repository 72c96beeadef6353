//! Packets of the control channel: UTF-8 text, one `KEY=VALUE` a line, as `sd_notify(3)` has it.
//!
//! Reading is lenient where the future may add (unknown keys are ignored) and strict where a
//! mistake would cost (a known key with a senseless value is [`Malformed`]).

mod workers_side;

pub use workers_side::{read_answer, write_listen, write_note};

use super::address::Address;
use std::fmt::{self, Write};
use std::net::SocketAddr;

/// Longest packet that either side sends or reads; what is longer arrives cut and is malformed.
pub const PACKET_MAX: usize = 4096;

/// Names one request of a worker for an address; the worker chooses it.
pub type RequestId = u64;

/// What a worker tells the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// I want to serve this address.
    Listen(Listen),
    /// I want to serve this UDP address.
    Datagram(Datagram),
    /// `listen` was called: hand me connections from now on.
    Accepting { id: RequestId, backlog: Option<u32>, answer: Option<AnswerTo> },
    /// A program that was executed found this socket among those it inherited: what is it?
    Follow(Follow),
    /// I stopped listening there.
    Close { id: RequestId },
    /// A connection was lost here because no descriptor was free for it (`MSG_CTRUNC`).
    Truncated { id: RequestId },
    /// I am ready, by my own measure (`sd_notify(3)`).
    Ready,
    /// I am about to end (`sd_notify(3)`).
    Stopping,
    /// A line for people (`sd_notify(3)`).
    Status(String),
    /// I am alive (`sd_notify(3)`).
    Watchdog,
    /// Put another worker in my place, for this reason: I serve on until it is ready (`REPLACE=reason`, and
    /// `maitred REPLACE=reason` where only sd_notify's words and such of others are usual).
    Replace(String),
    /// Answer with the same number.
    Ping(u64),
    /// The answer to the master's ping.
    Pong(u64),
}

impl FromWorker {
    /// Whether it is what `sd_notify(3)` can say.
    #[must_use]
    pub fn is_notification(&self) -> bool {
        match self {
            FromWorker::Ready
            | FromWorker::Stopping
            | FromWorker::Status(_)
            | FromWorker::Watchdog
            | FromWorker::Replace(_) => true,
            FromWorker::Listen(_)
            | FromWorker::Datagram(_)
            | FromWorker::Accepting { .. }
            | FromWorker::Follow(_)
            | FromWorker::Close { .. }
            | FromWorker::Truncated { .. }
            | FromWorker::Ping(_)
            | FromWorker::Pong(_) => false,
        }
    }
}

/// A worker's request for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address; port 0 leaves the port to the kernel.
    pub address: Address,
    /// The worker's name for this request.
    pub id: RequestId,
    /// Where the answer goes.
    pub answer: AnswerTo,
    /// The worker's file mode mask, for a socket in the file system.
    pub umask: Option<u32>,
    /// Whether the worker would bind the address by itself if it is not to be shared.
    pub otherwise: Otherwise,
    /// Whether a descriptor shows how long the worker has the socket.
    pub holder: Holder,
}

/// A worker's request for a UDP address. If that is not to be shared, the worker binds it for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The address, with its port.
    pub address: SocketAddr,
    /// The worker's name for this request.
    pub id: RequestId,
    /// Where the answer goes.
    pub answer: AnswerTo,
    /// Whether a descriptor shows how long the worker has the socket.
    pub holder: Holder,
}

/// What a worker does if it may not share an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// It asked for nothing but to share it.
    Nothing,
    /// It binds the address for itself (`ALONE=1`); the answer may be [`ToWorker::Private`].
    BindsItself,
}

/// Whether the master can tell that no process of a worker has a listening socket any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The worker says `CLOSE`.
    Unknown,
    /// Each process that has the socket also has the end of a pipe (`HOLD=1`), which comes as the second
    /// descriptor of the answer: when all are closed, so is the socket.
    Pipe,
}

/// A program's question about a socket that it inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// The socket's inode.
    pub inode: u64,
    /// Where the answer goes.
    pub answer: AnswerTo,
}

/// Where the answer to a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerTo {
    /// The socket on which the request came.
    Sender,
    /// The last descriptor that came with the request (`REPLY=1`): several processes of one worker
    /// share its channel, and each needs its own answer.
    AttachedSocket,
}

/// What gives the worker its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The master, through a hand-off socket.
    Handoff,
    /// The kernel, through a listening socket that all workers share.
    Shared,
}

impl Via {
    fn name(self) -> &'static str {
        match self {
            Via::Handoff => "handoff",
            Via::Shared => "shared",
        }
    }
}

/// Where the listener's socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The socket that the worker sent along became the listener.
    Adopted,
    /// The listener was there before, or the master made it.
    Master,
}

/// What the master tells a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// Here is what you asked for; one descriptor comes with it, or two with [`Holder::Pipe`].
    Listening { address: Address, id: RequestId, via: Via, ownership: Ownership, count: Option<Count> },
    /// Here is the UDP socket that you asked for; one descriptor comes with it, or two with [`Holder::Pipe`].
    Datagram { address: SocketAddr, id: RequestId, ownership: Ownership },
    /// That address is not to be shared: bind it for yourself.
    Private { id: RequestId },
    /// `listen` is done.
    Accepted { id: RequestId },
    /// The socket is one of yours: where it is bound, whether `listen` was called, and in hand-off mode the
    /// socket that has its options.
    Follows { address: Address, id: RequestId, via: Via, listens: Listens, count: Option<Count> },
    /// The errno that `bind` or `listen` is to return.
    Error { errno: i32, id: RequestId },
    /// Answer with the same number.
    Ping(u64),
    /// The answer to the worker's ping.
    Pong(u64),
    /// Finish what you have and exit.
    Stop,
}

/// Whether `listen` was called on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listens {
    /// It is only bound.
    NotYet,
    /// `listen` was called.
    Yes,
}

/// Where a worker may count what it takes from a shared socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Which of the 64-bit numbers in the file, by its index.
    pub place: u32,
    /// The file.
    pub path: String,
}

/// A packet that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not UTF-8.
    NotText,
    /// Longer than [`PACKET_MAX`].
    TooLong,
    /// A line without `=`.
    NoKey(String),
    /// A known key whose value makes no sense.
    Value { key: &'static str, value: String },
    /// A request without the `ID` that its answer needs.
    NoId(&'static str),
}

// By hand, so that a worker which depends on this crate builds no macros.
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::NotText => f.write_str("not UTF-8"),
            Malformed::TooLong => write!(f, "longer than {PACKET_MAX} bytes"),
            Malformed::NoKey(line) => write!(f, "line {line:?} has no '='"),
            Malformed::Value { key, value } => write!(f, "{key}={value:?} makes no sense"),
            Malformed::NoId(request) => write!(f, "{request} without ID"),
        }
    }
}

impl std::error::Error for Malformed {}

/// A packet as read: what it says, and the worker's secret when it came through the rendezvous.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Everything that the packet says, in a fixed order.
    pub says: Vec<FromWorker>,
    /// `TOKEN`, which names the worker on a connection that is not its channel.
    pub token: Option<String>,
}

/// Reads what a worker sent. Only a line feed ends a line: a carriage return may belong to a name.
///
/// # Errors
/// [`Malformed`], saying what is wrong; the rest of such a packet is not used.
pub fn read(bytes: &[u8]) -> Result<Packet, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotText)?;
    let lines = text.split('\n').filter(|line| !line.is_empty());
    let fields = lines
        .map(|line| line.split_once('=').ok_or_else(|| Malformed::NoKey(line.chars().take(80).collect())))
        .collect::<Result<Vec<_>, _>>()?;
    let fields = Fields(fields);

    let mut packet = Packet { says: Vec::new(), token: fields.text("TOKEN").map(str::to_owned) };
    let says = &mut packet.says;
    if let Some(address) = fields.address("LISTEN")? {
        let umask = fields.text("UMASK").and_then(|octal| u32::from_str_radix(octal, 8).ok());
        let otherwise = if fields.is_set("ALONE") { Otherwise::BindsItself } else { Otherwise::Nothing };
        let holder = if fields.is_set("HOLD") { Holder::Pipe } else { Holder::Unknown };
        let (id, answer) = (fields.id("LISTEN")?, fields.answer());
        says.push(FromWorker::Listen(Listen { address, id, answer, umask, otherwise, holder }));
    }
    if let Some(address) = fields.number("DATAGRAM")? {
        let holder = if fields.is_set("HOLD") { Holder::Pipe } else { Holder::Unknown };
        let (id, answer) = (fields.id("DATAGRAM")?, fields.answer());
        says.push(FromWorker::Datagram(Datagram { address, id, answer, holder }));
    }
    if let Some(inode) = fields.number("FOLLOW")? {
        says.push(FromWorker::Follow(Follow { inode, answer: fields.answer() }));
    }
    if fields.address("ACCEPTING")?.is_some() {
        let backlog = fields.number::<i64>("BACKLOG")?.map(longest_if_negative);
        // A worker that does not say where the answer is to go wants none.
        let answer = fields.text("REPLY").map(|_| fields.answer());
        says.push(FromWorker::Accepting { id: fields.id("ACCEPTING")?, backlog, answer });
    }
    if fields.text("CLOSE").is_some() {
        says.push(FromWorker::Close { id: fields.id("CLOSE")? });
    }
    if fields.text("TRUNCATED").is_some() {
        says.push(FromWorker::Truncated { id: fields.id("TRUNCATED")? });
    }
    for (key, said) in
        [("READY", FromWorker::Ready), ("STOPPING", FromWorker::Stopping), ("WATCHDOG", FromWorker::Watchdog)]
    {
        if fields.is_set(key) {
            says.push(said);
        }
    }
    if let Some(status) = fields.text("STATUS") {
        says.push(FromWorker::Status(status.to_owned()));
    }
    if let Some(reason) = fields.text("REPLACE").or_else(|| fields.text("maitred REPLACE")) {
        says.push(FromWorker::Replace(reason.to_owned()));
    }
    says.extend(fields.number("PING")?.map(FromWorker::Ping));
    says.extend(fields.number("PONG")?.map(FromWorker::Pong));
    Ok(packet)
}

struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    fn number<T: std::str::FromStr>(&self, key: &'static str) -> Result<Option<T>, Malformed> {
        let parse = |v: &str| v.parse().map_err(|_| Malformed::Value { key, value: v.to_owned() });
        self.text(key).map(parse).transpose()
    }

    fn address(&self, key: &'static str) -> Result<Option<Address>, Malformed> {
        self.number(key)
    }

    fn is_set(&self, key: &str) -> bool {
        self.text(key) == Some("1")
    }

    fn answer(&self) -> AnswerTo {
        if self.is_set("REPLY") { AnswerTo::AttachedSocket } else { AnswerTo::Sender }
    }

    fn via(&self) -> Via {
        if self.text("VIA") == Some("shared") { Via::Shared } else { Via::Handoff }
    }

    fn count(&self) -> Option<Count> {
        let (place, path) = self.text("COUNT")?.split_once(' ')?;
        Some(Count { place: place.parse().ok()?, path: path.to_owned() })
    }

    fn id(&self, of: &'static str) -> Result<RequestId, Malformed> {
        self.number("ID")?.ok_or(Malformed::NoId(of))
    }
}

/// Writes what the master tells a worker.
#[must_use]
pub fn write(message: &ToWorker) -> String {
    match message {
        ToWorker::Listening { address, id, via, ownership, count } => {
            let mut text = format!("LISTENING={address}\nID={id}\nVIA={}\n", via.name());
            if *ownership == Ownership::Adopted {
                text.push_str("ADOPTED=1\n");
            }
            write_count(&mut text, count.as_ref());
            text
        }
        ToWorker::Datagram { address, id, ownership } => {
            let adopted = if *ownership == Ownership::Adopted { "ADOPTED=1\n" } else { "" };
            format!("LISTENING=udp:{address}\nID={id}\nVIA=shared\n{adopted}")
        }
        ToWorker::Private { id } => format!("PRIVATE=1\nID={id}\n"),
        ToWorker::Accepted { id } => format!("ACCEPTED=1\nID={id}\n"),
        ToWorker::Follows { address, id, via, listens, count } => {
            let mut text = format!("FOLLOWS={address}\nID={id}\nVIA={}\n", via.name());
            if *listens == Listens::Yes {
                text.push_str("LISTENS=1\n");
            }
            write_count(&mut text, count.as_ref());
            text
        }
        ToWorker::Error { errno, id } => format!("ERROR={errno}\nID={id}\n"),
        ToWorker::Ping(n) => format!("PING={n}\n"),
        ToWorker::Pong(n) => format!("PONG={n}\n"),
        ToWorker::Stop => "STOP=1\n".to_owned(),
    }
}

fn write_count(text: &mut String, count: Option<&Count>) {
    if let Some(Count { place, path }) = count {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "COUNT={place} {path}");
    }
}

/// What `listen(2)` makes of a backlog: it takes the number as unsigned and cuts it to the system's limit.
fn longest_if_negative(backlog: i64) -> u32 {
    u32::try_from(backlog).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
