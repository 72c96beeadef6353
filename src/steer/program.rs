//! The program itself, as instructions of the kernel's machine (Documentation/bpf/standardization/
//! instruction-set.rst). Touches nothing.
//!
//! ```text
//! turn, active, order[2][ROOM], counts[ROOM] = the shared value
//! refusing, half, count = active >> 33, active >> 32 & 1, active & 0xffffffff
//! moves = the connection moves from a socket that is shut down
//! if refusing and not moves: drop               (the client is refused)
//! new = moves, or SYN without ACK
//! if count == 0: pass                           (the kernel's hash chooses)
//! place = fetch_add(turn, new) % count
//! slot = order[half][place]
//! add(counts[slot], new); select(sockets, slot); pass
//! ```
//!
//! The kernel asks for every packet that belongs to no connection: late ones, of connections that are
//! gone already, too. They must not use up anybody's turn.

use std::os::fd::RawFd;

/// The most slots that can be steered among.
pub const ROOM: usize = crate::config::WORKERS_MAX as usize;
/// 64-bit words of the shared value: turn, active, two halves of 32-bit slots, and a count for each.
pub const WORDS: usize = COUNTS + ROOM;
/// Word that counts connections.
pub const TURN: usize = 0;
/// Word with how many slots are eligible, in which half they are ([`HALF`]), and whether new connections
/// are refused ([`REFUSING`]).
pub const ACTIVE: usize = 1;
/// Bit of the half in use.
pub const HALF: u32 = 32;
/// Bit that refuses.
pub const REFUSING: u32 = 33;
/// Word where the halves begin.
pub const ORDER: usize = 2;
/// Word where the counts of the slots begin.
pub const COUNTS: usize = ORDER + ROOM;

/// Registers: r0 results, r1 to r5 arguments, r6 to r9 survive calls, r10 the stack.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const R6: u8 = 6;
const R7: u8 = 7;
const R8: u8 = 8;
const R9: u8 = 9;
const STACK: u8 = 10;

/// Helpers (include/uapi/linux/bpf.h).
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_SELECT_REUSEPORT: i32 = 82;
/// Verdicts (`enum sk_action`).
const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;
/// Marks an address as that of a map, given by its descriptor (`BPF_PSEUDO_MAP_FD`).
const MAP_FD: u8 = 1;

/// Operation codes: class, width or operation, and whether the source is a register.
const MOV: u8 = 0xbf;
const MOV_NUMBER: u8 = 0xb7;
const ADD: u8 = 0x0f;
const ADD_NUMBER: u8 = 0x07;
const MUL_NUMBER: u8 = 0x27;
const AND_NUMBER: u8 = 0x57;
const LEFT_NUMBER: u8 = 0x67;
const RIGHT_NUMBER: u8 = 0x77;
const MOD: u8 = 0x9f;
const LOAD_NUMBER_64: u8 = 0x18;
const LOAD_8: u8 = 0x71;
const LOAD_32: u8 = 0x61;
const LOAD_64: u8 = 0x79;
const STORE_NUMBER_32: u8 = 0x62;
const STORE_32: u8 = 0x63;
const ATOMIC_64: u8 = 0xdb;
const FETCH_ADD: i32 = 0x01;
const PLAIN_ADD: i32 = 0x00;
const IF_EQUAL: u8 = 0x15;
const IF_NOT_EQUAL: u8 = 0x55;
const IF_ABOVE: u8 = 0x25;
const IF_ABOVE_REGISTER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Where the key of a lookup is on the stack.
const KEY: i16 = -4;

/// What the program is told (`struct sk_reuseport_md`): the packet from its TCP header on, its end, and
/// the socket from which a connection moves away, since Linux 5.14.
const DATA: i16 = 0;
const DATA_END: i16 = 8;
const MIGRATING_SK: i16 = 48;
/// Where a TCP header has its flags (RFC 9293, section 3.1), and two of them.
const FLAGS: i16 = 13;
const SYN: i32 = 0x02;
const ACK: i32 = 0x10;

/// What the kernel asks the program about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Packets for which there is no connection.
    Packets,
    /// Connections, too, that wait at a socket which is shut down (Linux 5.14).
    PacketsAndMoves,
}

