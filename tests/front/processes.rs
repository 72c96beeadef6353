//! What the workers' processes get: a user, limits, a priority, a core, a root directory; and what else a master does for
//! them and for who operates it.

use crate::paths::can_be_others;
use crate::refusals::check;
use crate::support::*;
use nix::sys::signal::Signal::*;
use std::path::Path;
use std::process::Command;

/// Serves what its process has. Its text is an argument: the user it becomes may not be able to read a file here.
const WHO: &str = r#"
import http.server, json, os, resource, sys
class Who(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
        umask = os.umask(0); os.umask(umask)
        # What nginx does with `error_log /dev/stderr`.
        open("/dev/stderr", "w").write("opened again\n")
        body = json.dumps({
            "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "umask": umask, "nice": os.nice(0),
            "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
            "cpus": sorted(os.sched_getaffinity(0)), "oom": int(open("/proc/self/oom_score_adj").read()),
            "gains": status["NoNewPrivs"], "user": os.environ.get("USER"), "home": os.environ.get("HOME"),
            "slot": os.environ["MAITRED_SLOT"],
        }).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 0), Who).serve_forever()
"#;

/// Says the same of itself, where it may not open its error output again.
const WHO_QUIET: &str = r#"
import http.server, json, os, resource
class Who(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
        body = json.dumps({"uid": os.getresuid(), "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
            "capabilities": [status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 0), Who).serve_forever()
"#;

/// Serves, and does something half a second after it was asked for the first time.
const ONCE: &str = r#"
import http.server, os, socket, sys, threading
def notify(text):
    name = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as socket_: socket_.sendto(text.encode(), "\0" + name[1:])
class Once(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
        if sys.argv[1] == "exit": threading.Timer(0.6, lambda: os._exit(int(sys.argv[2]))).start()
        else: notify(sys.argv[2])
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 0), Once).serve_forever()
"#;

const PYTHON: &str = "/usr/bin/python3";

fn who(maitred: &Maitred) -> serde_json::Value {
    match request(maitred.address()) {
        Reply::Body(text) => serde_json::from_str(&text).unwrap(),
        reply => panic!("{reply:?}: {}", maitred.output()),
    }
}

#[test]
fn workers_run_as_another_user_with_each_adapter_in_each_mode_and_through_an_upgrade() {
    if !can_be_others() {
        return;
    }
    // Not the user whom other tests take: what is under way counts for all of a user's.
    for (adapter, mode) in ["preload", "seccomp"].iter().flat_map(|a| ["handoff", "shared", "kernel"].map(|m| (a, m))) {
        let options = ["-w", "2", "--adapter", adapter, "--mode", mode, "--user", "daemon", "--umask", "027"];
        let more = ["--rlimit", "nofile=500:600", "--rlimit", "core=0", "--oom-score-adjust", "300"];
        let last = ["--nice", "5", "--no-new-privileges", "--cpu-affinity", "auto", "--", PYTHON, "-c", WHO];
        let maitred = Maitred::start(&[&options[..], &more, &last].concat()).ready(2);
        let check = |when: &str| {
            let found = who(&maitred);
            assert_eq!(found["uid"], serde_json::json!([1, 1, 1]), "{when}: {found}");
            assert_eq!(found["gid"], serde_json::json!([1, 1, 1]), "{when}: {found}");
            assert_eq!(found["groups"], serde_json::json!([1]), "{when}: {found}");
            assert_eq!((&found["umask"], &found["nice"], &found["oom"]), (&0o27.into(), &5.into(), &300.into()));
            assert_eq!(
                (&found["nofile"], &found["core"]),
                (&serde_json::json!([500, 600]), &serde_json::json!([0, 0]))
            );
            assert_eq!((found["gains"].as_str(), found["user"].as_str()), (Some("1"), Some("daemon")), "{when}");
            assert_eq!(found["cpus"].as_array().unwrap().len(), 1, "{when}: {found}");
        };
        check("at the start");
        maitred.told(&["reload", "--wait"]);
        check("after a reload");
        maitred.told(&["upgrade"]);
        check("after an upgrade");
        maitred.wait_for_output("opened again");
        maitred.stop();
    }
}

#[test]
fn each_slot_has_a_core_of_its_own() {
    let cores: Vec<usize> = {
        let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
        (0..nix::sched::CpuSet::count()).filter(|core| set.is_set(*core) == Ok(true)).collect()
    };
    let workers = cores.len() + 1;
    let options = ["-w", &workers.to_string(), "--cpu-affinity", "auto", "--", PYTHON, "-c", WHO];
    let maitred = Maitred::start(&options).ready(workers);
    let mut found: Vec<(usize, usize)> = Vec::new();
    for _ in 0..workers {
        let answer = who(&maitred);
        let slot = answer["slot"].as_str().unwrap().parse().unwrap();
        found.push((slot, answer["cpus"][0].as_u64().unwrap() as usize));
    }
    found.sort_unstable();
    let expected: Vec<(usize, usize)> = (0..workers).map(|slot| (slot, cores[slot % cores.len()])).collect();
    assert_eq!(found, expected);
    maitred.stop();
}

#[test]
fn a_root_directory_of_its_own_needs_no_device_in_it() {
    if !can_be_others() {
        return;
    }
    let jail = scratch("jail");
    std::fs::create_dir_all(jail.join("app/data")).unwrap();
    std::fs::copy(static_server(), jail.join("app/server")).unwrap();
    let jail = jail.to_str().unwrap();
    let options = ["-w", "2", "--chroot", jail, "--cwd", "/app/data", "--user", "daemon"];
    let maitred = Maitred::start(&[&options[..], &["--", "../server", "block", "0", "supervised"]].concat()).ready(2);
    assert_eq!(load(maitred.address(), 20, 4).answered, 20, "{:?}", request(maitred.address()));
    for pid in maitred.pids() {
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/root")).unwrap(), Path::new(jail));
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new(jail).join("app/data"));
    }
    maitred.told(&["reload", "--wait"]);
    assert_eq!(load(maitred.address(), 20, 4).answered, 20, "{:?}", request(maitred.address()));
    maitred.stop();
    check(&run(&["--chroot", jail, "--", "server"]), 3, &["cannot find the command", "server"]);
    check(&run(&["--chroot", jail, "--cwd", "/nowhere", "--", "/app/server"]), 2, &["/nowhere", jail, "--cwd"]);
    check(
        &run(&["--chroot", jail, "--adapter", "preload", "--", "/app/server"]),
        3,
        &["--chroot", "--adapter seccomp"],
    );
}

