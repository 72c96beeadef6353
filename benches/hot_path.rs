//! The hot functions, each alone: choosing a worker, the words on the wire, passing one descriptor.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred::config::choice::Policy;
use maitred::core::policy::View;
use maitred::core::source::{Prefix, Source};
use maitred::sys::fd;
use maitred::wire::{packet, peer};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

/// Slots as a policy sees them.
struct Slots {
    load: Vec<u32>,
    weight: Vec<u32>,
}

impl Slots {
    /// Different loads, none of which is the least by far; equal weights, or every third heavy.
    fn new(slots: usize, heavy: u32) -> Slots {
        let load = (0..slots).map(|slot| 100 + (slot * 7919 % 61) as u32).collect();
        let weight = (0..slots).map(|slot| if slot % 3 == 0 { heavy } else { 1 }).collect();
        Slots { load, weight }
    }
}

impl View for Slots {
    fn slots(&self) -> usize {
        self.load.len()
    }

    fn may(&self, _: usize) -> bool {
        true
    }

    fn load(&self, slot: usize) -> u32 {
        self.load[slot]
    }

    fn weight(&self, slot: usize) -> u32 {
        self.weight[slot]
    }

    fn weights_are_equal(&self) -> bool {
        self.weight[0] == 1
    }
}

fn choose(c: &mut Criterion) {
    let policies = [
        ("round-robin", Policy::RoundRobin),
        ("least-connections", Policy::LeastConnections),
        ("random-two", Policy::RandomTwo),
        ("source-hash", Policy::SourceHash(Prefix::default())),
    ];
    for (name, policy) in policies {
        for (weights, heavy) in [("", 1), (", weighted", 3)] {
            let mut group = c.benchmark_group(format!("choose/{name}{weights}"));
            for count in [4, 64, 1024] {
                group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, &count| {
                    let (mut policy, mut slots) = (policy.begin(1), Slots::new(count, heavy));
                    let mut client = 0u32;
                    b.iter(|| {
                        client = client.wrapping_add(0x9e37_79b9);
                        let source = Source::of(IpAddr::V4(Ipv4Addr::from(black_box(client))), Prefix::default());
                        let slot = policy.choose(black_box(&slots), Some(source)).expect("all may");
                        policy.served(slot, Some(source));
                        // As many come as go, so that loads stay what they are.
                        slots.load[slot] += 1;
                        slots.load[client as usize % count] = slots.load[client as usize % count].saturating_sub(1);
                        slot
                    });
                });
            }
            group.finish();
        }
    }
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
