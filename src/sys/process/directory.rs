//! The working directory as the user named it. A shell that enters a directory through a link keeps the link's name in
//! `PWD` (POSIX.1, "Environment Variables"), while the kernel only knows the directory. Where releases change by moving
//! the link, each new worker must enter it anew.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static NAMED: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The name in `PWD`, if it led to the working directory through a link when this was first called.
#[must_use]
pub fn named() -> Option<PathBuf> {
    NAMED.get_or_init(|| through_link(std::env::var_os("PWD").as_deref().map(Path::new)?)).clone()
}

/// Takes over what the program before this one found.
pub fn remember(name: Option<PathBuf>) {
    // If this program has looked already, what it found stays.
    let _ = NAMED.set(name);
}

fn through_link(name: &Path) -> Option<PathBuf> {
    let real = std::env::current_dir().ok()?;
    let leads_there = name.is_absolute() && name != real && name.canonicalize().ok()? == real;
    leads_there.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_to_the_working_directory_is_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        std::os::unix::fs::symlink(std::env::current_dir().unwrap(), &link).unwrap();
        assert_eq!(through_link(&link), Some(link.clone()));
        assert_eq!(through_link(&std::env::current_dir().unwrap()), None);
        assert_eq!(through_link(dir.path()), None);
        assert_eq!(through_link(Path::new(".")), None);
        assert_eq!(through_link(&dir.path().join("missing")), None);
    }
}
