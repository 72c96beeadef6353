//! `maitred up`: apps of a file under one process, as an ordinary user with a home of their own.

use crate::home::{Home, body, chatty, pages};
use crate::refusals::check;
use crate::support::*;
use nix::sys::signal::Signal::*;
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A running `up`, and the lines that it and its apps write.
struct Up {
    child: Child,
    lines: Receiver<String>,
}

impl Up {
    fn start(home: &Home, words: &[&str]) -> Up {
        Up::start_in(home, words, &[])
    }

    fn start_in(home: &Home, words: &[&str], environment: &[(&str, &str)]) -> Up {
        let mut command = home.here(&[&["up"], words].concat());
        command.envs(environment.iter().copied());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, lines) = channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let to = to.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = to.send(line);
                }
            });
        }
        Up { child, lines }
    }

    /// Waits for a line with these words.
    fn says(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nobody says {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.child.id() as i32, signal);
    }

    fn ends(mut self) -> ExitStatus {
        wait_child(&mut self.child)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_changed_file_is_applied_and_nothing_else_is_touched() {
    let home = Home::new();
    let chatty = chatty();
    let file = |workers: u32, mode: &str, greeting: &str, more: &str| {
        home.write(&format!(
            "[app.web]\n{chatty}workers = 1\ndepends_on = [\"db\"]\n[app.db]\n{chatty}workers = {workers}\n\
             [app.other]\n{chatty}workers = 1\nmode = \"{mode}\"\n[app.spoken]\n{chatty}workers = 1\n\
             env = {{ GREETING = \"{greeting}\" }}\n{more}"
        ));
    };
    let gone = format!("[app.gone]\n{chatty}workers = 1\n");
    file(1, "handoff", "hello", &gone);
    assert_eq!(home.said_here(&["up", "--dry-run"]), "db: start\ngone: start\nother: start\nspoken: start\nweb: start");
    let up = Up::start(&home, &[]);
    let served: Vec<String> = (0..5).map(|_| up.says("an app serves")).collect();
    let place = |name: &str| served.iter().position(|line| line.contains(&format!("app=\"{name}\""))).unwrap();
    assert!(place("db") < place("web"), "{served:?}");
    up.says("all apps serve");
    assert_eq!(home.said_here(&["up", "--dry-run"]), "nothing would change");
    let web = home.serves("web", 1);
    let (spoken, _) = home.of("spoken");
    assert!(body(spoken, "/a").ends_with(" hello"));
    up.says("spoken.0| out /a");

    let new = format!("[app.new]\n{chatty}workers = 1\n");
    file(2, "shared", "good day", &new);
    assert_eq!(
        home.said_here(&["up", "--dry-run"]),
        "gone: stop\ndb: scale to 2\nnew: start\nother: restart (mode)\nspoken: reload (env.GREETING)"
    );
    up.signal(SIGHUP);
    home.serves("db", 2);
    home.serves("new", 1);
    home.until("gone", |row| row.is_null());
    home.until("other", |row| row["mode"] == "shared" && row["state"] == "ready");
    while !body(spoken, "/b").ends_with(" good day") {
        std::thread::yield_now();
    }
    let now = home.row("web");
    assert_eq!((&now["pid"], &now["restarts"], &now["addresses"]), (&web["pid"], &web["restarts"], &web["addresses"]));
    assert_eq!(home.said_here(&["up", "--dry-run"]), "nothing would change");

    // A file that is wrong changes nothing.
    home.write("[app.web]\nwrkers = 3\n");
    up.signal(SIGHUP);
    assert!(up.says("cannot apply the file").contains("did you mean"));
    assert_eq!(home.row("web")["pid"], web["pid"]);

    check(&home.here(&["up"]).output().unwrap(), 2, &["maitred.toml:2", "did you mean"]);
    file(2, "shared", "good day", &new);
    check(&home.here(&["up"]).output().unwrap(), 3, &["is up already: pid", "HUP", "maitred down"]);
    // What is written down holds no value.
    let ups = std::fs::read_dir(home.0.join("state/maitred/up")).unwrap();
    let texts: String = ups.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    assert!(texts.contains("env.GREETING") && !texts.contains("good day"), "{texts}");
    assert_eq!(home.said_here(&["down"]), "down: db, new, other, spoken, web");
    assert_eq!(up.ends().code(), Some(0));
    assert!(home.list().is_empty());
    check(&home.here(&["down"]).output().unwrap(), 1, &["no maitred up runs", "maitred stop"]);
}

#[test]
fn what_fails_is_started_again_and_what_its_user_stopped_is_not() {
    let home = Home::new();
    home.write(&format!("workers = 1\n[app.web]\n{0}[app.api]\n{0}", chatty()));
    let up = Up::start(&home, &[]);
    up.says("all apps serve");
    let (_, pid) = home.of("web");
    kill(pid, SIGKILL);
    assert!(up.says("an app has ended").contains("SIGKILL"));
    up.says("an app serves");
    assert_ne!(home.serves("web", 1)["pid"], pid);
    assert_eq!(home.said(&["stop", "api", "--wait"]), "api has ended");
    up.says("an app has stopped");
    assert_eq!(home.said_here(&["up", "--dry-run"]), "api: start");
    up.signal(SIGHUP);
    home.serves("api", 1);
    // When none is left, it ends.
    home.said(&["stop", "web", "api", "--wait"]);
    assert_eq!(up.ends().code(), Some(0));
}

#[test]
fn masters_end_with_a_killed_up_and_the_next_one_takes_over() {
    let home = Home::new();
    home.write(&format!("workers = 1\n[app.web]\n{}", chatty()));
    let up = Up::start(&home, &[]);
    up.says("all apps serve");
    let (_, first) = home.of("web");
    up.signal(SIGKILL);
    // It waits for the end of the old master, and is not refused by what the killed one wrote down.
    let next = Up::start(&home, &["-q"]);
    wait_gone(first);
    assert_ne!(home.serves("web", 1)["pid"], first);
    next.signal(SIGTERM);
    assert_eq!(next.ends().code(), Some(0));
    assert!(home.list().is_empty());
}

#[test]
fn an_app_gets_the_file_that_was_applied_and_not_the_one_that_is_edited() {
    let home = Home::new();
    let file = format!("workers = 1\n[app.web]\n{0}[app.api]\n{0}", chatty());
    home.write(&file);
    let up = Up::start(&home, &[]);
    up.says("all apps serve");
    home.write(&format!("{file}half a lin"));
    kill(home.of("web").1, SIGKILL);
    up.says("an app serves");
    home.serves("web", 1);
    // What is refused is said without what stands there, and tried again at the next HUP.
    home.write(&format!("{file}[app.api.env]\nSECRET = \"hunter2\n"));
    up.signal(SIGHUP);
    let said = up.says("cannot apply the file");
    assert!(said.contains("maitred.toml:9") && !said.contains("hunter2"), "{said}");
    let broken = file.replacen("[app.api]\ncommand = [\"python3\"", "[app.api]\ncommand = [\"false\"", 1);
    assert_ne!(broken, file);
    home.write(&broken);
    up.signal(SIGHUP);
    assert!(up.says("an app is not changed").contains("app=\"api\""));
    assert_eq!(home.said_here(&["up", "--dry-run"]), "api: reload (command)");
    home.write(&file);
    assert_eq!(home.said_here(&["up", "--dry-run"]), "nothing would change");
    up.signal(SIGTERM);
    assert_eq!(up.ends().code(), Some(0));
}

#[test]
fn what_one_app_does_not_reach_the_others_do() {
    let home = Home::new();
    let words = format!("workers = 1\n[app.good]\n{}[app.bad]\ncommand = [\"false\"]\n", chatty());
    home.write(&words);
    let manager = std::os::unix::net::UnixDatagram::bind(home.0.join("notify")).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(home.0.join("notify"), Some(65534), Some(65534)).unwrap();
    }
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |words: &str| {
        let mut packet = [0; 4096];
        loop {
            let length = manager.recv(&mut packet).expect(words);
            if String::from_utf8_lossy(&packet[..length]).contains(words) {
                return;
            }
        }
    };
    let up = Up::start_in(&home, &[], &[("NOTIFY_SOCKET", home.0.join("notify").to_str().unwrap())]);
    up.says("the others do not serve");
    hears("READY=1");
    home.serves("good", 1);
    // Each request is answered, also one that is refused while an app is stopped.
    home.said(&["stop", "good", "--wait"]);
    home.write("wrong");
    up.signal(SIGHUP);
    hears("RELOADING=1");
    hears("READY=1");
    home.write(&words);
    up.signal(SIGHUP);
    home.serves("good", 1);
    up.signal(SIGTERM);
    hears("STOPPING=1");
    assert_eq!(up.ends().code(), Some(0));
}

