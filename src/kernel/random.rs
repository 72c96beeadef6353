//! The fallback as instructions of the old machine (Documentation/networking/filter.rst), which an ordinary user may
//! attach. It has no memory, so it cannot take turns, only draw.
//!
//! ```text
//! draw = random mod sum of weights
//! if draw < the first slot's weight: return its place in the group
//! if draw < that and the second's: return its place …
//! ```

use libc::sock_filter;

/// Loads a word from what the kernel knows beside the packet (`SKF_AD_OFF` in linux/filter.h), here a
/// random number (`SKF_AD_RANDOM`, since Linux 3.16).
const LOAD_ABSOLUTE: u16 = 0x20;
const RANDOM: u32 = (-0x1000i32 + 56) as u32;
const MODULO: u16 = 0x94;
const IF_AT_LEAST: u16 = 0x35;
const RETURN_NUMBER: u16 = 0x06;
const RETURN_ACCUMULATOR: u16 = 0x16;
/// No socket of a group has this index, so the kernel falls back to its hash.
const NOBODY: u32 = u32::MAX;

/// Instructions that draw one of these places in the group, each by its weight; without places, the kernel's hash
/// chooses.
#[must_use]
pub fn program(places: &[(u32, u32)]) -> Vec<sock_filter> {
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let weights = || places.iter().map(|(_, weight)| *weight);
    let equal = weights().all(|weight| weight == places[0].1);
    // Equal weights are left out, so that the first form serves for most groups.
    let weight = |weight: u32| if equal { 1 } else { weight };
    let sum: u32 = weights().map(weight).fold(0, u32::saturating_add);
    if sum == 0 {
        return vec![op(RETURN_NUMBER, 0, 0, NOBODY)];
    }
    let mut program = vec![op(LOAD_ABSOLUTE, 0, 0, RANDOM), op(MODULO, 0, 0, sum)];
    if equal && places.iter().map(|(place, _)| *place).eq(0..places.len() as u32) {
        program.push(op(RETURN_ACCUMULATOR, 0, 0, 0));
        return program;
    }
    let mut end: u32 = 0;
    for &(place, own) in places {
        end = end.saturating_add(weight(own));
        program.push(op(IF_AT_LEAST, 1, 0, end));
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
                IF_AT_LEAST => at += usize::from(if accumulator >= op.k { op.jt } else { op.jf }),
                RETURN_NUMBER => return op.k,
                RETURN_ACCUMULATOR => return accumulator,
                code => panic!("no such instruction: {code}"),
            }
        }
    }

    /// How often each place comes when every number is drawn once.
    fn check(places: &[(u32, u32)], round: u32, expected: &[(u32, u32)]) {
        let mut counts = std::collections::BTreeMap::new();
        (0..round).for_each(|n| *counts.entry(run(&program(places), 5000 * round + n)).or_insert(0) += 1);
        assert_eq!(counts.into_iter().collect::<Vec<(u32, u32)>>(), expected, "{places:?}");
    }

    #[test]
    fn every_eligible_place_is_drawn_and_no_other() {
        check(&[(0, 1), (1, 1), (2, 1), (3, 1)], 4, &[(0, 1), (1, 1), (2, 1), (3, 1)]);
        check(&[(3, 256), (1, 256)], 2, &[(1, 1), (3, 1)]);
        check(&[(7, 9)], 1, &[(7, 1)]);
        check(&[(0, 1), (1, 1), (2, 1), (5, 1)], 4, &[(0, 1), (1, 1), (2, 1), (5, 1)]);
        assert_eq!(run(&program(&[]), 5), NOBODY);
    }

    #[test]
    fn each_place_is_drawn_by_its_weight() {
        check(&[(0, 3), (1, 1), (2, 2)], 6, &[(0, 3), (1, 1), (2, 2)]);
        check(&[(4, 1), (0, 255)], 256, &[(0, 255), (4, 1)]);
    }

    #[test]
    fn all_slots_fit_into_what_the_kernel_takes() {
        // BPF_MAXINSNS.
        let most: Vec<(u32, u32)> = (1..=crate::config::WORKERS_MAX).map(|place| (place, 256 * 256)).collect();
        assert!(program(&most).len() <= 4096);
        let unequal: Vec<(u32, u32)> = most.iter().map(|&(place, weight)| (place, weight - place)).collect();
        assert!(program(&unequal).len() <= 4096);
    }
}
