//! DNS servers: they answer over UDP and TCP on one port, which all workers share.

use crate::support::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// A server's name, the program that must be there, and its command at a port with a directory of its own.
type Server = (&'static str, &'static [(&'static str, &'static str)], fn(u16, &str) -> Vec<String>);

/// The servers.
pub const SERVERS: [Server; 2] = [
    ("dnsmasq", &[("dnsmasq", "apt-get install dnsmasq-base")], dnsmasq),
    ("NSD", &[("nsd", "apt-get install nsd")], nsd),
];

/// Questions over each protocol, before and after a reload.
const QUESTIONS: usize = 20;
const WORKERS: usize = 3;
/// The address that `www.test` has.
const ANSWER: [u8; 4] = [1, 2, 3, 4];

/// A question for the address of `www.test` (RFC 1035, section 4).
fn question(id: u16) -> Vec<u8> {
    let header = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    [&header[..], b"\x03www\x04test\0", &[0, 1, 0, 1]].concat()
}

/// Whether an answer to it has the address.
fn is_right(answer: &[u8], id: u16) -> bool {
    answer.starts_with(&id.to_be_bytes()) && answer.windows(4).any(|bytes| bytes == ANSWER)
}

fn over_udp(server: SocketAddr, id: u16) -> bool {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(server).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 512];
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A datagram may be lost, and resolvers ask again.
        let _ = client.send(&question(id));
        match client.recv(&mut buffer) {
            Ok(read) => return is_right(&buffer[..read], id),
            Err(error) => assert!(Instant::now() < deadline, "question {id}: {error}"),
        }
    }
}

fn over_tcp(server: SocketAddr, id: u16) -> bool {
    let mut client = TcpStream::connect(server).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = question(id);
    client.write_all(&[&(asked.len() as u16).to_be_bytes()[..], &asked].concat()).unwrap();
    let mut length = [0; 2];
    client.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    client.read_exact(&mut answer).unwrap();
    is_right(&answer, id)
}

/// Runs a server in one mode; `command` gets the port and a directory of its own.
pub fn serve(mode: &str, command: fn(u16, &str) -> Vec<String>) {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let dir = scratch("dns");
    std::fs::create_dir_all(&dir).unwrap();
    let command = command(port, dir.to_str().unwrap());
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let maitred = Maitred::start_exactly(&[&["--mode", mode, "-w", "3", "--"], &words[..]].concat());
    maitred.wait_for("worker forked", WORKERS);
    let ready = |s: &serde_json::Value| s["workers"].as_array().unwrap().iter().all(|w| w["state"] == "ready");
    let ask = || {
        let status = maitred.status_until(ready);
        assert!(status.to_string().contains(&format!("udp:{server}")), "{status:#}");
        let ids = || 0..QUESTIONS as u16;
        assert_eq!(ids().filter(|id| over_udp(server, *id)).count(), QUESTIONS, "{mode}: over UDP");
        assert_eq!(ids().filter(|id| over_tcp(server, *id)).count(), QUESTIONS, "{mode}: over TCP");
    };
    ask();
    assert_eq!(maitred.told(&["reload", "--wait"]), "generation 2 serves");
    ask();
    maitred.stop();
}

/// dnsmasq, which answers for one name.
fn dnsmasq(port: u16, _: &str) -> Vec<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let line = format!(
        "PATH=$PATH:/usr/sbin; exec dnsmasq -k -p {port} --listen-address=127.0.0.1 --bind-interfaces --no-resolv \
         --no-hosts -C /dev/null --address=/www.test/1.2.3.4 --user={user} --pid-file="
    );
    ["sh", "-c", &line].map(str::to_owned).to_vec()
}

/// NSD, which has a zone.
fn nsd(port: u16, dir: &str) -> Vec<String> {
    let zone = "$ORIGIN test.\n@ 3600 IN SOA ns. root. 1 3600 600 86400 3600\n@ IN NS ns\nns IN A 127.0.0.1\nwww IN A 1.2.3.4\n";
    std::fs::write(format!("{dir}/test.zone"), zone).unwrap();
    let configuration = format!(
        "server:\n ip-address: 127.0.0.1@{port}\n zonesdir: \"{dir}\"\n pidfile: \"\"\n database: \"\"\n username: \"\"\n \
         xfrdfile: \"\"\n zonelistfile: \"\"\n server-count: 1\nremote-control:\n control-enable: no\nzone:\n name: test\n \
         zonefile: test.zone\n"
    );
    std::fs::write(format!("{dir}/nsd.conf"), configuration).unwrap();
    let line = format!("PATH=$PATH:/usr/sbin; exec nsd -d -c {dir}/nsd.conf");
    ["sh", "-c", &line].map(str::to_owned).to_vec()
}
