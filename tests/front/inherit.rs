//! The inherit adapter: listening sockets by the conventions that servers know from other managers.
//! Real servers with their presets are in `tests/servers.rs`.

use crate::support::*;
use std::process::Command;

/// Serves on the descriptor that the expression yields.
fn server_on(descriptor: &str) -> String {
    format!(
        "import os, select, socket, sys
env, argv = os.environ, sys.argv
listener = socket.socket(fileno={descriptor})
while True:
    try: connection, _ = listener.accept()
    except BlockingIOError: select.select([listener], [], []); continue
    connection.recv(4096)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + env['MAITRED_SLOT'].encode())
    connection.close()"
    )
}

fn serves(mode: &str, extra: &[&str], script: &str, arguments: &[&str]) {
    let bind = ["--mode", mode, "-w", "2", "-b", "127.0.0.1:0", "--adapter", "inherit"];
    let args = [&bind[..], extra, &["--", "python3", "-c", script], arguments].concat();
    let mut command = maitred();
    // An outer manager's must not reach the workers.
    command.env("EINHORN_FD_9", "9").env("SERVER_STARTER_GENERATION", "99");
    let maitred = Maitred::start_as(command, &args);
    maitred.wait_for("worker counts as ready", 2);
    let tally = load(maitred.address(), 40, 4);
    assert_eq!((tally.answered, tally.hung), (40, 0), "{script}: {:?}", tally.failed);
    let status = maitred.status();
    assert_eq!(status["workers"][1]["adapter"], "inherit");
    if status["mode"] == "kernel" && status["policy"] == "round-robin" {
        assert_eq!(per_worker(&status, "taken"), [20, 20]);
    }
    maitred.stop();
}

#[test]
fn every_convention_names_the_socket() {
    for descriptor in [
        // systemd
        "3 if env['LISTEN_FDS'] == '1' and env['LISTEN_PID'] == str(os.getpid()) and env['LISTEN_FDNAMES'] == 'maitred' else -1",
        // einhorn
        "int(env['EINHORN_FD_0']) if env['EINHORN_FD_COUNT'] == '1' and env['EINHORN_MASTER_PID'] == str(os.getppid()) and 'EINHORN_FD_9' not in env else -1",
        "int(env['EINHORN_FDS'].split()[0]) if env['EINHORN_CHILD_INDEX'] == env['MAITRED_SLOT'] else -1",
        // Server::Starter
        "int(env['SERVER_STARTER_PORT'].rpartition('=')[2]) if env['SERVER_STARTER_GENERATION'] == '1' else -1",
        // inetd, FastCGI
        "0",
        // ours
        "int(env['MAITRED_FD'])",
    ] {
        serves("shared", &[], &server_on(descriptor), &[]);
    }
    serves("kernel", &[], &server_on("int(env['EINHORN_FD_0'])"), &[]);
}

#[test]
fn places_in_the_arguments_name_it() {
    serves("kernel", &[], &server_on("int(argv[1])"), &["{fd}"]);
    let checks_port = server_on("3 if int(argv[1]) == socket.socket(fileno=os.dup(3)).getsockname()[1] else -1");
    serves("shared", &[], &checks_port, &["{port}"]);
}

#[test]
fn presets_add_what_their_programs_read() {
    let script = server_on("int(argv[argv.index('--fd') + 1])");
    serves("kernel", &["--preset", "uvicorn"], &script, &["app:app"]);
    let script = server_on("int(argv[argv.index('--bind') + 1].removeprefix('fd://'))");
    serves("shared", &["--preset", "gunicorn"], &script, &[]);
    serves("kernel", &["--preset", "fastcgi"], &server_on("0"), &[]);
    // It takes them for sockets that do not block.
    let inherited = "(lambda fd: -1 if os.get_blocking(fd) else fd)(int(env['NGINX'].split(';')[0]))";
    serves("shared", &["--preset", "nginx"], &server_on(inherited), &[]);
}

#[test]
fn several_sockets_in_the_order_of_the_command_line() {
    let script = "import os, selectors, socket
listeners = [socket.socket(fileno=int(fd)) for fd in os.environ['MAITRED_FDS'].split()]
assert os.environ['EINHORN_FD_COUNT'] == os.environ['LISTEN_FDS'] == '2'
assert listeners[1].getsockname()[0] == '127.0.0.2'
selector = selectors.DefaultSelector()
for listener in listeners: listener.setblocking(False); selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        try: connection, _ = key.fileobj.accept()
        except BlockingIOError: continue
        connection.setblocking(True)
        connection.recv(4096)
        connection.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nx')
        connection.close()";
    for mode in ["shared", "kernel"] {
        let args = ["--mode", mode, "-w", "2", "-b", "127.0.0.1:0", "-b", "127.0.0.2:0", "--adapter", "inherit"];
        let maitred = Maitred::start(&[&args[..], &["--", "python3", "-c", script]].concat());
        maitred.wait_for("worker counts as ready", 2);
        for listener in maitred.status()["listeners"].as_array().unwrap() {
            let tally = load(tcp(&listener["address"]), 20, 2);
            assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
        }
        maitred.stop();
    }
}

#[test]
fn without_a_socket_to_pass_it_is_refused() {
    for (args, name) in [
        (&["--adapter", "inherit", "--mode", "shared"][..], "--adapter inherit"),
        (&["--adapter", "inherit", "-b", "127.0.0.1:0"], "--adapter inherit"),
        (&["--preset", "puma", "-b", "127.0.0.1:0"], "--preset"),
    ] {
        let control = scratch("control.sock");
        let end = ["-w", "1", "--control", control.to_str().unwrap(), "--", "sleep", "9"];
        let output = run(&[args, &end].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains(name) && text.contains("--mode shared or kernel and at least one --bind"), "{text}");
    }
    let output = Command::new(maitred().get_program()).args(["--preset", "apache", "--", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gunicorn"));
}
