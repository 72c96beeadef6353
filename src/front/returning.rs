//! The hand-off sockets from which connections may come back.

use super::handoff::Handoff;
use crate::wire::address::Address;
use std::cell::RefCell;
use std::rc::Rc;

/// The hand-off sockets of all workers that may send something back.
#[derive(Debug, Default)]
pub struct Returning(pub(super) RefCell<Vec<(Address, Rc<Handoff>)>>);
