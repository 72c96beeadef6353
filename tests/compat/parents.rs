//! Parents that bind and leave the accepting to their children: by `fork`, by `exec`, by a message.

use crate::case::*;
use crate::sockets::{descendants, ends_whole, free_ports, listening, local};
use crate::support::*;
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub fn all() -> Vec<Case> {
    [
        in_each_mode("HAProxy -W", &[HAPROXY], BOTH, |way| haproxy(way, "-W -db")),
        in_each_mode("HAProxy -Ws", &[HAPROXY], BOTH, |way| haproxy(way, "-Ws -db")),
        in_each_mode("a pre-forker whose parent closes", &[], BOTH, |way| python(way, "close_parent.py", &[])),
        in_each_mode("bound by a parent, execv, then listen", &[], BOTH, |way| python(way, "exec.py", &["execv"])),
        in_each_mode("bound by a parent, pass_fds, then listen", &[], BOTH, |way| python(way, "exec.py", &["pass"])),
        in_each_mode("listened on by a parent, execv, then accept", &[], BOTH, |way| {
            python(way, "exec.py", &["execv", "listen"])
        }),
        in_each_mode("bound by one child, sent to another", &[], BOTH, |way| python(way, "sent.py", &[])),
        in_each_mode("listened on by one child, sent to another", &[], BOTH, |way| python(way, "sent.py", &["listen"])),
        in_each_mode("Node, a server sent to a child and closed by its parent", &[NODE], BOTH, node_handle),
        in_each_mode("options asked and set between bind and listen", &[], &["preload"], |way| {
            python(way, "exec.py", &["execv", "options"])
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const REQUESTS: usize = 30;

fn haproxy(way: Way, how: &str) -> String {
    let port = free_ports(1);
    let file = scratch("haproxy.cfg");
    let configuration = std::fs::read_to_string(root().join("tests/workers/haproxy.cfg")).unwrap();
    std::fs::write(&file, configuration.replace("BIND", &local(port).to_string())).unwrap();
    let line = format!("PATH=$PATH:/usr/sbin; exec haproxy {how} -f {}", file.display());
    serves(way, port, "process", &["sh", "-c", &line])
}

fn python(way: Way, script: &str, words: &[&str]) -> String {
    let port = free_ports(1);
    serves(way, port, "as it was asked", &[&["python3", &program(script), &port.to_string()], words].concat())
}

fn node_handle(way: Way) -> String {
    let port = free_ports(1);
    let maitred = start(way, &["-w", "3"], &["node", &program("handle.js"), &port.to_string()]);
    for _ in 0..2 {
        all_ready(&maitred, 3);
        // Until its child has the server, the parent accepts, and answers nothing; it would alone. Such a request is
        // given up soon.
        let deadline = Instant::now() + 3 * PATIENCE;
        let mut row = 0;
        while row < REQUESTS {
            assert!(Instant::now() < deadline, "{row} answers in a row; {:?}", maitred.log());
            let answered = TcpStream::connect(local(port)).is_ok_and(|client| {
                matches!(exchange(client, Duration::from_secs(1)), Reply::Body(said) if said == "as it was asked")
            });
            row = if answered { row + 1 } else { 0 };
        }
        reload(&maitred);
    }
    maitred.stop();
    "as the kernel".to_owned()
}

/// Every slot is ready and answers, at the address that was asked for and nowhere else; a reload works, and
/// nothing is left.
fn serves(way: Way, port: u16, answer: &str, words: &[&str]) -> String {
    let maitred = start(way, &["-w", "3", "--grace", "10s"], words);
    let mut right = 0;
    for _ in 0..2 {
        all_ready(&maitred, 3);
        let answers = answers(local(port), REQUESTS);
        right += answers.iter().filter(|said| said.contains(answer)).count();
        assert_eq!(right % REQUESTS, 0, "{answers:?}");
        assert_eq!(listening(&descendants(maitred.child.id())), BTreeSet::from([local(port)]));
        if right == REQUESTS {
            reload(&maitred);
        }
    }
    ends_whole(maitred);
    all_of(right, 2 * REQUESTS)
}
