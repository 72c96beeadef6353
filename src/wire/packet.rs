//! Packets of the control channel: UTF-8 text, one `KEY=VALUE` a line, as `sd_notify(3)` has it.
//!
//! Reading is lenient where the future may add (unknown keys are ignored) and strict where a
//! mistake would cost (a known key with a senseless value is [`Malformed`]).

use super::address::Address;
use std::fmt::Write;

/// Longest packet that either side sends or reads; what is longer arrives cut and is malformed.
pub const PACKET_MAX: usize = 4096;

/// Names one request of a worker for an address; the worker chooses it.
pub type RequestId = u64;

/// What a worker tells the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// I want to serve this address.
    Listen(Listen),
    /// `listen` was called: hand me connections from now on.
    Accepting { id: RequestId, backlog: Option<u32> },
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
    /// Answer with the same number.
    Ping(u64),
    /// The answer to the master's ping.
    Pong(u64),
}

impl FromWorker {
    /// Whether it is what `sd_notify(3)` can say.
    #[must_use]
    pub fn is_notification(&self) -> bool {
        matches!(self, FromWorker::Ready | FromWorker::Stopping | FromWorker::Status(_) | FromWorker::Watchdog)
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

/// Who gives the worker its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The master, through a hand-off socket.
    Handoff,
    /// The kernel, through a listening socket that all workers share.
    Shared,
}

/// Whose socket the listener is.
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
    /// Here is what you asked for; one descriptor comes with it.
    Listening { address: Address, id: RequestId, via: Via, ownership: Ownership, count: Option<Count> },
    /// The errno that `bind` or `listen` shall return.
    Error { errno: i32, id: RequestId },
    /// Answer with the same number.
    Ping(u64),
    /// The answer to the worker's ping.
    Pong(u64),
    /// Finish what you have and exit.
    Stop,
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
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotText,
    /// Longer than [`PACKET_MAX`].
    #[error("longer than {PACKET_MAX} bytes")]
    TooLong,
    /// A line without `=`.
    #[error("line {0:?} has no '='")]
    NoKey(String),
    /// A known key whose value makes no sense.
    #[error("{key}={value:?} makes no sense")]
    Value { key: &'static str, value: String },
    /// A request without the `ID` that its answer needs.
    #[error("{0} without ID")]
    NoId(&'static str),
}

/// A packet as read: what it says, and the worker's secret when it came through the door.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Everything that the packet says, in a fixed order.
    pub says: Vec<FromWorker>,
    /// `TOKEN`, which names the worker on a connection that is not its channel.
    pub token: Option<String>,
}

/// Reads what a worker sent.
///
/// # Errors
/// [`Malformed`], saying what is wrong; the rest of such a packet is not used.
pub fn read(bytes: &[u8]) -> Result<Packet, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotText)?;
    let lines = text.lines().filter(|line| !line.is_empty());
    let fields = lines
        .map(|line| line.split_once('=').ok_or_else(|| Malformed::NoKey(line.chars().take(80).collect())))
        .collect::<Result<Vec<_>, _>>()?;
    let fields = Fields(fields);

    let mut packet = Packet { says: Vec::new(), token: fields.text("TOKEN").map(str::to_owned) };
    let says = &mut packet.says;
    if let Some(address) = fields.address("LISTEN")? {
        let answer = match fields.text("REPLY") {
            Some("1") => AnswerTo::AttachedSocket,
            _ => AnswerTo::Sender,
        };
        let umask = fields.text("UMASK").and_then(|octal| u32::from_str_radix(octal, 8).ok());
        says.push(FromWorker::Listen(Listen { address, id: fields.id("LISTEN")?, answer, umask }));
    }
    if fields.address("ACCEPTING")?.is_some() {
        let backlog = fields.number::<i64>("BACKLOG")?.map(longest_if_negative);
        says.push(FromWorker::Accepting { id: fields.id("ACCEPTING")?, backlog });
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
        if fields.text(key) == Some("1") {
            says.push(said);
        }
    }
    if let Some(status) = fields.text("STATUS") {
        says.push(FromWorker::Status(status.to_owned()));
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

    fn id(&self, of: &'static str) -> Result<RequestId, Malformed> {
        self.number("ID")?.ok_or(Malformed::NoId(of))
    }
}

