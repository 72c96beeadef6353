//! The programs themselves, and the memory that they share with the master. Has no side effects.
//!
//! ```text
//! turn, active, counts[ROOM], places[2][PLACES] = the shared value
//! refusing, half, count = active >> 33, active >> 32 & 1, active & 0xffffffff
//! moves = the connection moves from a socket that is shut down
//! if refusing and not moves: drop               (the client is refused)
//! new = moves, or SYN without ACK
//! if count == 0: pass                           (the kernel's hash chooses)
//! place = fetch_add(turn, new) % count          (in turn)
//! place = key(source) % PLACES                  (by source)
//! slot = places[half][place]
//! add(counts[slot], new); select(sockets, slot); pass
//! ```
//!
//! The kernel asks for every packet that belongs to no connection, including late packets of connections that are gone
//! already. These must not use up a turn.

use super::instructions::*;
use crate::core::source::Prefix;
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

/// The most slots that can be steered among.
pub const ROOM: usize = crate::config::WORKERS_MAX as usize;
/// Places of the list that assigns connections, each with a slot. By source they are buckets of clients, and a slot has
/// as many of them as a fair draw gives it: of eight slots, 1024 with a standard deviation of 30.
pub const PLACES: usize = 8192;
/// 64-bit words of the shared value: turn, active, a count for each slot, two halves of 32-bit slots. The counts come
/// first, since an instruction reaches only 32 KiB far.
pub const WORDS: usize = ORDER + PLACES;
/// Word that counts connections.
pub const TURN: usize = 0;
/// Word with how many places are used, in which half they are ([`HALF`]), and whether new connections
/// are refused ([`REFUSING`]).
pub const ACTIVE: usize = 1;
/// Bit that names the half in use.
pub const HALF: u32 = 32;
/// Bit that refuses new connections.
pub const REFUSING: u32 = 33;
/// Word where the counts of the slots begin.
pub const COUNTS: usize = 2;
/// Word where the halves begin.
pub const ORDER: usize = COUNTS + ROOM;

/// Helpers (include/uapi/linux/bpf.h).
const MAP_LOOKUP_ELEM: i32 = 1;
const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
const SK_SELECT_REUSEPORT: i32 = 82;
/// From the IP header on (`BPF_HDR_START_NET`).
const FROM_IP_HEADER: i32 = 1;
/// Verdicts (`enum sk_action`).
const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;

/// Where on the stack the key of a lookup is.
const KEY: i16 = -4;
/// Where on the stack a client's address is, as an IPv6 address: 16 bytes, of which an IPv4 address is the last four.
const SOURCE: i16 = -24;
const SOURCE_V4: i16 = SOURCE + 12;
/// What precedes an IPv4 address (`::ffff:0:0/96`): its last four bytes, as a number and as they are in memory.
const MAPPED: u32 = 0xffff;
const MAPPED_BYTES: i32 = MAPPED.to_be() as i32;

/// What the kernel tells the program (`struct sk_reuseport_md`): the packet from its TCP header on, its end, the
/// protocol that its address belongs to, and the connection that moves away, since Linux 5.14.
const DATA: i16 = 0;
const DATA_END: i16 = 8;
const ETH_PROTOCOL: i16 = 20;
const MIGRATING_SK: i16 = 48;
/// `ETH_P_IP`, as it is in memory.
const ETH_P_IP: i32 = 0x0800u16.to_be() as i32;
/// Where an IPv4 header (RFC 791, section 3.1) and an IPv6 header (RFC 8200, section 3) have the source address.
const IPV4_SOURCE: i32 = 12;
const IPV6_SOURCE: i32 = 8;
/// Where a TCP header has its flags (RFC 9293, section 3.1), and two of them.
const FLAGS: i16 = 13;
const SYN: i32 = 0x02;
const ACK: i32 = 0x10;
/// What is known of a connection that moves (`struct bpf_sock`): its family and its other end.
const SK_FAMILY: i16 = 4;
const SK_PEER_V4: i16 = 52;
const SK_PEER_V6: i16 = 56;

