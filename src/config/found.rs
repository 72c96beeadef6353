//! The configuration file that is meant where none is named: `maitred.toml` here or in a directory above.

use super::file::{self, FileError};
use crate::sys::process::trusted::{Absent, Directory, Untrusted};
use nix::unistd::geteuid;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Its name.
pub const NAME: &str = "maitred.toml";
/// That others may write to it; a group is often its user's own.
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Why the file that is there is not taken. What a file says is executed, and others can put one into a directory above,
/// or exchange one that is in a directory of theirs (as with `.git`, CVE-2022-24765).
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// Others decide what it says.
    #[error("{} is not used: {why}; name it with -c if it is meant", path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
}

/// The nearest file of that name, from this directory upwards.
///
/// # Errors
/// As for [`read`].
pub fn upwards(from: &Path) -> Result<Option<PathBuf>, FoundError> {
    let mut files = from.ancestors().map(|directory| directory.join(NAME));
    let Some(path) = files.find(|path| path.symlink_metadata().is_ok()) else { return Ok(None) };
    open(&path)?;
    Ok(Some(path))
}

/// Reads a file that was found, and checks each time that nobody else decides what it says.
///
/// # Errors
/// [`FoundError`].
pub fn read(path: &Path) -> Result<String, FoundError> {
    Ok(file::text_of(path, open(path)?)?)
}

fn open(path: &Path) -> Result<File, FoundError> {
    let no = |why: String| FoundError::Unsafe { path: path.to_owned(), why };
    let directory = path.parent().unwrap_or(Path::new("/"));
    Directory::open(directory, Absent::Refuse).map_err(|untrusted| match untrusted {
        Untrusted::Io { source, .. } => no(source.to_string()),
        untrusted => no(untrusted.to_string()),
    })?;
    // The directory is nobody else's, but a link could lead elsewhere.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file =
        File::options().read(true).custom_flags(flags).open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => no("it is a link".to_owned()),
            _ => no(error.to_string()),
        })?;
    let found = file.metadata().map_err(|error| no(error.to_string()))?;
    match (found.uid(), found.mode() & WRITABLE_BY_OTHERS) {
        (uid, 0) if uid == 0 || uid == geteuid().as_raw() => Ok(file),
        (uid, 0) => Err(no(format!("it belongs to user {uid}"))),
        _ => Err(no("others can write to it".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_nearest_one_counts_unless_others_can_write_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        assert_eq!(upwards(&below).unwrap(), None);
        let above = dir.path().join(NAME);
        let write = |path: &Path, mode| {
            std::fs::write(path, "").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write(&above, 0o644);
        assert_eq!(upwards(&below).unwrap(), Some(above));
        let nearer = dir.path().join("a").join(NAME);
        write(&nearer, 0o600);
        assert_eq!(upwards(&below).unwrap(), Some(nearer.clone()));
        assert_eq!(read(&nearer).unwrap(), "");
        write(&nearer, 0o666);
        assert!(upwards(&below).unwrap_err().to_string().contains("others can write"));
        assert!(read(&nearer).is_err());
        std::fs::remove_file(&nearer).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &nearer).unwrap();
        assert!(upwards(&below).unwrap_err().to_string().contains("it is a link"));
        std::fs::remove_file(&nearer).unwrap();
        write(&nearer, 0o600);
        std::fs::set_permissions(nearer.parent().unwrap(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(upwards(&below).unwrap_err().to_string().contains("is not used"));
    }
}