#[test]
fn a_stop_does_not_wait_for_an_earlier_master_and_one_told_early_hears_it() {
    let home = Home::new();
    let switches = Switches::new();
    // The old master ends only when it may.
    let command = pages(&switches, &["--grace", "60s"], "tidy");
    home.said(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let (_, first) = home.of("web");
    home.said(&["stop", "web"]);
    switches.wait_for("terms-0");
    home.write(&format!("workers = 1\n[app.web]\n{}", chatty()));
    let up = Up::start(&home, &[]);
    up.says("starting the apps");
    up.signal(SIGTERM);
    assert_eq!(up.ends().code(), Some(0));
    assert!(runs(first));
    // And one that is to be restarted while it waits hears the next signal all the same.
    let up = Up::start(&home, &[]);
    up.says("starting the apps");
    home.write(&format!("workers = 1\ndepth = 3\n[app.web]\n{}", chatty()));
    up.signal(SIGHUP);
    up.says("the file has changed");
    switches.on("tidy");
    wait_gone(first);
    home.serves("web", 1);
    up.signal(SIGTERM);
    assert_eq!(up.ends().code(), Some(0));
}

#[test]
fn what_never_serves_ends_it_with_the_code_of_that() {
    let home = Home::new();
    let up = |words: &[&str]| home.here(&[&["up"], words].concat()).output().unwrap();
    check(&up(&[]), 2, &["there is no maitred.toml here or above", "-c"]);
    home.write(
        "[app.web]\ncommand = [\"/no/such/program\"]\n[app.api]\ncommand = [\"false\"]\ndepends_on = [\"web\"]\n",
    );
    let output = up(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot execute /no/such/program") && said.contains("no app could be started"), "{said}");
    check(&up(&["other"]), 2, &["no app \"other\"", "api"]);
    home.write("[app.a]\ncommand = [\"a\"]\ndepends_on = [\"b\"]\n[app.b]\ncommand = [\"b\"]\ndepends_on = [\"a\"]\n");
    check(&up(&[]), 2, &["in a circle: a, b"]);
    home.write("[app.a]\ncommand = [\"a\"]\nname = \"c\"\n[app.b]\ncommand = [\"b\"]\nname = \"c\"\n");
    check(&up(&[]), 2, &["one control socket"]);
    home.write("[app.a]\ncommand = [\"a\"]\nenabled = false\n");
    check(&up(&[]), 2, &["no app is enabled"]);
    home.write("[app.\"../../zz\"]\ncommand = [\"a\"]\n");
    check(&up(&[]), 2, &["a name has 1 to 64 letters"]);
    home.write("[app.a]\ncommand = [\"a\"]\npolicy = \"best\"\n");
    check(&up(&[]), 2, &["[app.a]", "policy"]);
}

#[test]
fn a_file_with_one_app_and_some_of_many() {
    let home = Home::new();
    home.write(&format!("workers = 1\nname = \"solo\"\n{}", chatty()));
    let up = Up::start(&home, &[]);
    up.says("all apps serve");
    home.serves("solo", 1);
    up.signal(SIGINT);
    assert_eq!(up.ends().code(), Some(0));

    home.write(&format!(
        "workers = 1\n[app.web]\n{0}depends_on = [\"db\"]\n[app.db]\n{0}enabled = false\n[app.job]\n{0}[profile.p]\nworkers = 2\n",
        chatty()
    ));
    let up = Up::start(&home, &["--profile", "p", "w*"]);
    up.says("all apps serve");
    home.serves("db", 2);
    home.serves("web", 2);
    assert!(home.row("job").is_null());
    assert_eq!(home.said_here(&["up", "--dry-run"]), "nothing would change");
    up.signal(SIGTERM);
    assert_eq!(up.ends().code(), Some(0));
}

#[test]
fn two_hundred_apps_are_read_at_once() {
    let home = Home::new();
    let mut file = "workers = 1\n".to_owned();
    for number in 0..200 {
        let _ = write!(file, "[app.web-{number}]\ncommand = [\"true\"]\nenv = {{ N = \"{number}\" }}\n");
    }
    home.write(&file);
    assert_eq!(home.said_here(&["up", "--dry-run"]).lines().count(), 200);
    assert_eq!(home.said_here(&["up", "--dry-run", "web-1?"]).lines().count(), 10);
}

#[test]
fn a_state_directory_that_cannot_be_written_hinders_nothing_but_down() {
    let home = Home::new();
    home.write(&format!("workers = 1\n[app.web]\n{}", chatty()));
    // What is there is no directory.
    std::fs::write(home.0.join("state"), "").unwrap();
    let up = Up::start(&home, &[]);
    up.says("cannot write down what runs");
    up.says("all apps serve");
    up.signal(SIGTERM);
    assert_eq!(up.ends().code(), Some(0));
}
