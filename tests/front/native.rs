//! The protocol, spoken by hand and by the Rust library.

use crate::support::*;

#[test]
fn a_worker_of_thirty_lines_without_a_library() {
    let script = root().join("worker-examples/native.py");
    let args = ["-w", "4", "--adapter", "native", "--", "python3", script.to_str().unwrap(), "127.0.0.1:0"];
    let maitred = Maitred::start(&args).ready(4);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}

#[test]
fn a_returned_connection_goes_to_another_worker() {
    let script = root().join("tests/workers/misbehave.py");
    let args = ["-w", "3", "--adapter", "native", "--", "python3", script.to_str().unwrap(), "return"];
    let maitred = Maitred::start(&args).ready(3);
    let tally = load(maitred.address(), 90, 4);
    assert_eq!((tally.answered, tally.hung), (90, 0), "{:?}", tally.failed);
    let status = maitred.status();
    let returned = per_worker(&status, "returned");
    assert!(returned[0] > 0 && returned[1..] == [0, 0], "{status:#}");
    assert_eq!(per_worker(&status, "taken")[0], 0, "{status:#}");
    maitred.stop();
}

#[test]
fn a_connection_that_is_returned_again_and_again_finds_its_place() {
    let script = root().join("tests/workers/misbehave.py");
    for workers in ["1", "2"] {
        let args = ["-w", workers, "--adapter", "native", "--", "python3", script.to_str().unwrap(), "return-half"];
        let maitred = Maitred::start(&args).ready(workers.parse().unwrap());
        let tally = load(maitred.address(), 20, 2);
        assert_eq!((tally.answered, tally.hung), (20, 0), "{:?}", tally.failed);
        maitred.stop();
    }
}

#[test]
fn the_rust_library_blocking_and_tokio() {
    let listener = example("listener");
    for kind in ["blocking", "tokio"] {
        let maitred = Maitred::start(&["-w", "4", "--adapter", "native", "--", &listener, kind]).ready(4);
        check_exact_spread(&maitred, 400, 16);
        maitred.stop();
        let args = ["-w", "2", "--mode", "shared", "--adapter", "native", "--", &listener, kind];
        let maitred = Maitred::start(&args).ready(2);
        let tally = load(maitred.address(), 50, 4);
        assert_eq!((tally.answered, tally.hung), (50, 0), "{:?}", tally.failed);
        maitred.stop();
    }
}

#[test]
fn axum_with_the_library_as_its_listener() {
    let maitred = Maitred::start(&["-w", "4", "--adapter", "native", "--", &example("axum"), "127.0.0.1:0"]).ready(4);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}

#[test]
fn an_unaware_tokio_server() {
    let maitred = Maitred::start(&["-w", "4", "--", &example("unaware_tokio"), "0"]).ready(4);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}
