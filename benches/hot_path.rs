//! The hot functions, each alone: choosing a worker, the words on the wire, passing one descriptor.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred::core::policy::RoundRobin;
use maitred::sys::fd;
use maitred::wire::{packet, peer};
use std::hint::black_box;
use std::os::fd::AsFd;

fn choose(c: &mut Criterion) {
    let mut group = c.benchmark_group("choose/round-robin");
    for seats in [4, 64, 1024] {
        group.bench_with_input(BenchmarkId::from_parameter(seats), &seats, |b, &seats| {
            let mut turn = RoundRobin::default();
            b.iter(|| {
                let seat = turn.choose(black_box(seats), |_| true).expect("all may");
                turn.served(seat);
                seat
            });
        });
    }
    group.finish();
}

fn wire(c: &mut Criterion) {
    let address = "[2001:db8::1]:54321".parse().expect("an address");
    c.bench_function("wire/encode peer", |b| b.iter(|| peer::encode(black_box(address))));
    let (bytes, len) = peer::encode(address);
    c.bench_function("wire/decode peer", |b| b.iter(|| peer::decode(black_box(&bytes[..len]))));
    let listen = b"LISTEN=tcp:127.0.0.1:8080\nID=7\nREPLY=1\n";
    c.bench_function("wire/read LISTEN", |b| b.iter(|| packet::read(black_box(listen))));
}

fn pass(c: &mut Criterion) {
    let (send, receive) = fd::pair().expect("a pair");
    let connection = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket to pass");
    let (peer, len) = peer::encode("127.0.0.1:1".parse().expect("an address"));
    c.bench_function("fd/send, receive and close one descriptor", |b| {
        b.iter(|| {
            fd::send_connection(send.as_fd(), connection.as_fd(), &peer[..len]).expect("sent");
            fd::receive(receive.as_fd(), &mut [0; 128]).expect("received")
        });
    });
    c.bench_function("fd/how many wait", |b| b.iter(|| fd::unsent_bytes(send.as_fd()).expect("a number")));
}

criterion_group!(benches, choose, wire, pass);
criterion_main!(benches);
