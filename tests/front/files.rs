//! Files: found, checked, shown, imported, saved, and the units that start them.

use crate::home::{Home, chatty};
use crate::refusals::check;
use crate::support::*;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_file_above_is_found_unless_others_can_write_to_it() {
    let home = Home::new();
    home.write(&format!("workers = 1\n[app.web]\n{}", chatty()));
    let below = home.0.join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    let in_below = |words: &[&str]| home.command(words).current_dir(&below).output().unwrap();
    let output = in_below(&["start", "web"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    home.serves("web", 1);
    assert!(home.said(&["describe", "web"]).contains("--app web"));
    // A word after -- is a program, whatever it is called.
    check(&in_below(&["start", "--", "web"]), 3, &["web"]);
    home.said(&["delete", "web"]);
    std::fs::set_permissions(home.0.join("maitred.toml"), std::fs::Permissions::from_mode(0o666)).unwrap();
    for words in [&["start"][..], &["start", "web"], &["run"], &["up"], &["config", "check"]] {
        check(&in_below(words), 2, &["maitred.toml is not used", "others can write to it", "-c"]);
    }
    check(&home.command(&["run"]).current_dir("/").output().unwrap(), 2, &["no command", "maitred.toml"]);
    // One that was taken is checked again when it is read again: somebody may have exchanged it.
    std::fs::set_permissions(home.0.join("maitred.toml"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(in_below(&["start", "web"]).status.success());
    std::fs::rename(home.0.join("maitred.toml"), home.0.join("other")).unwrap();
    std::os::unix::fs::symlink("other", home.0.join("maitred.toml")).unwrap();
    check(&home.run(&["reload", "web"]), 1, &["maitred.toml is not used", "it is a link"]);
    home.said(&["delete", "web"]);
}

#[test]
fn variables_come_from_files_too() {
    let home = Home::new();
    home.write(&format!("workers = 1\nenv_file = \"a.env\"\n[app.web]\n{}", chatty()));
    let greets = |greeting: &str| crate::home::body(home.of("web").0, "/").ends_with(greeting);
    std::fs::write(home.0.join("a.env"), "# who is greeted\nexport GREETING='from a file'\n").unwrap();
    home.said_here(&["start", "web"]);
    assert!(greets(" from a file"));
    std::fs::write(home.0.join("a.env"), "GREETING=anew\n").unwrap();
    home.said(&["reload", "web", "--wait"]);
    assert!(greets(" anew"));
    home.said(&["delete", "web"]);
    home.said_here(&["start", "-c", "maitred.toml", "--env", "GREETING=typed", "web"]);
    assert!(greets(" typed"));
    home.said(&["delete", "web"]);
    std::fs::remove_file(home.0.join("a.env")).unwrap();
    check(&home.here(&["start", "web"]).output().unwrap(), 2, &["a.env", "No such file"]);
}

#[test]
fn a_file_is_checked_whole_and_shown_with_the_places_of_its_values() {
    let home = Home::new();
    home.write(
        "workers = 2\n[app.web]\ncommand = [\"node\"]\n[app.web.env]\nTOKEN = \"secret\"\n[app.api]\ncommand = [\"api\"]\n\
         [profile.production]\nworkers = 8\n[profile.production.app.api]\npolicy = \"random-two\"\n",
    );
    let said = home.said_here(&["config", "check"]);
    assert!(said.ends_with("maitred.toml is right; apps: api, web; profiles: production"), "{said}");
    let shown = home.said_here(&["config", "show", "--profile", "production", "--app", "api"]);
    for line in [
        "[app.api]",
        "workers = 8  # [profile.production], line 9",
        "policy = \"random-two\"  # [profile.production.app.api], line 11",
        "command = [\"api\"]  # [app.api], line 7",
        "depth = 64  # default",
    ] {
        assert!(shown.lines().any(|there| there == line), "{line}\n{shown}");
    }
    let shown = home.said_here(&["config", "show", "maitred.toml"]);
    assert!(
        shown.contains("workers = 2  # line 1") && shown.contains("TOKEN = \"...\"  # [app.web], line 5"),
        "{shown}"
    );
    assert!(!shown.contains("secret") && shown.parse::<toml::Table>().is_ok(), "{shown}");
    check(&home.here(&["config", "show", "--app", "x"]).output().unwrap(), 2, &["no app \"x\""]);

    home.write("command = [\"a\", \"--password=${HOME}\"]\n");
    assert!(home.said_here(&["config", "show"]).contains("--password=${HOME}\"]  # line 1"));
    home.write("[app.web]\ncommand = [\"a\"]\npolcy = 1\n[app.api]\ncommand = [\"b\"]\ngrace = \"soon\"\n[app.ok]\ncommand = [\"c\"]\n[profile.p]\nmode = \"x\"\n");
    let output = home.here(&["config", "check"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    for word in ["maitred.toml:3: unknown key \"polcy\"; did you mean \"policy\"?", "--grace", "--mode"] {
        assert!(said.contains(word), "{said}");
    }
    // What the schema says of keys is what the program says.
    let schema: Value = serde_json::from_str(&home.said(&["config", "schema"])).unwrap();
    assert!(
        schema["properties"]["workers"].is_object()
            && schema["definitions"]["app"]["properties"]["depends_on"].is_object()
    );
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn files_of_other_managers_become_ours() {
    let home = Home::new();
    let write = |name: &str, text: &str| std::fs::write(home.0.join(name), text).unwrap();
    write(
        "ecosystem.config.js",
        "module.exports = { apps: [{ name: 'web', script: './server.js', instances: 2, exec_mode: 'cluster',\n\
         env_production: { A: 1 }, watch: true }] }; setInterval(() => {}, 1000)",
    );
    write("apps.yaml", "apps:\n  - script: api.py\n    instances: max\n    kill_timeout: 1600\n");
    write("Procfile", "web: node server.js -p $PORT\n");
    write("web.service", "[Service]\nExecStart=/usr/bin/node 'a b.js'\nUser=www\n");
    write("chatty.js", "console.log('hello'); module.exports = [{ script: 'a', env: { B: '1' } }]");
    write("pm2.json", "{\"apps\": [{\"script\": \"npm\", \"args\": \"start\"}]}");
    for (name, words) in [
        ("ecosystem.config.js", &["command = [\"node\", \"./server.js\"]", "workers = 2", "# - web: watch = true"][..]),
        (
            "apps.yaml",
            &["[app.api]", "command = [\"python3\", \"api.py\"]", "grace = \"1600ms\"", "workers = \"auto\""],
        ),
        ("Procfile", &["command = [\"sh\", \"-c\", \"exec node server.js -p $PORT\"]", "bind = \":5000\""]),
        ("chatty.js", &["[app.a]", "command = [\"a\"]"]),
        ("web.service", &["command = [\"/usr/bin/node\", \"a b.js\"]", "# - web: User=www"]),
        ("pm2.json", &["command = [\"npm\", \"start\"]", "workers = 1"]),
    ] {
        let text = home.said_here(&["import", name]);
        words.iter().for_each(|word| assert!(text.contains(word), "{name}: {word}\n{text}"));
        // What comes out is a file that is right.
        home.write(&text);
        home.said_here(&["config", "check"]);
    }
    write(
        "endless.js",
        "for (let n = 0; n < 200; n++) require('fs').writeSync(1, 'x'.repeat(65536)); module.exports = [{ script: 'a' }]",
    );
    write("bad.js", "module.exports = nothing");
    write("bad.yaml", "a: [");
    write("bad.json", "3");
    for (name, word) in [
        ("bad.js", "nothing is not defined"),
        ("endless.js", "node cannot print it"),
        ("bad.yaml", "line 1"),
        ("bad.json", "it has no apps"),
        ("maitred.toml", "no kind that is known"),
        ("none.json", "No such file"),
    ] {
        check(&home.here(&["import", name]).output().unwrap(), 1, &[name, word]);
    }
}

#[test]
fn what_is_remembered_is_saved_as_a_file_that_runs_the_same() {
    let home = Home::new();
    home.start("web", &["--env", "GREETING=say ${this}", "--grace", "5s"]);
    home.start("api", &[]);
    home.said(&["stop", "api", "--wait"]);
    home.said_here(&["save", "saved.toml"]);
    let path = home.0.join("saved.toml");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let saved: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    let web = &saved["app"]["web"];
    assert_eq!((web["grace"].as_str(), web["workers"].as_integer()), (Some("5s"), Some(2)));
    assert_eq!(web["cwd"].as_str(), root().to_str());
    assert_eq!(saved["app"]["api"]["enabled"].as_bool(), Some(false));
    home.said(&["delete", "all"]);
    home.said_here(&["start", "-c", "saved.toml"]);
    assert!(crate::home::body(home.of("web").0, "/").ends_with(" say ${this}"));
    assert_eq!(home.list().len(), 1);
    // All that is said counts, of a file and typed.
    home.said(&["delete", "all"]);
    home.write(&format!("[app.api]\n{0}[app.site]\n{0}depends_on = [\"api\"]\nprivate = [\":9\"]\n", chatty()));
    home.said_here(&["start", "--private", ":8", "-v", "site"]);
    let saved: toml::Table = home.said(&["save", "--print"]).parse().unwrap();
    let site = &saved["app"]["site"];
    assert_eq!(site["private"].as_array().unwrap().len(), 2);
    assert_eq!((site["depends_on"][0].as_str(), site["verbose"].as_integer()), (Some("api"), Some(1)));
    nix::unistd::mkfifo(&home.0.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    check(&home.here(&["save", "pipe"]).output().unwrap(), 1, &["pipe", "something else is there"]);
    // What it did not write is not overwritten.
    home.said(&["delete", "all"]);
    home.write("workers = 1\n");
    check(&home.here(&["save", "maitred.toml"]).output().unwrap(), 1, &["maitred.toml", "something else is there"]);
    assert_eq!(home.said_here(&["save", "--print"]).lines().next(), Some("# Written by maitred save."));
}

#[test]
fn units_start_what_is_remembered_or_a_file() {
    let home = Home::new();
    check(&home.run(&["startup", "--user"]), 1, &["no app was started in the background"]);
    home.start("shown", &["--env", "GREETING=secret"]);
    let refused = home.run(&["startup", "--user"]);
    check(&refused, 1, &["shown: what --env gave would be in the unit", "maitred save"]);
    home.said(&["delete", "shown"]);
    home.start("web", &["--grace", "50s"]);
    let config = home.0.join("config");
    let units = config.join("systemd/user");
    let output = home.command(&["startup", "--user"]).env("XDG_CONFIG_HOME", &config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("systemctl --user enable --now maitred-web"), "{said}");
    let path = units.join("maitred-web.service");
    let unit = std::fs::read_to_string(&path).unwrap();
    assert!(unit.contains("run --name=web ") && unit.contains("TimeoutStopSec=60"), "{unit}");
    assert!(unit.contains("WantedBy=default.target") && unit.contains("KillMode=mixed"), "{unit}");
    // It may be written anew, but not over one of another file.
    let written = |words: &[&str]| home.here(words).env("XDG_CONFIG_HOME", &config).output().unwrap();
    assert!(written(&["startup", "--user"]).status.success());
    home.write(&format!("[app.web]\n{}", chatty()));
    std::fs::create_dir(home.0.join("web")).unwrap();
    std::fs::copy(home.0.join("maitred.toml"), home.0.join("web/maitred.toml")).unwrap();
    check(&written(&["startup", "--user", "-c", "web/maitred.toml"]), 1, &["maitred-web.service", "something else"]);
    std::fs::write(&path, "[Unit]\n").unwrap();
    let again = home.command(&["startup", "--user"]).env("XDG_CONFIG_HOME", &config).output().unwrap();
    check(&again, 1, &["maitred-web.service", "something else is there"]);

    home.write(&format!("[app.web]\n{0}depends_on = [\"db\"]\n[app.db]\n{0}grace = \"60s\"\n", chatty()));
    let unit = home.said_here(&["startup", "-c", "maitred.toml", "--print"]);
    for word in ["Type=notify", " up --config ", "TimeoutStopSec=100", "WantedBy=multi-user.target"] {
        assert!(unit.contains(word), "{word}\n{unit}");
    }
    check(&home.here(&["startup", "-c", "maitred.toml"]).output().unwrap(), 2, &["--user", "--print"]);
}