/// What the kernel asks the program about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invoked {
    /// Packets for which there is no connection.
    Packets,
    /// Also connections that wait at a socket which is shut down (Linux 5.14).
    PacketsAndMoves,
}

/// How the program finds a connection's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// Each place in turn.
    InTurn,
    /// By the client's address, as far as the prefix says that it counts.
    BySource(Prefix),
}

/// Names for what jumps lead to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Choice,
    Moves,
    MovesV6,
    PacketV6,
    HasSource,
    CountsAsV6,
    HasKey,
    Pass,
    Drop,
}

/// Instructions that steer among the sockets behind `sockets` by the value behind `state`.
#[must_use]
pub fn program(choice: Choice, state: RawFd, sockets: RawFd, asked: Invoked) -> Vec<u64> {
    let mut program = Assembly::default();
    look(&mut program, state, asked);
    program.jump(IF_EQUAL, R8, 0, To::Pass);
    match choice {
        Choice::InTurn => in_turn(&mut program),
        Choice::BySource(prefix) => by_source(&mut program, prefix, asked),
    }
    select(&mut program, sockets);
    for (name, verdict) in [(To::Pass, SK_PASS), (To::Drop, SK_DROP)] {
        program.here(name).put(&[op(MOV_NUMBER, R0, 0, 0, verdict), op(EXIT, 0, 0, 0, 0)]);
    }
    program.finish()
}

/// Leaves what the kernel tells the program in r6, the shared value in r7, the number of places in r8, the half in the
/// last bit of r9, and in r5 whether the connection is new.
fn look(program: &mut Assembly<To>, state: RawFd, asked: Invoked) {
    program.put(&[
        op(MOV, R6, R1, 0, 0),
        op(STORE_NUMBER_32, STACK, 0, KEY, 0),
        op(MOV, R2, STACK, 0, 0),
        op(ADD_NUMBER, R2, 0, 0, i32::from(KEY)),
        op(LOAD_NUMBER_64, R1, MAP_FD, 0, state),
        0,
        op(CALL, 0, 0, 0, MAP_LOOKUP_ELEM),
    ]);
    program.jump(IF_EQUAL, R0, 0, To::Pass);
    program.put(&[
        op(MOV, R7, R0, 0, 0),
        op(LOAD_64, R8, R7, 8 * ACTIVE as i16, 0),
        op(MOV, R9, R8, 0, 0),
        op(RIGHT_NUMBER, R9, 0, 0, 32),
        op(LEFT_NUMBER, R8, 0, 0, 32),
        op(RIGHT_NUMBER, R8, 0, 0, 32),
        op(MOV_NUMBER, R5, 0, 0, 1),
    ]);
    if asked == Invoked::PacketsAndMoves {
        program.put(&[op(LOAD_64, R1, R6, MIGRATING_SK, 0)]);
        program.jump(IF_NOT_EQUAL, R1, 0, To::Choice);
    }
    program.put(&[op(MOV, R1, R9, 0, 0), op(AND_NUMBER, R1, 0, 0, 1 << (REFUSING - HALF))]);
    program.jump(IF_NOT_EQUAL, R1, 0, To::Drop);
    program.put(&[
        op(LOAD_64, R2, R6, DATA, 0),
        op(LOAD_64, R3, R6, DATA_END, 0),
        op(MOV, R4, R2, 0, 0),
        op(ADD_NUMBER, R4, 0, 0, i32::from(FLAGS) + 1),
    ]);
    program.jump_register(IF_ABOVE_REGISTER, R4, R3, To::Choice);
    program.put(&[op(LOAD_8, R1, R2, FLAGS, 0), op(AND_NUMBER, R1, 0, 0, SYN | ACK)]);
    program.jump(IF_EQUAL, R1, SYN, To::Choice);
    program.put(&[op(MOV_NUMBER, R5, 0, 0, 0)]).here(To::Choice);
}

