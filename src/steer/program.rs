//! The program itself, as instructions of the kernel's machine (Documentation/bpf/standardization/
//! instruction-set.rst). Touches nothing.
//!
//! ```text
//! turn, active, order[2][ROOM], counts[ROOM] = the shared value
//! half, count = active >> 32, active & 0xffffffff
//! if count == 0: pass                           (the kernel's hash chooses)
//! if count > ROOM: drop                         (the client is refused)
//! place = fetch_add(turn, 1) % count
//! slot = order[half][place]
//! add(counts[slot], 1); select(sockets, slot); pass
//! ```

use std::os::fd::RawFd;

/// The most slots that can be steered among.
pub const ROOM: usize = crate::config::WORKERS_MAX as usize;
/// 64-bit words of the shared value: turn, active, two halves of 32-bit slots, and a count for each.
pub const WORDS: usize = COUNTS + ROOM;
/// Word that counts connections.
pub const TURN: usize = 0;
/// Word with the half in use and how many slots are in it.
pub const ACTIVE: usize = 1;
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
const LOAD_32: u8 = 0x61;
const LOAD_64: u8 = 0x79;
const STORE_NUMBER_32: u8 = 0x62;
const STORE_32: u8 = 0x63;
const ATOMIC_64: u8 = 0xdb;
const FETCH_ADD: i32 = 0x01;
const PLAIN_ADD: i32 = 0x00;
const IF_ZERO: u8 = 0x15;
const IF_ABOVE: u8 = 0x25;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Where the key of a lookup is on the stack.
const KEY: i16 = -4;

/// Instructions that steer by the value behind `state` among the sockets behind `sockets`.
#[must_use]
pub fn round_robin(state: RawFd, sockets: RawFd) -> Vec<u64> {
    let room = ROOM as i32;
    let body = [
        op(MOV, R6, R1, 0, 0),
        op(STORE_NUMBER_32, STACK, 0, KEY, 0),
        op(MOV, R2, STACK, 0, 0),
        op(ADD_NUMBER, R2, 0, 0, i32::from(KEY)),
        op(LOAD_NUMBER_64, R1, MAP_FD, 0, state),
        0,
        op(CALL, 0, 0, 0, MAP_LOOKUP_ELEM),
        to_end(IF_ZERO, R0, 0),
        op(MOV, R7, R0, 0, 0),
        op(LOAD_64, R8, R7, 8 * ACTIVE as i16, 0),
        op(MOV, R9, R8, 0, 0),
        op(RIGHT_NUMBER, R9, 0, 0, 32),
        op(LEFT_NUMBER, R8, 0, 0, 32),
        op(RIGHT_NUMBER, R8, 0, 0, 32),
        to_end(IF_ZERO, R8, 0),
        to_refusal(IF_ABOVE, R8, room),
        op(MOV_NUMBER, R1, 0, 0, 1),
        op(ATOMIC_64, R7, R1, 8 * TURN as i16, FETCH_ADD),
        op(MOD, R1, R8, 0, 0),
        // Says to the verifier what the remainder implies.
        to_end(IF_ABOVE, R1, room - 1),
        op(AND_NUMBER, R9, 0, 0, 1),
        op(MUL_NUMBER, R9, 0, 0, room),
        op(ADD, R1, R9, 0, 0),
        op(LEFT_NUMBER, R1, 0, 0, 2),
        op(MOV, R8, R7, 0, 0),
        op(ADD, R7, R1, 0, 0),
        op(LOAD_32, R2, R7, 8 * ORDER as i16, 0),
        op(STORE_32, STACK, R2, KEY, 0),
        to_end(IF_ABOVE, R2, room - 1),
        op(LEFT_NUMBER, R2, 0, 0, 3),
        op(ADD, R8, R2, 0, 0),
        op(MOV_NUMBER, R1, 0, 0, 1),
        op(ATOMIC_64, R8, R1, 8 * COUNTS as i16, PLAIN_ADD),
        op(MOV, R1, R6, 0, 0),
        op(LOAD_NUMBER_64, R2, MAP_FD, 0, sockets),
        0,
        op(MOV, R3, STACK, 0, 0),
        op(ADD_NUMBER, R3, 0, 0, i32::from(KEY)),
        op(MOV_NUMBER, R4, 0, 0, 0),
        op(CALL, 0, 0, 0, SK_SELECT_REUSEPORT),
    ];
    let end = body.len();
    let placed = body.into_iter().enumerate().map(|(at, instruction)| match instruction & JUMP_MASK {
        TO_END => instruction & !JUMP_MASK | (((end - at - 1) as u64) << 16),
        TO_REFUSAL => instruction & !JUMP_MASK | (((end + 2 - at - 1) as u64) << 16),
        _ => instruction,
    });
    let verdicts = [SK_PASS, SK_DROP].map(|verdict| [op(MOV_NUMBER, R0, 0, 0, verdict), op(EXIT, 0, 0, 0, 0)]);
    placed.chain(verdicts.into_iter().flatten()).collect()
}

/// The bits of a jump's distance, and what stands in them until it is known.
const JUMP_MASK: u64 = 0xffff << 16;
const TO_END: u64 = 0x7fff << 16;
const TO_REFUSAL: u64 = 0x7ffe << 16;

fn to_end(code: u8, register: u8, number: i32) -> u64 {
    op(code, register, 0, 0x7fff, number)
}

fn to_refusal(code: u8, register: u8, number: i32) -> u64 {
    op(code, register, 0, 0x7ffe, number)
}

/// One instruction: code, destination and source register, offset, number; as the kernel reads them
/// in memory, so on a machine with the least byte first.
fn op(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    u64::from(code) | u64::from(from << 4 | to) << 8 | u64::from(offset as u16) << 16 | u64::from(number as u32) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_jumps_lead_to_a_verdict() {
        let program = round_robin(3, 4);
        let (pass, drop) = (program.len() - 4, program.len() - 2);
        let jumps = program.iter().enumerate().filter(|(_, op)| matches!(**op as u8, IF_ZERO | IF_ABOVE));
        let targets: Vec<usize> = jumps.map(|(at, op)| at + 1 + (op >> 16 & 0xffff) as usize).collect();
        assert_eq!(targets, [pass, pass, drop, pass, pass]);
        assert_eq!(program[program.len() - 1], u64::from(EXIT));
    }
}
