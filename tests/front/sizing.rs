//! As many workers as are needed (`--workers A..B`), and workers that come and go under load.

use crate::support::*;
use std::sync::atomic::AtomicBool;

/// Serves one request at a time, each for a tenth of a second in which it waits for something else: the sleep is its
/// work.
const BLOCKS: &str = r#"
import http.server, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.1); self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", 0), Slow).serve_forever()
"#;

fn size(status: &serde_json::Value) -> usize {
    status["workers"].as_array().unwrap().iter().filter(|worker| worker["state"] == "ready").count()
}

#[test]
fn it_grows_while_connections_wait_and_shrinks_when_it_is_quiet_in_each_mode() {
    for mode in ["handoff", "shared", "kernel"] {
        let options =
            ["-w", "1..3", "--mode", mode, "--scale-down-after", "2s", "--", "/usr/bin/python3", "-c", BLOCKS];
        let maitred = Maitred::start(&options).ready(1);
        let (address, stop) = (maitred.address(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let stopping = Stop(&stop);
            let clients = scope.spawn(|| load_until(address, 12, &stop));
            let status = maitred.status_until(|status| size(status) == 3);
            let last = &status["scaling"]["last"];
            assert_eq!((&status["scaling"]["min"], &status["scaling"]["max"]), (&1.into(), &3.into()));
            assert_eq!((&last["from"], &last["to"]), (&2.into(), &3.into()), "{mode}: {last}");
            assert_eq!(last["because"], "connections wait for every worker");
            drop(stopping);
            let tally = clients.join().unwrap();
            assert_eq!((tally.failed.len(), tally.hung), (0, 0), "{mode}: {:?}", tally.failed);
        });
        let status = maitred.status_until(|status| status["workers"].as_array().unwrap().len() == 1);
        assert_eq!(status["scaling"]["last"]["because"], "fewer were enough for a long time");
        assert!(maitred.told(&["status"]).contains("workers 1..3; from 2 to 1"));
        assert!(maitred.refused(&["scale", "4"]).contains("outside of --workers 1..3"));
        maitred.told(&["scale", "2"]);
        maitred.told(&["reload", "--wait"]);
        maitred.stop();
    }
}

#[test]
fn two_hundred_changes_under_load_lose_nothing() {
    // In shared mode a worker goes on taking connections until its stop signal, on which this server ends at once.
    for mode in ["handoff", "kernel"] {
        let server = root().join("tests/workers/pages.py");
        let options = ["-w", "2", "--mode", mode, "--", "python3", server.to_str().unwrap(), "127.0.0.1:0"];
        let pages = scratch("pages");
        std::fs::create_dir(&pages).unwrap();
        let maitred = Maitred::start(&[&options[..], &[pages.to_str().unwrap()]].concat()).ready(2);
        let changes = if mode == "handoff" { 200 } else { 40 };
        maitred.under_load(8, || {
            for change in 0..changes {
                let (wanted, word) = if change % 2 == 0 { (4, "4") } else { (2, "2") };
                maitred.told(&["scale", word]);
                maitred.status_until(|status| {
                    size(status) == wanted && status["workers"].as_array().unwrap().len() == wanted
                });
            }
        });
        maitred.stop();
    }
}
