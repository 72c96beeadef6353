//! Replaces this program with another that continues its work (`execve(2)`): the process, its children and the passed
//! descriptors stay.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The number under which the next program finds a passed descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(RawFd);

/// Descriptors that the next program gets.
#[derive(Debug, Default)]
pub struct Passing(RefCell<Vec<RawFd>>);

impl Passing {
    /// Passes a descriptor on. It must stay open until the program is replaced.
    pub fn pass(&self, fd: impl AsFd) -> Number {
        let number = fd.as_fd().as_raw_fd();
        self.0.borrow_mut().push(number);
        Number(number)
    }

    /// The numbers so far.
    #[must_use]
    pub fn numbers(&self) -> Vec<RawFd> {
        self.0.borrow().clone()
    }

    /// Each number with the kind of file that is open there.
    ///
    /// # Errors
    /// That of `fstat(2)`.
    pub fn kinds(&self) -> io::Result<Vec<Kind>> {
        self.0.borrow().iter().map(|&number| Kind::of(number)).collect()
    }

    /// Replaces this program. Returns only when that fails, and then nothing has changed.
    ///
    /// # Errors
    /// That of `execve(2)`.
    pub fn replace(&self, path: &Path, args: Vec<OsString>, env: Vec<OsString>) -> io::Result<Infallible> {
        let path = c_string(path.as_os_str().to_owned())?;
        let (args, env) = (c_strings(args)?, c_strings(env)?);
        self.close_on_exec(FdFlag::empty());
        let Err(errno) = nix::unistd::execve(&path, &args, &env);
        self.close_on_exec(FdFlag::FD_CLOEXEC);
        Err(errno.into())
    }

    fn close_on_exec(&self, flag: FdFlag) {
        for &number in self.0.borrow().iter() {
            // SAFETY: the owner keeps it open, see `pass`; it is borrowed for one call.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = fcntl(fd, FcntlArg::F_SETFD(flag));
        }
    }
}

/// Replaces this program with the one that is open as `program`; all descriptors that stay open across `execve` are
/// passed.
///
/// # Errors
/// That of `execveat(2)`.
pub fn replace_by(program: &OwnedFd, args: Vec<OsString>, env: Vec<OsString>) -> io::Result<Infallible> {
    let (args, env) = (c_strings(args)?, c_strings(env)?);
    nix::unistd::fexecve(program, &args, &env).map_err(io::Error::from)
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(io::Error::other)
}

fn c_strings(texts: Vec<OsString>) -> io::Result<Vec<CString>> {
    texts.into_iter().map(c_string).collect()
}

/// What kind of file a passed descriptor is (`S_IFMT` in `inode(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    number: RawFd,
    kind: u32,
}

impl Kind {
    fn of(number: RawFd) -> io::Result<Kind> {
        // SAFETY: borrowed for one call; an unused number gives EBADF.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let found = nix::sys::stat::fstat(file)?;
        Ok(Kind { number, kind: found.st_mode & libc::S_IFMT })
    }

    /// Checks that this process has the descriptor and that it is of this kind.
    ///
    /// # Errors
    /// What is there instead.
    pub fn is_here(&self) -> io::Result<()> {
        match Kind::of(self.number) {
            Ok(found) if found == *self => Ok(()),
            Ok(found) => Err(io::Error::other(format!(
                "descriptor {} is a file of another kind ({:o}, not {:o})",
                self.number, found.kind, self.kind
            ))),
            Err(error) => Err(io::Error::other(format!("descriptor {}: {error}", self.number))),
        }
    }
}

/// The next program's side: takes the passed descriptors, each once.
#[derive(Debug, Default)]
pub struct Taking(RefCell<BTreeSet<RawFd>>);

impl Taking {
    /// The descriptor with this number.
    ///
    /// # Errors
    /// When it is not open, or was taken before.
    pub fn take(&self, number: Number) -> io::Result<OwnedFd> {
        if !self.0.borrow_mut().insert(number.0) {
            return Err(io::Error::other(format!("descriptor {} was passed twice", number.0)));
        }
        crate::sys::fd::inherited(number.0)
    }
}