/// Leaves the place in r1.
fn in_turn(program: &mut Assembly<To>) {
    program.put(&[op(MOV, R1, R5, 0, 0), op(ATOMIC_64, R7, R1, 8 * TURN as i16, FETCH_ADD), op(MOD, R1, R8, 0, 0)]);
    // Tells the verifier what the remainder implies.
    program.jump(IF_ABOVE, R1, PLACES as i32 - 1, To::Pass);
}

/// Leaves in r1 the place that [`super::order::place`] gives. The list is as long as it can be.
fn by_source(program: &mut Assembly<To>, prefix: Prefix, asked: Invoked) {
    // Calls use up r1 to r5, and the number of places is known.
    program.put(&[
        op(MOV, R8, R5, 0, 0),
        op(ATOMIC_64, R7, R5, 8 * TURN as i16, PLAIN_ADD),
        op(STORE_NUMBER_64, STACK, 0, SOURCE, 0),
        op(STORE_NUMBER_32, STACK, 0, SOURCE + 8, MAPPED_BYTES),
    ]);
    if asked == Invoked::PacketsAndMoves {
        program.put(&[op(LOAD_64, R1, R6, MIGRATING_SK, 0)]);
        program.jump(IF_NOT_EQUAL, R1, 0, To::Moves);
    }
    program.put(&[op(LOAD_32, R1, R6, ETH_PROTOCOL, 0)]);
    program.jump(IF_NOT_EQUAL, R1, ETH_P_IP, To::PacketV6);
    read_packet(program, IPV4_SOURCE, SOURCE_V4, 4);
    program.jump(ALWAYS, 0, 0, To::HasSource).here(To::PacketV6);
    read_packet(program, IPV6_SOURCE, SOURCE, 16);
    if asked == Invoked::PacketsAndMoves {
        program.jump(ALWAYS, 0, 0, To::HasSource).here(To::Moves);
        read_connection(program);
    }
    program.here(To::HasSource).put(&[
        op(LOAD_64, R1, STACK, SOURCE, 0),
        op(FROM_NETWORK, R1, 0, 0, 64),
        op(LOAD_64, R2, STACK, SOURCE + 8, 0),
        op(FROM_NETWORK, R2, 0, 0, 64),
    ]);
    key(program, prefix);
    program.put(&[op(AND_NUMBER, R1, 0, 0, PLACES as i32 - 1), op(MOV, R5, R8, 0, 0)]);
}

/// Copies a part of the packet's IP header to the stack; zeros if it is not there.
fn read_packet(program: &mut Assembly<To>, from: i32, to: i16, length: i32) {
    program.put(&[
        op(MOV, R1, R6, 0, 0),
        op(MOV_NUMBER, R2, 0, 0, from),
        op(MOV, R3, STACK, 0, 0),
        op(ADD_NUMBER, R3, 0, 0, i32::from(to)),
        op(MOV_NUMBER, R4, 0, 0, length),
        op(MOV_NUMBER, R5, 0, 0, FROM_IP_HEADER),
        op(CALL, 0, 0, 0, SKB_LOAD_BYTES_RELATIVE),
    ]);
}

/// Copies the address at the other end of the connection in r1 to the stack. A connection that waits to be accepted
/// moves without a packet.
fn read_connection(program: &mut Assembly<To>) {
    let copy = |from: i16, to: i16| [op(LOAD_32, R2, R1, from, 0), op(STORE_32, STACK, R2, to, 0)];
    program.put(&[op(LOAD_32, R2, R1, SK_FAMILY, 0)]);
    program.jump(IF_NOT_EQUAL, R2, libc::AF_INET, To::MovesV6);
    program.put(&copy(SK_PEER_V4, SOURCE_V4));
    program.jump(ALWAYS, 0, 0, To::HasSource).here(To::MovesV6);
    for part in [0, 4, 8, 12] {
        program.put(&copy(SK_PEER_V6 + part, SOURCE + part));
    }
}

