//! The commands for apps in the background: started, listed, described, their logs.

pub mod describe;
pub mod import;
pub mod list;
pub mod logs;
pub mod save;
pub mod start;
pub mod up;

use crate::master::upgrade;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// This program, as it was called from the directory in which it was when this was first asked.
fn executable() -> &'static Path {
    static EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();
    EXECUTABLE.get_or_init(upgrade::executable)
}
