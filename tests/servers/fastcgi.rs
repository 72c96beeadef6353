//! One request by FastCGI (specification 1.0, "Record" and "Management Record Types").

use crate::support::{PATIENCE, Reply, root};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

const BEGIN_REQUEST: u8 = 1;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16).to_be_bytes();
    [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
}

fn pair(name: &str, value: &str) -> Vec<u8> {
    // A length of more than 127 takes four bytes, with the highest bit set.
    let length = |text: &str| (text.len() as u32 | 1 << 31).to_be_bytes();
    [&length(name)[..], &length(value), name.as_bytes(), value.as_bytes()].concat()
}

/// Asks for `tests/workers/slot.php`.
pub fn ask(address: SocketAddr) -> Reply {
    let script = root().join("tests/workers/slot.php");
    let parameters = [
        ("SCRIPT_FILENAME", script.to_str().unwrap()),
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/"),
        ("QUERY_STRING", ""),
        ("REDIRECT_STATUS", "200"),
    ];
    let parameters: Vec<u8> = parameters.iter().flat_map(|(name, value)| pair(name, value)).collect();
    let responder = [0, 1, 0, 0, 0, 0, 0, 0];
    let request =
        [record(BEGIN_REQUEST, &responder), record(PARAMS, &parameters), record(PARAMS, &[]), record(STDIN, &[])];
    let mut answer = Vec::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request.concat())?;
        stream.read_to_end(&mut answer)
    });
    let text = String::from_utf8_lossy(&answer);
    match asked {
        Ok(_) if text.contains("process ") => Reply::Body(text.into_owned()),
        Ok(_) => Reply::Failed(text.into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Reply::Hung,
        Err(error) => Reply::Failed(error.to_string()),
    }
}
