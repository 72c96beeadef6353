//! `maitred check`: what this kernel, these privileges and an executable allow, before anything is
//! started.
//!
//! [`facts`] tries things out, [`verdicts`] says what follows from them and touches nothing.

pub mod facts;
pub mod verdicts;
