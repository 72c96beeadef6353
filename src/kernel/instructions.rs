//! Instructions of the kernel's machine (Documentation/bpf/standardization/instruction-set.rst), and assembling them
//! with jumps to names. Has no side effects.

/// Registers: r0 results, r1 to r5 arguments, r6 to r9 survive calls, r10 the stack.
pub const R0: u8 = 0;
pub const R1: u8 = 1;
pub const R2: u8 = 2;
pub const R3: u8 = 3;
pub const R4: u8 = 4;
pub const R5: u8 = 5;
pub const R6: u8 = 6;
pub const R7: u8 = 7;
pub const R8: u8 = 8;
pub const R9: u8 = 9;
pub const STACK: u8 = 10;

/// Operation codes: class, width or operation, and whether the source is a register.
pub const MOV: u8 = 0xbf;
pub const MOV_NUMBER: u8 = 0xb7;
pub const ADD: u8 = 0x0f;
pub const ADD_NUMBER: u8 = 0x07;
pub const MUL: u8 = 0x2f;
pub const MUL_NUMBER: u8 = 0x27;
pub const AND: u8 = 0x5f;
pub const AND_NUMBER: u8 = 0x57;
pub const XOR: u8 = 0xaf;
pub const LEFT_NUMBER: u8 = 0x67;
pub const RIGHT_NUMBER: u8 = 0x77;
pub const MOD: u8 = 0x9f;
/// Turns this many bits, counted from the most significant byte, into a number.
pub const FROM_NETWORK: u8 = 0xdc;
pub const LOAD_NUMBER_64: u8 = 0x18;
pub const LOAD_8: u8 = 0x71;
pub const LOAD_32: u8 = 0x61;
pub const LOAD_64: u8 = 0x79;
pub const STORE_NUMBER_32: u8 = 0x62;
pub const STORE_32: u8 = 0x63;
pub const STORE_NUMBER_64: u8 = 0x7a;
pub const ATOMIC_64: u8 = 0xdb;
pub const FETCH_ADD: i32 = 0x01;
pub const PLAIN_ADD: i32 = 0x00;
pub const ALWAYS: u8 = 0x05;
pub const IF_EQUAL: u8 = 0x15;
pub const IF_NOT_EQUAL: u8 = 0x55;
pub const IF_ABOVE: u8 = 0x25;
pub const IF_ABOVE_REGISTER: u8 = 0x2d;
pub const CALL: u8 = 0x85;
pub const EXIT: u8 = 0x95;

/// Marks an address as that of a map, given by its descriptor (`BPF_PSEUDO_MAP_FD`).
pub const MAP_FD: u8 = 1;

/// One instruction: code, destination and source register, offset, number. The layout is the one in the kernel's
/// memory, on a machine with the least significant byte first.
#[must_use]
pub fn op(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    u64::from(code) | u64::from(from << 4 | to) << 8 | u64::from(offset as u16) << 16 | u64::from(number as u32) << 32
}

/// Loads a number that needs two instructions.
#[must_use]
pub fn load(to: u8, number: u64) -> [u64; 2] {
    [op(LOAD_NUMBER_64, to, 0, 0, number as i32), op(0, 0, 0, 0, (number >> 32) as i32)]
}

/// A program under construction; `L` names the places that jumps lead to.
#[derive(Debug)]
pub struct Assembly<L> {
    body: Vec<u64>,
    jumps: Vec<(usize, L)>,
    places: Vec<(L, usize)>,
}

impl<L> Default for Assembly<L> {
    fn default() -> Assembly<L> {
        Assembly { body: Vec::new(), jumps: Vec::new(), places: Vec::new() }
    }
}

impl<L: Copy + PartialEq + std::fmt::Debug> Assembly<L> {
    /// Adds instructions.
    pub fn put(&mut self, instructions: &[u64]) -> &mut Assembly<L> {
        self.body.extend(instructions);
        self
    }

    /// Adds a jump that is taken when this comparison of a register with a number holds.
    pub fn jump(&mut self, condition: u8, register: u8, number: i32, to: L) -> &mut Assembly<L> {
        self.jumps.push((self.body.len(), to));
        self.put(&[op(condition, register, 0, 0, number)])
    }

    /// Adds a jump that is taken when this comparison of two registers holds.
    pub fn jump_register(&mut self, condition: u8, register: u8, other: u8, to: L) -> &mut Assembly<L> {
        self.jumps.push((self.body.len(), to));
        self.put(&[op(condition, register, other, 0, 0)])
    }

    /// Says that jumps to `place` lead here.
    pub fn here(&mut self, place: L) -> &mut Assembly<L> {
        self.places.push((place, self.body.len()));
        self
    }

    /// The finished program.
    #[must_use]
    #[expect(clippy::panic, reason = "the programs are written here, and the tests finish each of them")]
    pub fn finish(mut self) -> Vec<u64> {
        for (at, to) in self.jumps {
            let found = self.places.iter().find(|(place, _)| *place == to);
            let to = found.unwrap_or_else(|| panic!("nothing is called {to:?}")).1;
            // The verifier refuses loops, so all jumps lead forward.
            self.body[at] |= ((to - at - 1) as u64) << 16;
        }
        self.body
    }
}