/// Writes what the master tells a worker.
#[must_use]
pub fn write(message: &ToWorker) -> String {
    match message {
        ToWorker::Listening { address, id, via, ownership, count } => {
            let via = match via {
                Via::Handoff => "handoff",
                Via::Shared => "shared",
            };
            let mut text = format!("LISTENING={address}\nID={id}\nVIA={via}\n");
            if *ownership == Ownership::Adopted {
                text.push_str("ADOPTED=1\n");
            }
            if let Some(Count { place, path }) = count {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "COUNT={place} {path}");
            }
            text
        }
        ToWorker::Error { errno, id } => format!("ERROR={errno}\nID={id}\n"),
        ToWorker::Ping(n) => format!("PING={n}\n"),
        ToWorker::Pong(n) => format!("PONG={n}\n"),
        ToWorker::Stop => "STOP=1\n".to_owned(),
    }
}

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
    let fields = Fields(text.lines().filter_map(|line| line.split_once('=')).collect());
    if let Some(address) = fields.address("LISTENING")? {
        let via = match fields.text("VIA") {
            Some("shared") => Via::Shared,
            _ => Via::Handoff,
        };
        let ownership = match fields.text("ADOPTED") {
            Some("1") => Ownership::Adopted,
            _ => Ownership::Master,
        };
        let count = fields.text("COUNT").and_then(|text| text.split_once(' '));
        let count = count.and_then(|(place, path)| Some(Count { place: place.parse().ok()?, path: path.to_owned() }));
        return Ok(Some(ToWorker::Listening { address, id: fields.id("LISTENING")?, via, ownership, count }));
    }
    if let Some(errno) = fields.number("ERROR")? {
        return Ok(Some(ToWorker::Error { errno, id: fields.id("ERROR")? }));
    }
    if fields.text("STOP") == Some("1") {
        return Ok(Some(ToWorker::Stop));
    }
    let ping = fields.number("PING")?.map(ToWorker::Ping);
    Ok(ping.or(fields.number("PONG")?.map(ToWorker::Pong)))
}

/// What `listen(2)` makes of a backlog: it takes the number as unsigned and cuts it to the system's limit.
fn longest_if_negative(backlog: i64) -> u32 {
    u32::try_from(backlog).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &str, expected: &[FromWorker]) {
        assert_eq!(read(bytes.as_bytes()).expect(bytes).says, expected);
    }

    #[test]
    fn a_worker_asks_for_an_address() {
        let address: Address = "tcp:127.0.0.1:8080".parse().unwrap();
        check(
            "LISTEN=tcp:127.0.0.1:8080\nID=7\n",
            &[FromWorker::Listen(Listen { address: address.clone(), id: 7, answer: AnswerTo::Sender, umask: None })],
        );
        check(
            "LISTEN=tcp:127.0.0.1:8080\nID=7\nREPLY=1",
            &[FromWorker::Listen(Listen { address, id: 7, answer: AnswerTo::AttachedSocket, umask: None })],
        );
    }

    #[test]
    fn sd_notify_packets_are_understood() {
        check("READY=1\nSTATUS=serving\nMAINPID=4\n", &[FromWorker::Ready, FromWorker::Status("serving".into())]);
        check("WATCHDOG=1", &[FromWorker::Watchdog]);
        check("", &[]);
    }

    #[test]
    fn garbage_is_named() {
        assert_eq!(read(b"\xff\xfe"), Err(Malformed::NotText));
        assert_eq!(read(b"hello"), Err(Malformed::NoKey("hello".into())));
        assert_eq!(read(b"LISTEN=tcp:127.0.0.1:1\n"), Err(Malformed::NoId("LISTEN")));
        assert!(matches!(read(b"LISTEN=nowhere\nID=1"), Err(Malformed::Value { key: "LISTEN", .. })));
        assert!(matches!(read(b"PING=x"), Err(Malformed::Value { key: "PING", .. })));
    }

    #[test]
    fn a_negative_backlog_is_the_longest() {
        check("ACCEPTING=tcp:0.0.0.0:1\nID=1\nBACKLOG=-1", &[FromWorker::Accepting { id: 1, backlog: Some(u32::MAX) }]);
    }

    #[test]
    fn the_masters_words_survive_being_written_and_read() {
        let address: Address = "unix:/run/x.sock".parse().unwrap();
        for message in [
            ToWorker::Listening {
                address: address.clone(),
                id: 1,
                via: Via::Handoff,
                ownership: Ownership::Adopted,
                count: None,
            },
            ToWorker::Listening {
                address,
                id: 2,
                via: Via::Shared,
                ownership: Ownership::Master,
                count: Some(Count { place: 3, path: "/proc/1/fd/9".to_owned() }),
            },
            ToWorker::Error { errno: 98, id: 3 },
            ToWorker::Ping(4),
            ToWorker::Pong(5),
            ToWorker::Stop,
        ] {
            assert_eq!(read_answer(write(&message).as_bytes()), Ok(Some(message)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = read_answer(&bytes);
        }
    }
}