/// Turns an address whose halves are in r1 and r2 into its [`crate::core::source::Source::key`] in r1.
fn key(program: &mut Assembly<To>, prefix: Prefix) {
    program.jump(IF_NOT_EQUAL, R1, 0, To::CountsAsV6);
    program.put(&[op(MOV, R3, R2, 0, 0), op(RIGHT_NUMBER, R3, 0, 0, 32)]);
    program.jump(IF_NOT_EQUAL, R3, MAPPED as i32, To::CountsAsV6);
    program.put(&load(R3, prefix.mask_v4() as u64)).put(&[op(AND, R2, R3, 0, 0)]);
    program.jump(ALWAYS, 0, 0, To::HasKey).here(To::CountsAsV6);
    program.put(&load(R3, (prefix.mask_v6() >> 64) as u64)).put(&[op(AND, R1, R3, 0, 0)]);
    program.put(&load(R3, prefix.mask_v6() as u64)).put(&[op(AND, R2, R3, 0, 0)]);
    program.here(To::HasKey);
    mix(program);
    program.put(&[op(XOR, R1, R2, 0, 0)]);
    mix(program);
}

/// [`crate::core::chance::mix`] of r1.
fn mix(program: &mut Assembly<To>) {
    let fold = |bits: i32| [op(MOV, R3, R1, 0, 0), op(RIGHT_NUMBER, R3, 0, 0, bits), op(XOR, R1, R3, 0, 0)];
    let times = |factor: u64| [&load(R3, factor)[..], &[op(MUL, R1, R3, 0, 0)]].concat();
    program.put(&fold(30)).put(&times(0xBF58_476D_1CE4_E5B9));
    program.put(&fold(27)).put(&times(0x94D0_49BB_1331_11EB)).put(&fold(31));
}

/// Gives the connection to the slot at the place in r1.
fn select(program: &mut Assembly<To>, sockets: RawFd) {
    program.put(&[
        op(AND_NUMBER, R9, 0, 0, 1),
        op(MUL_NUMBER, R9, 0, 0, PLACES as i32),
        op(ADD, R1, R9, 0, 0),
        op(LEFT_NUMBER, R1, 0, 0, 2),
        op(MOV, R8, R7, 0, 0),
        op(ADD, R7, R1, 0, 0),
        op(LOAD_32, R2, R7, 8 * ORDER as i16, 0),
        op(STORE_32, STACK, R2, KEY, 0),
    ]);
    program.jump(IF_ABOVE, R2, ROOM as i32 - 1, To::Pass);
    program.put(&[
        op(LEFT_NUMBER, R2, 0, 0, 3),
        op(ADD, R8, R2, 0, 0),
        op(ATOMIC_64, R8, R5, 8 * COUNTS as i16, PLAIN_ADD),
        op(MOV, R1, R6, 0, 0),
        op(LOAD_NUMBER_64, R2, MAP_FD, 0, sockets),
        0,
        op(MOV, R3, STACK, 0, 0),
        op(ADD_NUMBER, R3, 0, 0, i32::from(KEY)),
        op(MOV_NUMBER, R4, 0, 0, 0),
        op(CALL, 0, 0, 0, SK_SELECT_REUSEPORT),
    ]);
}

