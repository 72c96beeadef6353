//! Every way of waiting for connections gets its exact share.

use crate::support::*;

fn serves_exactly(args: &[&str]) {
    let maitred = Maitred::start(args).ready(4);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}

#[test]
fn a_server_that_blocks_in_accept() {
    serves_exactly(&["-w", "4", "--", &server(), "block", "0"]);
}

#[test]
fn a_server_with_poll() {
    serves_exactly(&["-w", "4", "--", &server(), "poll", "0"]);
}

#[test]
fn a_server_with_select() {
    serves_exactly(&["-w", "4", "--", &server(), "select", "0"]);
}

#[test]
fn a_server_with_edge_triggered_epoll() {
    serves_exactly(&["-w", "4", "--", &server(), "epoll", "0"]);
}

#[test]
fn a_server_that_registers_with_epoll_before_it_binds_and_listens() {
    serves_exactly(&["-w", "4", "--", &server(), "early", "0"]);
}

#[test]
fn a_server_whose_forked_children_accept_too() {
    for mode in ["block", "poll", "epoll"] {
        serves_exactly(&["-w", "4", "--", &server(), mode, "0", "fork=3"]);
    }
}

#[test]
fn a_server_that_listens_twice_on_one_address() {
    let maitred =
        Maitred::start(&["-w", "4", "-b", "127.0.0.1:0", "--", &server(), "poll", "{port}", "twice"]).ready(8);
    check_exact_spread(&maitred, 400, 16);
    assert_eq!(maitred.status()["listeners"].as_array().unwrap().len(), 1);
    maitred.stop();
}

#[test]
fn a_server_that_is_a_client_first() {
    serves_exactly(&["-w", "4", "--", &server(), "poll", "0", "client"]);
}

#[test]
fn a_server_that_chooses_late_whether_to_block() {
    for mode in ["block", "poll", "epoll"] {
        serves_exactly(&["-w", "4", "--", &server(), mode, "0", "late"]);
    }
}

#[test]
fn a_server_whose_children_close_their_copy_of_the_listener() {
    for mode in ["block", "epoll"] {
        serves_exactly(&["-w", "4", "--", &server(), mode, "0", "children"]);
    }
}

#[test]
fn pythons_threading_http_server() {
    let script = root().join("worker-examples/unaware.py");
    serves_exactly(&["-w", "4", "--", "python3", script.to_str().unwrap(), "0"]);
}

#[test]
fn pythons_asyncio() {
    let script = root().join("tests/workers/asyncio_server.py");
    serves_exactly(&["-w", "4", "--", "python3", script.to_str().unwrap(), "0"]);
}

#[test]
fn a_server_behind_a_shell() {
    let line = format!("{} poll 0; true", server());
    serves_exactly(&["-w", "4", "--", "sh", "-c", &line]);
}

#[test]
fn a_server_behind_a_wrapper_that_closes_descriptors() {
    let line = format!("import subprocess; subprocess.run([{:?}, 'epoll', '0'], close_fds=True)", server());
    serves_exactly(&["-w", "4", "--", "python3", "-c", &line]);
}

#[test]
fn a_server_in_shared_mode_is_answered_by_all_workers_together() {
    for bind in [&["--"][..], &["-b", "127.0.0.1:0", "--"]] {
        let port = if bind.len() == 1 { "0" } else { "{port}" };
        let mut args = vec!["-w", "4", "--mode", "shared"];
        args.extend_from_slice(bind);
        let server = server();
        args.extend_from_slice(&[&server, "epoll", port]);
        let maitred = Maitred::start(&args).ready(4);
        let tally = load(maitred.address(), 400, 16);
        assert_eq!((tally.answered, tally.hung), (400, 0), "{:?}", tally.failed);
        assert_eq!(maitred.status()["totals"]["handed"], 0, "the master gives nothing in shared mode");
        maitred.stop();
    }
}

#[test]
fn a_worker_reads_listen_fds_in_shared_mode() {
    let script = "import os, socket
assert int(os.environ['LISTEN_PID']) == os.getpid() and os.environ['LISTEN_FDS'] == '1'
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nhello')
    connection.close()";
    let args =
        ["-w", "2", "--mode", "shared", "--adapter", "inherit", "-b", "127.0.0.1:0", "--", "python3", "-c", script];
    let maitred = Maitred::start(&args);
    maitred.wait_for("worker forked", 2);
    let tally = load(maitred.address(), 50, 4);
    assert_eq!((tally.answered, tally.hung), (50, 0), "{:?}", tally.failed);
    maitred.stop();
}

#[test]
fn early_bytes_of_a_client_are_not_lost() {
    let switches = Switches::new();
    let line = format!("while ! [ -e {}/go ]; do sleep 0.01; done; exec {} poll $0", switches.path(), server());
    let maitred = Maitred::start(&["-w", "2", "-b", "127.0.0.1:0", "--", "sh", "-c", &line, "{port}"]);
    maitred.wait_for("listening", 1);
    let address = maitred.address();
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load(address, 64, 64));
        // All have connected, and sent their requests right after, before any worker listens.
        maitred.status_until(|s| s["listeners"][0]["queued"] == 64);
        switches.on("go");
        let tally = clients.join().unwrap();
        assert_eq!((tally.answered, tally.hung), (64, 0), "{:?}", tally.failed);
    });
    maitred.stop();
}
