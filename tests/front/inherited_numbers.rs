//! Descriptors that the master is started with: each is a socket to listen on, or one line says which is not.

use crate::refusals::check;
use crate::support::*;
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};

/// Runs the binary with a shell's redirections, after which `$$` is its process id.
fn run_with(redirections: &str, before: &str, args: &[&str]) -> Output {
    let mut shell = std::process::Command::new("bash");
    let control = scratch("control.sock");
    let script = format!("{before} exec \"$@\" {redirections}");
    shell.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_maitred"), "run", "--control"]).arg(&control);
    for name in ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WEB_CONCURRENCY"] {
        shell.env_remove(name);
    }
    shell.args(args).args(["--", "true"]).stdin(Stdio::null()).output().unwrap()
}

fn passed(count: &str) -> String {
    format!("export LISTEN_PID=$$ LISTEN_FDS={count};")
}

#[test]
fn a_number_that_nothing_is_open_under_is_named_and_never_one_of_the_masters_own() {
    for number in 3..40 {
        let bind = format!("fd://{number}");
        let output = run_with(&format!("{number}<&-"), "", &["-b", &bind]);
        check(
            &output,
            3,
            &[&format!("descriptor {number} (named by --bind)"), "nothing is open there", "pass the socket"],
        );
    }
}

#[test]
fn a_number_of_passed_sockets_that_is_not_true_is_named() {
    let closed = "3<&- 4<&-";
    for count in ["1", "2", "20", "1024"] {
        check(
            &run_with(closed, &passed(count), &[]),
            3,
            &["descriptor 3 (named by LISTEN_FDS)", "nothing is open there"],
        );
    }
    for count in ["-5", "x", "''", "1025", "99999999999"] {
        check(&run_with(closed, &passed(count), &[]), 3, &["LISTEN_FDS=", "no number of descriptors", "unset both"]);
    }
}

#[test]
fn one_that_is_no_socket_to_listen_on_is_named() {
    check(
        &run_with("3</dev/null", "", &["-b", "fd://3"]),
        3,
        &["descriptor 3", "no socket", "TCP or Unix stream socket"],
    );
    check(&run_with("3</dev/null", &passed("1"), &[]), 3, &["descriptor 3 (named by LISTEN_FDS)", "no socket"]);
    // A socket of another kind, a connection, and one that is bound to nothing.
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let pair = std::os::unix::net::UnixStream::pair().unwrap();
    let cases: [(OwnedFd, &str); 4] = [
        (datagrams.into(), "no stream socket"),
        (connection.into(), "a connection"),
        (pair.0.into(), "a connection"),
        (unbound.into(), "bound to no address"),
    ];
    for (socket, what) in cases {
        check(&run_with_third(socket, &["-b", "fd://3"]), 3, &["descriptor 3 (named by --bind)", what]);
    }
}

/// Runs the binary with this as its descriptor 3.
fn run_with_third(socket: OwnedFd, args: &[&str]) -> Output {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$@\" 3<&0 0</dev/null", "sh", env!("CARGO_BIN_EXE_maitred")]).args(args);
    shell.args(["--", "true"]).stdin(Stdio::from(socket)).output().unwrap()
}

#[test]
fn the_same_number_twice_is_wrong_usage() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run_with_third(listener.into(), &["-b", "fd://3", "-b", "fd://3"]);
    check(&output, 2, &["fd://3 twice", "leave one of them out"]);
}