#[test]
fn what_a_worker_cannot_get_is_named() {
    check(&run(&["--user", "no-such-user", "--", "true"]), 2, &["no-such-user", "/etc/passwd"]);
    check(&run(&["--group", "no-such-group", "--", "true"]), 2, &["no-such-group", "/etc/group"]);
    check(&run(&["--user", "4000000000", "--", "true"]), 2, &["4000000000", "--group"]);
    check(&run(&["--rlimit", "nofiles=9", "--", "true"]), 2, &["nofiles", "did you mean nofile?"]);
    check(&run(&["--umask", "999", "--", "true"]), 2, &["--umask", "octal"]);
    check(&run(&["--nice", "20", "--", "true"]), 2, &["--nice", "-20..=19"]);
    check(&run(&["--cpu-affinity", "3-1", "--", "true"]), 2, &["--cpu-affinity", "0-3,8"]);
    check(&run(&["--cpu-affinity", "8000", "--", "true"]), 3, &["--cpu-affinity", "may not use that core"]);
    check(&run(&["--chroot", "/no/such/dir", "--", "true"]), 2, &["--chroot", "no directory"]);
    if can_be_others() {
        let copy = for_ordinary_user(env!("CARGO_BIN_EXE_maitred"));
        let run = |args: &[&str]| {
            let mut command = Command::new(&copy);
            as_ordinary_user(command.arg("--control").arg(scratch("c.sock")).args(args));
            command.output().unwrap()
        };
        check(&run(&["--user", "root", "--", "true"]), 2, &["--user", "cap_setuid", "cap_kill"]);
        check(&run(&["--chroot", "/", "--", "true"]), 2, &["--chroot", "cap_sys_chroot"]);
        check(&run(&["--nice", "-5", "--", "true"]), 3, &["--nice", "only root"]);
        check(&run(&["--oom-score-adjust", "-5", "--", "true"]), 3, &["--oom-score-adjust", "only root"]);
        check(&run(&["--rlimit", "nofile=9999999", "--", "true"]), 3, &["--rlimit", "hard limit"]);
        let private = scratch("private");
        std::fs::write(&private, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let private = private.to_str().unwrap();
        check(&crate::support::run(&["--user", "nobody", "--", private]), 3, &[private, "as user nobody", "denied"]);
    }
}

#[test]
fn the_pid_file_is_there_while_the_master_is() {
    let file = scratch("x.pid");
    let path = file.to_str().unwrap();
    let maitred = Maitred::start(&["-w", "1", "--pid-file", path, "--", PYTHON, "-c", WHO]).ready(1);
    let own = format!("{}\n", maitred.child.id());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), own);
    check(&run(&["--pid-file", path, "--", "true"]), 3, &["runs", &maitred.child.id().to_string(), "--pid-file"]);
    maitred.told(&["upgrade"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), own);
    check(&run(&["--pid-file", path, "--", "true"]), 3, &["runs"]);
    maitred.stop();
    assert!(!file.exists());
}