/// Instructions that steer by the value behind `state` among the sockets behind `sockets`.
#[must_use]
pub fn round_robin(state: RawFd, sockets: RawFd, asked: Asked) -> Vec<u64> {
    let room = ROOM as i32;
    let look = [
        op(MOV, R6, R1, 0, 0),
        op(STORE_NUMBER_32, STACK, 0, KEY, 0),
        op(MOV, R2, STACK, 0, 0),
        op(ADD_NUMBER, R2, 0, 0, i32::from(KEY)),
        op(LOAD_NUMBER_64, R1, MAP_FD, 0, state),
        0,
        op(CALL, 0, 0, 0, MAP_LOOKUP_ELEM),
        op(IF_EQUAL, R0, 0, TO_END, 0),
        op(MOV, R7, R0, 0, 0),
        op(LOAD_64, R8, R7, 8 * ACTIVE as i16, 0),
        op(MOV, R9, R8, 0, 0),
        op(RIGHT_NUMBER, R9, 0, 0, 32),
        op(LEFT_NUMBER, R8, 0, 0, 32),
        op(RIGHT_NUMBER, R8, 0, 0, 32),
        op(MOV_NUMBER, R5, 0, 0, 1),
    ];
    let moves = [op(LOAD_64, R1, R6, MIGRATING_SK, 0), op(IF_NOT_EQUAL, R1, 0, TO_TURN, 0)];
    let begins = [
        op(MOV, R1, R9, 0, 0),
        op(AND_NUMBER, R1, 0, 0, 1 << (REFUSING - HALF)),
        op(IF_NOT_EQUAL, R1, 0, TO_REFUSAL, 0),
        op(LOAD_64, R2, R6, DATA, 0),
        op(LOAD_64, R3, R6, DATA_END, 0),
        op(MOV, R4, R2, 0, 0),
        op(ADD_NUMBER, R4, 0, 0, i32::from(FLAGS) + 1),
        op(IF_ABOVE_REGISTER, R4, R3, TO_TURN, 0),
        op(LOAD_8, R1, R2, FLAGS, 0),
        op(AND_NUMBER, R1, 0, 0, SYN | ACK),
        op(IF_EQUAL, R1, 0, TO_TURN, SYN),
        op(MOV_NUMBER, R5, 0, 0, 0),
    ];
    let choose = [
        op(IF_EQUAL, R8, 0, TO_END, 0),
        op(MOV, R1, R5, 0, 0),
        op(ATOMIC_64, R7, R1, 8 * TURN as i16, FETCH_ADD),
        op(MOD, R1, R8, 0, 0),
        // Says to the verifier what the remainder implies.
        op(IF_ABOVE, R1, 0, TO_END, room - 1),
        op(AND_NUMBER, R9, 0, 0, 1),
        op(MUL_NUMBER, R9, 0, 0, room),
        op(ADD, R1, R9, 0, 0),
        op(LEFT_NUMBER, R1, 0, 0, 2),
        op(MOV, R8, R7, 0, 0),
        op(ADD, R7, R1, 0, 0),
        op(LOAD_32, R2, R7, 8 * ORDER as i16, 0),
        op(STORE_32, STACK, R2, KEY, 0),
        op(IF_ABOVE, R2, 0, TO_END, room - 1),
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
    ];
    let verdicts = [SK_PASS, SK_DROP].map(|verdict| [op(MOV_NUMBER, R0, 0, 0, verdict), op(EXIT, 0, 0, 0, 0)]);
    let moves: &[u64] = if asked == Asked::PacketsAndMoves { &moves } else { &[] };
    let turn = look.len() + moves.len() + begins.len();
    let end = turn + choose.len();
    let body = [&look, moves, &begins, &choose].concat();
    let placed = body.into_iter().enumerate().map(|(at, instruction)| {
        let to = match (instruction >> 16) as i16 {
            TO_END => end,
            TO_REFUSAL => end + verdicts[0].len(),
            TO_TURN => turn,
            _ => return instruction,
        };
        instruction & !JUMP_MASK | ((to - at - 1) as u64) << 16
    });
    placed.chain(verdicts.into_iter().flatten()).collect()
}

/// The bits of a jump's distance, and what stands in them until it is known.
const JUMP_MASK: u64 = 0xffff << 16;
const TO_END: i16 = 0x7fff;
const TO_REFUSAL: i16 = 0x7ffe;
const TO_TURN: i16 = 0x7ffd;

/// One instruction: code, destination and source register, offset, number; as the kernel reads them
/// in memory, so on a machine with the least byte first.
fn op(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    u64::from(code) | u64::from(from << 4 | to) << 8 | u64::from(offset as u16) << 16 | u64::from(number as u32) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_jumps_lead_somewhere() {
        for asked in [Asked::Packets, Asked::PacketsAndMoves] {
            let program = round_robin(3, 4, asked);
            let (pass, drop) = (program.len() - 4, program.len() - 2);
            let turn = program.iter().position(|op| *op as u8 == ATOMIC_64).unwrap() - 2;
            let is_jump = |op: u64| matches!(op as u8, IF_EQUAL | IF_NOT_EQUAL | IF_ABOVE | IF_ABOVE_REGISTER);
            let jumps = program.iter().enumerate().filter(|(_, op)| is_jump(**op));
            let targets: Vec<usize> = jumps.map(|(at, op)| at + 1 + (op >> 16 & 0xffff) as usize).collect();
            let moves: &[usize] = if asked == Asked::Packets { &[] } else { &[turn] };
            assert_eq!(targets, [&[pass], moves, &[drop, turn, turn, pass, pass, pass]].concat());
            assert_eq!(program[program.len() - 1], u64::from(EXIT));
        }
    }
}
