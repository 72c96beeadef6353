//! The front as its users meet it: servers that need nothing but Rust, a C compiler and Python 3.

mod support;

use support::*;

fn serves_exactly(args: &[&str]) {
    let maitred = Maitred::start(args).ready(4);
    check_exact_spread(&maitred, 400, 16);
    maitred.stop();
}

#[test]
fn a_server_that_blocks_in_accept_gets_its_exact_share() {
    serves_exactly(&["-w", "4", "--", &server(), "block", "0"]);
}

#[test]
fn a_server_with_poll_gets_its_exact_share() {
    serves_exactly(&["-w", "4", "--", &server(), "poll", "0"]);
}

#[test]
fn a_server_with_select_gets_its_exact_share() {
    serves_exactly(&["-w", "4", "--", &server(), "select", "0"]);
}

#[test]
fn a_server_with_edge_triggered_epoll_gets_its_exact_share() {
    serves_exactly(&["-w", "4", "--", &server(), "epoll", "0"]);
}

#[test]
fn a_server_that_registers_with_epoll_before_it_listens_gets_its_exact_share() {
    serves_exactly(&["-w", "4", "--", &server(), "early", "0"]);
}