#[test]
fn others_may_ask_for_the_status_where_the_operator_allows_it_and_for_nothing_else() {
    if !can_be_others() {
        return;
    }
    let copy = for_ordinary_user(env!("CARGO_BIN_EXE_maitred"));
    let ask = |maitred: &Maitred, words: &[&str]| {
        let mut command = Command::new(&copy);
        as_ordinary_user(command.args(words).arg("--control").arg(&maitred.control));
        command.output().unwrap()
    };
    let closed = Maitred::start(&["-w", "1", "--", PYTHON, "-c", WHO]).ready(1);
    assert_eq!(ask(&closed, &["status", "--json"]).status.code(), Some(1));
    closed.stop();
    let maitred =
        Maitred::start(&["-w", "1", "--control-mode", "660", "--control-group", "nogroup", "--", PYTHON, "-c", WHO]);
    let maitred = maitred.ready(1);
    for _ in 0..2 {
        let status = ask(&maitred, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status["pid"], maitred.child.id());
        for words in [&["stop"][..], &["reload"], &["scale", "3"], &["signal", "KILL"], &["upgrade"]] {
            check(&ask(&maitred, words), 1, &["belongs to user 0", "status"]);
        }
        maitred.told(&["upgrade"]);
    }
    maitred.stop();
    check(&run(&["--control-mode", "060", "--", "true"]), 2, &["--control-mode", "660"]);
    check(&run(&["--control-group", "no-such-group", "--", "true"]), 2, &["no-such-group"]);
}

/// A service manager may give a user a few capabilities in place of root's.
#[test]
fn a_worker_of_another_user_keeps_none_of_the_capabilities_of_a_master_that_is_not_root() {
    if !can_be_others() {
        return;
    }
    let rights = "+setuid,+setgid,+kill,+net_bind_service,+sys_ptrace,+dac_read_search";
    let program = ["setpriv", "--reuid", "61641", "--clear-groups", "--regid", "61641"];
    let program = [&program[..], &["--inh-caps", rights, "--ambient-caps", rights, "--bounding-set", rights]].concat();
    let own = scratch("own");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(61641), Some(61641)).unwrap();
    let control = own.join("control.sock");
    let options = ["--control", control.to_str().unwrap(), "-w", "1", "--user", "daemon", "--rlimit", "nofile=64"];
    let maitred = Maitred::start_as(maitred_by(&program), &[&options[..], &["--", PYTHON, "-c", WHO_QUIET]].concat());
    let address = tcp(&maitred.wait_for("worker ready", 1)[0]["address"]);
    let Reply::Body(text) = request(address) else { panic!("{}", maitred.output()) };
    let who: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&who["uid"][0], &who["nofile"][0]), (&1.into(), &64.into()), "{who}");
    for set in who["capabilities"].as_array().unwrap() {
        assert_eq!(set.as_str().unwrap().trim_start_matches('0'), "", "{who}");
    }
    maitred.signal(SIGTERM);
    assert_eq!(maitred.wait().0.code(), Some(0));
}

#[test]
fn an_expected_exit_code_is_no_failure() {
    let once = |codes: &str| {
        let options = ["-w", "1", "--exit-codes", codes, "--max-restarts", "1", "--", PYTHON, "-c", ONCE, "exit", "64"];
        Maitred::start(&options).ready(1)
    };
    let maitred = once("0,64");
    for round in 2..5 {
        assert!(matches!(request(maitred.address()), Reply::Body(_)));
        maitred.wait_for("worker ready", round);
    }
    maitred.stop();
    let maitred = once("0");
    assert!(matches!(request(maitred.address()), Reply::Body(_)));
    maitred.wait_for("worker ready", 2);
    assert!(matches!(request(maitred.address()), Reply::Body(_)));
    assert_eq!(maitred.wait().0.code(), Some(1));
}

#[test]
fn a_worker_that_asks_is_replaced_first_and_then_drained() {
    for word in ["REPLACE=the cache is broken", "maitred REPLACE=the cache is broken"] {
        let maitred = Maitred::start(&["-w", "1", "--", PYTHON, "-c", ONCE, "notify", word]).ready(1);
        let first = maitred.pid(0);
        assert!(matches!(request(maitred.address()), Reply::Body(_)));
        let asked = maitred.wait_for("the worker asks to be replaced", 1);
        assert_eq!(asked[0]["reason"], "the cache is broken");
        maitred.wait_for("worker ready", 2);
        wait_gone(first);
        assert_eq!(maitred.logged("worker forked").len(), 2);
        maitred.signal(SIGTERM);
        assert_eq!(maitred.wait().0.code(), Some(0));
    }
}
