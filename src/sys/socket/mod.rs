//! Sockets: how they are made, bound, watched, asked about, given away and closed.

pub mod bpf;
pub mod closes;
pub mod inherited;
pub mod keep;
pub mod kick;
pub mod listen;
pub mod manager;
pub mod own_pair;
pub mod room;
pub mod sock_diag;
pub mod socket_file;
pub mod stored;