/// A number that tells this program and its memory from those of other versions.
#[must_use]
pub fn fingerprint(choice: Choice) -> u64 {
    let instructions = program(choice, 0, 0, Invoked::PacketsAndMoves);
    let step = |sum: u64, word: u64| crate::core::chance::mix(sum ^ word);
    instructions.into_iter().fold(WORDS as u64, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::source::Source;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// What arithmetic instructions leave in r1.
    fn run(program: &[u64], r1: u64, r2: u64) -> u64 {
        let (mut registers, mut at) = ([0, r1, r2, 0], 0);
        while let Some(&op) = program.get(at) {
            let (to, from) = ((op >> 8 & 15) as usize, (op >> 12 & 15) as usize);
            let (offset, number) = (op >> 16 & 0xffff, (op >> 32) as i32);
            let (value, bits) = (registers[from], number as u32);
            at += 1;
            match op as u8 {
                MOV => registers[to] = value,
                MUL => registers[to] = registers[to].wrapping_mul(value),
                AND => registers[to] &= value,
                XOR => registers[to] ^= value,
                RIGHT_NUMBER => registers[to] >>= bits,
                LOAD_NUMBER_64 => {
                    registers[to] = u64::from(bits) | program[at] >> 32 << 32;
                    at += 1;
                }
                ALWAYS => at += offset as usize,
                IF_NOT_EQUAL if registers[to] == number as i64 as u64 => {}
                IF_NOT_EQUAL => at += offset as usize,
                code => panic!("no such instruction here: {code:#x}"),
            }
        }
        registers[1]
    }

    fn key_of(address: u128, prefix: Prefix) -> u64 {
        let mut program = Assembly::default();
        key(&mut program, prefix);
        run(&program.finish(), (address >> 64) as u64, address as u64)
    }

    proptest! {
        #[test]
        fn the_program_knows_a_source_as_the_master_does(
            v4: u32, high: u64, low: u64, bits_v4 in 0u8..=32, bits_v6 in 0u8..=128,
        ) {
            let prefix = Prefix { v4: bits_v4, v6: bits_v6 };
            let v4 = Ipv4Addr::from(v4);
            let of_v4 = Source::of(IpAddr::V4(v4), prefix).key();
            prop_assert_eq!(key_of(v4.to_ipv6_mapped().into(), prefix), of_v4);
            let v6 = u128::from(high) << 64 | u128::from(low);
            prop_assert_eq!(key_of(v6, prefix), Source::of(IpAddr::V6(Ipv6Addr::from(v6)), prefix).key());
        }
    }

    #[test]
    fn all_jumps_lead_to_an_instruction() {
        let prefix = Prefix::default();
        for choice in [Choice::InTurn, Choice::BySource(prefix)] {
            for asked in [Invoked::Packets, Invoked::PacketsAndMoves] {
                let program = program(choice, 3, 4, asked);
                let second_halves: Vec<usize> =
                    (1..program.len()).filter(|at| program[at - 1] as u8 == LOAD_NUMBER_64).collect();
                let is_jump =
                    |op: u64| matches!(op as u8, ALWAYS | IF_EQUAL | IF_NOT_EQUAL | IF_ABOVE | IF_ABOVE_REGISTER);
                let jumps = program.iter().enumerate().filter(|(at, op)| is_jump(**op) && !second_halves.contains(at));
                let targets: Vec<usize> = jumps.map(|(at, op)| at + 1 + (op >> 16 & 0xffff) as usize).collect();
                assert!(targets.len() > 6 && targets.iter().all(|to| *to < program.len()));
                assert!(targets.iter().all(|to| !second_halves.contains(to)));
                assert_eq!(program[program.len() - 1], u64::from(EXIT));
            }
        }
    }

    #[test]
    fn instructions_reach_as_far_as_the_memory_needs() {
        assert!(8 * ORDER <= i16::MAX as usize);
        assert!(PLACES.is_power_of_two() && PLACES >= ROOM);
    }

    #[test]
    fn another_prefix_is_another_program() {
        let by = |v4| fingerprint(Choice::BySource(Prefix { v4, v6: 64 }));
        assert_eq!(by(24), by(24));
        assert_ne!(by(24), by(32));
        assert_ne!(fingerprint(Choice::InTurn), by(32));
    }
}
