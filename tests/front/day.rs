//! A day of somebody who knows PM2: each verb is typed, and what it prints and does is looked at. The chapter "apps" of the
//! manual tells the same in words.

use crate::home::{Home, body};
use crate::refusals::check;
use crate::support::*;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// A server of Node as one finds them: it answers with its slot, and writes a line for each request.
const SERVER: &str = "
const http = require('http')
http.createServer((request, response) => {
  console.log('GET ' + request.url)
  response.end(`${process.env.NODE_APP_INSTANCE} ${process.env.NODE_ENV || '-'}`)
}).listen(process.argv[2] || 0, '127.0.0.1')
";

#[test]
fn from_the_ecosystem_file_to_the_unit() {
    let home = Home::new();
    let write = |name: &str, text: &str| std::fs::write(home.0.join(name), text).unwrap();
    write("server.js", SERVER);

    // pm2 start server.js -i 2 --name web
    let said = home.said_here(&[
        "start",
        "--name",
        "web",
        "-w",
        "2",
        "-b",
        "127.0.0.1:0",
        "--",
        "node",
        "server.js",
        "{port}",
    ]);
    assert!(said.starts_with("web has started: pid ") && said.contains(", 2 workers, tcp:127.0.0.1:"), "{said}");
    let (address, _) = home.of("web");
    let mut answers: Vec<String> = (0..2).map(|_| body(address, "/")).collect();
    answers.sort();
    assert_eq!(answers, ["0 -", "1 -"]);

    // pm2 list, pm2 jlist, pm2 show web, pm2 pid
    let table = home.said(&["list"]);
    for word in ["NAME", "STATE", "WORKERS", "web", "ready", "2/2"] {
        assert!(table.contains(word), "{table}");
    }
    let row: Value = home.row("web");
    assert_eq!((&row["workers_ready"], &row["restarts"]), (&2.into(), &0.into()));
    assert!(home.said(&["show", "web"]).contains("node server.js"));

    // pm2 logs web --lines 5 --nostream
    home.wait_for_line("web", "out", "GET /");
    assert!(home.said(&["logs", "web", "--out", "-n", "5"]).contains("GET /"));
    let line: Value = serde_json::from_str(&home.said(&["logs", "web", "--out", "-n", "1", "--json"])).unwrap();
    assert_eq!((&line["app"], &line["stream"], &line["line"]), (&"web".into(), &"out".into(), &"GET /".into()));

    // pm2 scale web 3, pm2 scale web -1
    assert_eq!(home.said(&["scale", "web", "3"]), "2 workers become 3");
    home.serves("web", 3);
    assert_eq!(home.said(&["scale", "web", "-1"]), "3 workers become 2");
    home.until("web", |row| row["workers_wanted"] == 2);

    // pm2 reload web, pm2 restart web, pm2 sendSignal SIGUSR2 web, pm2 update
    assert_eq!(home.said(&["reload", "web", "--wait"]), "generation 2 serves");
    assert_eq!(home.said(&["restart", "web", "--wait"]), "generation 3 serves");
    assert_eq!(home.said(&["signal", "web", "SIGCONT"]), "SIGCONT is sent to 2 workers");
    assert!(home.said(&["upgrade", "web"]).contains("goes on in the place of"));
    assert_eq!(home.of("web").0, address);

    // pm2 reloadLogs, pm2 flush
    std::fs::rename(home.log("web", "out"), home.0.join("old.log")).unwrap();
    kill(home.of("web").1, nix::sys::signal::Signal::SIGUSR1);
    while !home.log("web", "out").exists() {
        body(address, "/moved");
    }

    // pm2 stop web, pm2 start web, pm2 restart on what is stopped
    assert_eq!(home.said(&["stop", "web", "--wait"]), "web has ended");
    assert_eq!(home.row("web")["state"], "stopped");
    assert!(home.said(&["start", "web"]).starts_with("web has started"));
    home.said(&["stop", "all", "--wait"]);
    assert!(home.said(&["restart", "web"]).starts_with("web has started"));

    // pm2 ecosystem.config.js --env production
    write(
        "ecosystem.config.js",
        "module.exports = { apps: [\n\
         { name: 'site', script: 'server.js', instances: 2, exec_mode: 'cluster', args: '{port}',\n\
           env_production: { NODE_ENV: 'production' }, max_memory_restart: '300M', kill_timeout: 3000 },\n\
         { name: 'api', script: 'server.js', instances: 1, exec_mode: 'cluster', watch: true }] }",
    );
    let imported = home.said_here(&["import", "ecosystem.config.js"]);
    assert!(imported.contains("# - api: watch = true"), "{imported}");
    home.write(
        &imported
            .replace("[app.site]\n", "[app.site]\nbind = \"127.0.0.1:0\"\n")
            .replace("[app.api]\n", "[app.api]\nshare-port-zero = true\n"),
    );
    home.said_here(&["config", "check"]);
    home.said_here(&["start", "-c", "maitred.toml", "--profile", "production"]);
    home.serves("site", 2);
    home.serves("api", 1);
    assert!(body(home.of("site").0, "/").ends_with(" production"));
    assert_eq!(home.said(&["list", "-q"]), "api\nsite\nweb");

    // pm2 stop "/s.*/", pm2 delete all
    home.said(&["stop", "s*", "--wait"]);
    assert_eq!((&home.row("site")["state"], &home.row("api")["state"]), (&"stopped".into(), &"ready".into()));

    // pm2 save, pm2 startup
    let saved = home.said_here(&["save", "saved.toml"]);
    assert!(saved.starts_with("3 apps are in ") && saved.contains("/saved.toml; maitred startup -c "), "{saved}");
    assert_eq!(std::fs::metadata(home.0.join("saved.toml")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(home.said_here(&["startup", "-c", "saved.toml", "--print"]).contains("up --config "));

    let forgotten = home.said(&["delete", "all"]);
    assert_eq!(forgotten.lines().filter(|line| line.contains(" is forgotten")).count(), 3, "{forgotten}");
    assert!(home.list().is_empty());
    check(&home.run(&["reload", "web"]), 1, &["no maitred named \"web\""]);

    // What PM2 calls otherwise is explained.
    check(&home.run(&["resurrect"]), 2, &["maitred startup", "maitred up"]);
    check(&home.run(&["-i", "max", "--", "node", "server.js"]), 2, &["-w auto"]);
}
