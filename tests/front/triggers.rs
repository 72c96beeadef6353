//! Reloads that nobody asks for: when files change, and at certain times.

use crate::support::*;
use std::path::PathBuf;

const SERVER: &str = "import http.server; http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler).serve_forever()";
const CHANGED: &str = "files have changed, reloading";

fn serve(options: &[&str]) -> Maitred {
    Maitred::start(&[&["-w", "1"], options, &["--", "/usr/bin/python3", "-c", SERVER]].concat()).ready(1)
}

fn tree() -> PathBuf {
    let tree = scratch("tree");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::create_dir_all(tree.join("node_modules/x")).unwrap();
    std::fs::write(tree.join("a/b/file"), "").unwrap();
    tree
}

/// Changes something, and expects one reload because of it.
fn brings_a_reload(maitred: &Maitred, what: &str, change: impl FnOnce()) {
    let before = maitred.logged(CHANGED).len();
    change();
    let changes = maitred.wait_for(CHANGED, before + 1);
    let reloads = maitred.wait_for("reload done: the new generation serves", before + 1);
    assert_eq!((changes.len(), reloads.len()), (before + 1, before + 1), "{what}");
}

#[test]
fn a_change_anywhere_in_a_directory_brings_a_reload() {
    let tree = tree();
    let maitred = serve(&["--watch", tree.to_str().unwrap(), "--watch-ignore", "*.log", "--watch-delay", "100ms"]);
    let at = |path: &str| tree.join(path);
    brings_a_reload(&maitred, "a file is written", || std::fs::write(at("a/b/file"), "1").unwrap());
    brings_a_reload(&maitred, "directories come", || std::fs::create_dir_all(at("new/c")).unwrap());
    brings_a_reload(&maitred, "a file in them is made", || std::fs::write(at("new/c/file"), "1").unwrap());
    brings_a_reload(&maitred, "an editor puts another file in the place of one", || {
        std::fs::write(at("a/b/file~"), "2").unwrap();
        std::fs::rename(at("a/b/file~"), at("a/b/file")).unwrap();
    });
    for ignored in ["a/.hidden", "a/x.log", "node_modules/x/y.js", "a/file~"] {
        std::fs::write(at(ignored), "").unwrap();
    }
    brings_a_reload(&maitred, "what is left out brings none", || std::fs::remove_file(at("new/c/file")).unwrap());
    brings_a_reload(&maitred, "many changes at once are one", || {
        (0..500).for_each(|n| std::fs::write(at(&format!("a/{n}")), "").unwrap());
    });
    maitred.stop();
}

#[test]
fn a_directory_that_goes_away_and_comes_back_is_watched_again() {
    let tree = tree();
    let aside = tree.with_extension("aside");
    let maitred = serve(&["--watch", tree.to_str().unwrap(), "--watch-delay", "100ms"]);
    brings_a_reload(&maitred, "it goes", || std::fs::rename(&tree, &aside).unwrap());
    brings_a_reload(&maitred, "another one comes", || std::fs::create_dir_all(tree.join("a/b")).unwrap());
    brings_a_reload(&maitred, "a file in that one", || std::fs::write(tree.join("a/b/file"), "1").unwrap());
    maitred.stop();
}

#[test]
fn a_release_link_that_is_changed_brings_a_reload_and_the_new_release_is_watched() {
    let base = scratch("releases");
    let release = |n: u32| base.join(format!("releases/{n}"));
    (1..3).for_each(|n| std::fs::create_dir_all(release(n)).unwrap());
    let link = base.join("current");
    std::os::unix::fs::symlink(release(1), &link).unwrap();
    let maitred = serve(&["--watch", link.to_str().unwrap(), "--watch-delay", "100ms"]);
    brings_a_reload(&maitred, "a file in the first", || std::fs::write(link.join("x"), "1").unwrap());
    brings_a_reload(&maitred, "the link", || {
        let next = base.join("next");
        std::os::unix::fs::symlink(release(2), &next).unwrap();
        std::fs::rename(&next, &link).unwrap();
    });
    brings_a_reload(&maitred, "a file in the second", || std::fs::write(release(2).join("x"), "1").unwrap());
    maitred.stop();
}

#[test]
fn one_file_is_watched_also_in_a_configuration_and_after_an_upgrade() {
    let tree = tree();
    let file = tree.join("app.toml");
    let text = "workers = 1\nwatch = [\"app.toml\"]\nwatch-delay = \"100ms\"\nshare-port-zero = true\n";
    let command = format!("command = [\"/usr/bin/python3\", \"-c\", {SERVER:?}]\n");
    std::fs::write(&file, format!("{text}{command}")).unwrap();
    let maitred = Maitred::start_exactly(&["-c", file.to_str().unwrap()]).ready(1);
    let write = |workers: u32| {
        let text = text.replace("workers = 1", &format!("workers = {workers}"));
        std::fs::write(&file, format!("{text}{command}")).unwrap();
    };
    brings_a_reload(&maitred, "the file", || write(2));
    maitred.told(&["upgrade"]);
    brings_a_reload(&maitred, "the file, after an upgrade", || write(3));
    std::fs::write(tree.join("other"), "").unwrap();
    maitred.status_until(|status| status["workers"].as_array().unwrap().len() == 3);
    std::fs::write(&file, "nonsense").unwrap();
    maitred.wait_for("cannot reload; the running workers serve on", 1);
    assert!(matches!(request(maitred.address()), Reply::Body(_)));
    maitred.stop();
}

