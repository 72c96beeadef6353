//! `maitred check`: what this kernel, these privileges and an executable allow, before anything is
//! started.
//!
//! [`facts`] tests what works, [`verdicts`] draws the conclusions without side effects.

pub mod facts;
pub mod notes;
pub mod verdicts;
