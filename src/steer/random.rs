//! The fallback as instructions of the old machine (Documentation/networking/filter.rst), which an
//! ordinary user may attach: it has no memory, so it cannot take turns, only draw.
//!
//! ```text
//! place = random mod count
//! if place == 0: return the first slot's place in the group; if place == 1: the second's …
//! ```

use libc::sock_filter;

/// Loads a word from what the kernel knows beside the packet (`SKF_AD_OFF` in linux/filter.h), here a
/// random number (`SKF_AD_RANDOM`, since Linux 3.16).
const LOAD_ABSOLUTE: u16 = 0x20;
const RANDOM: u32 = (-0x1000i32 + 56) as u32;
const MODULO: u16 = 0x94;
const IF_EQUAL: u16 = 0x15;
const RETURN_NUMBER: u16 = 0x06;
const RETURN_ACCUMULATOR: u16 = 0x16;
/// No socket of a group has this index, so the kernel falls back to its hash.
const NOBODY: u32 = u32::MAX;

/// Instructions that draw one of these places in the group; with none, the kernel's hash chooses.
#[must_use]
pub fn program(places: &[u32]) -> Vec<sock_filter> {
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    if places.is_empty() {
        return vec![op(RETURN_NUMBER, 0, 0, NOBODY)];
    }
    let mut program = vec![op(LOAD_ABSOLUTE, 0, 0, RANDOM), op(MODULO, 0, 0, places.len() as u32)];
    if places.iter().copied().eq(0..places.len() as u32) {
        program.push(op(RETURN_ACCUMULATOR, 0, 0, 0));
        return program;
    }
    for (draw, &place) in places.iter().enumerate() {
        program.push(op(IF_EQUAL, 0, 1, draw as u32));
        program.push(op(RETURN_NUMBER, 0, 0, place));
    }
    program.push(op(RETURN_NUMBER, 0, 0, NOBODY));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program returns for a drawn number.
    fn run(program: &[sock_filter], random: u32) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let op = program[at];
            at += 1;
            match op.code {
                LOAD_ABSOLUTE => accumulator = random,
                MODULO => accumulator %= op.k,
                IF_EQUAL => at += usize::from(if accumulator == op.k { op.jt } else { op.jf }),
                RETURN_NUMBER => return op.k,
                RETURN_ACCUMULATOR => return accumulator,
                code => panic!("no such instruction: {code}"),
            }
        }
    }

    #[test]
    fn every_eligible_place_is_drawn_and_no_other() {
        for places in [&[0u32, 1, 2, 3][..], &[3, 1], &[7], &[0, 1, 2, 5]] {
            let drawn: Vec<u32> = (0..places.len() as u32).map(|n| run(&program(places), 4000 + n)).collect();
            let mut sorted = drawn.clone();
            sorted.sort_unstable();
            let mut expected = places.to_vec();
            expected.sort_unstable();
            assert_eq!(sorted, expected);
        }
        assert_eq!(run(&program(&[]), 5), NOBODY);
    }

    #[test]
    fn all_slots_fit_into_what_the_kernel_takes() {
        // BPF_MAXINSNS.
        let most: Vec<u32> = (1..=crate::config::WORKERS_MAX).collect();
        assert!(program(&most).len() <= 4096);
    }
}