#[test]
fn files_that_maitred_writes_itself_bring_no_reload() {
    let tree = tree();
    let at = |name: &str| tree.join(name).to_str().unwrap().to_owned();
    let (log, out, pid) = (at("m.log"), at("out.log"), at("x.pid"));
    let options = ["--watch", tree.to_str().unwrap(), "--watch-delay", "100ms", "--out-file", &out, "--pid-file", &pid];
    let maitred = serve(&options);
    // As the log would: it is read from standard error here.
    std::fs::write(&log, "").unwrap();
    maitred.wait_for("reload done: the new generation serves", 1);
    // Each reload writes there, and there would be no end to it.
    for round in 0..5 {
        std::fs::write(&out, format!("{round}\n")).unwrap();
        std::fs::write(format!("{out}.1"), "").unwrap();
        assert!(matches!(request(maitred.address()), Reply::Body(_)));
    }
    brings_a_reload_after(&maitred, 1, || std::fs::write(tree.join("a/b/file"), "1").unwrap());
    let changed = maitred.logged(CHANGED);
    assert!(changed[1]["path"].as_str().unwrap().ends_with("a/b/file"), "{changed:?}");
    maitred.stop();
}

/// So many came before, and one more comes.
fn brings_a_reload_after(maitred: &Maitred, before: usize, change: impl FnOnce()) {
    assert_eq!(maitred.logged(CHANGED).len(), before);
    brings_a_reload(maitred, "the one that counts", change);
}

/// As the kubelet does it: a link to a directory is replaced by one to another directory.
#[test]
fn a_mounted_volume_of_kubernetes_and_the_target_of_a_link_are_watched() {
    let volume = scratch("volume");
    let publish = |number: u32| {
        let now = volume.join(format!("..2026_{number}"));
        std::fs::create_dir_all(&now).unwrap();
        std::fs::write(now.join("app.conf"), number.to_string()).unwrap();
        std::os::unix::fs::symlink(&now, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    publish(1);
    std::os::unix::fs::symlink("..data/app.conf", volume.join("app.conf")).unwrap();
    for watched in [volume.clone(), volume.join("app.conf")] {
        let maitred = serve(&["--watch", watched.to_str().unwrap(), "--watch-delay", "100ms"]);
        brings_a_reload(&maitred, "the kubelet publishes", || publish(maitred.child.id()));
        maitred.stop();
    }
    let (target, link) = (scratch("target"), scratch("link"));
    std::fs::write(&target, "1").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let maitred = serve(&["--watch", link.to_str().unwrap(), "--watch-delay", "100ms"]);
    brings_a_reload(&maitred, "the target is written", || std::fs::write(&target, "2").unwrap());
    maitred.stop();
}

#[test]
fn a_large_tree_is_watched() {
    let tree = scratch("large");
    for directory in 0..1000 {
        let directory = tree.join(format!("{}/{directory}", directory / 100));
        std::fs::create_dir_all(&directory).unwrap();
        (0..100).for_each(|file| drop(std::fs::File::create(directory.join(file.to_string())).unwrap()));
    }
    let maitred = serve(&["--watch", tree.to_str().unwrap()]);
    brings_a_reload(&maitred, "one of 100 000 files", || std::fs::write(tree.join("9/999/99"), "1").unwrap());
    maitred.stop();
    std::fs::remove_dir_all(&tree).unwrap();
}

#[test]
fn its_time_comes_once_also_for_two_times_at_the_same_second() {
    let maitred = serve(&["--restart-cron", "* * * * * *", "--restart-cron", "*/1 * * * * *"]);
    let due = maitred.wait_for("its time has come (--restart-cron), reloading", 3);
    let second = |entry: &serde_json::Value| entry["timestamp"].as_str().unwrap()[..19].to_owned();
    let seconds: std::collections::BTreeSet<String> = due.iter().map(second).collect();
    assert_eq!(seconds.len(), due.len(), "{due:?}");
    maitred.wait_for("reload done: the new generation serves", 2);
    maitred.stop();
}

#[test]
fn what_cannot_be_watched_or_never_comes_is_named() {
    use crate::refusals::check;
    check(&run(&["--watch", "/no/such/file", "--", "true"]), 3, &["/no/such/file", "--watch"]);
    check(&run(&["--watch-ignore", "a{", "--", "true"]), 2, &["--watch-ignore"]);
    check(&run(&["--restart-cron", "soon", "--", "true"]), 2, &["--restart-cron", "0 4 * * *"]);
    check(&run(&["--restart-cron", "0 0 30 2 *", "--", "true"]), 2, &["--restart-cron"]);
}
