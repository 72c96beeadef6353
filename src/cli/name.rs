//! The name of a maitred that was given none.

use crate::config::name::clean;
use std::ffi::OsStr;
use std::path::Path;

/// The name of a server that was given none: the command's file name. Characters that are invalid in a file name or would
/// hide the file are replaced.
pub fn of_command(command: &OsStr) -> String {
    let file = Path::new(command).file_name().unwrap_or(command).to_string_lossy();
    match &*clean(&file) {
        "" => "maitred".to_owned(),
        clean => clean.to_owned(),
    }
}
