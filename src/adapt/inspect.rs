//! Inspects the executable that a command names: where it is, what it really runs, and whether a shim can be loaded
//! into that. Reads files, executes nothing.

use super::elf::{self, Calls, Image};
use super::wrappers;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The largest number of interpreters and wrappers that are followed.
const STEPS_MAX: usize = 10;
/// How much of a `#!` line the kernel reads (`BINPRM_BUF_SIZE`).
const HASH_BANG_MAX: u64 = 256;

/// A command that cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum NotExecutable {
    /// Not found in `PATH`.
    #[error("cannot find the command {0:?} in PATH; check the spelling, or give its path as ./{0}")]
    NotFound(String),
    /// The path does not exist.
    #[error("cannot execute {}: no such file", .0.display())]
    NoFile(PathBuf),
    /// The file has no execute permission.
    #[error("cannot execute {0}: permission denied; make it executable with chmod +x {0}, or name its interpreter", path.display())]
    Permission { path: PathBuf },
    /// It is a directory.
    #[error("cannot execute {}: it is a directory", .0.display())]
    Directory(PathBuf),
}

/// How a program can be adapted from outside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", content = "detail", rename_all = "kebab-case")]
pub enum Linkage {
    /// Loaded by this dynamic loader, which honours `LD_PRELOAD`.
    Dynamic { loader: String },
    /// The same, but it makes its system calls itself: a Go program that is linked with libc.
    OwnCalls,
    /// It contains everything.
    Static,
    /// Dynamic, but its privileges make the loader ignore `LD_PRELOAD`.
    Privileged(Privilege),
    /// For another processor or word size.
    OtherMachine,
    /// Neither an ELF file nor a script: the system may know how to run it.
    Unknown,
}

/// Why a program has more rights than the user that starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// The setuid or setgid bit.
    SetUid,
    /// Capabilities of the file (`capabilities(7)`).
    Capabilities,
}

/// The result of inspecting a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// The file that is executed, absolute or relative to the worker's directory.
    pub path: PathBuf,
    /// The file that decides: after wrappers such as `env` and `sh -c`; for a script, its interpreter.
    pub program: PathBuf,
    /// How that program can be adapted.
    pub linkage: Linkage,
    /// The wrappers and interpreters between the two, outermost first.
    pub through: Vec<String>,
    /// The one of these that removes the shim from the environment.
    pub drops_environment: Option<String>,
}

/// Finds the command as a shell would, and inspects it and what it wraps.
///
/// # Errors
/// [`NotExecutable`] for the first word; if a wrapper's command cannot be found, the wrapper itself is inspected.
pub fn inspect(
    command: &[OsString],
    path_variable: Option<&OsStr>,
    cwd: Option<&Path>,
) -> Result<Executable, NotExecutable> {
    let first = command.first().ok_or_else(|| NotExecutable::NotFound(String::new()))?;
    let path = find(first, path_variable, cwd)?;
    let mut found = Executable {
        program: path.clone(),
        path,
        linkage: Linkage::Unknown,
        through: Vec::new(),
        drops_environment: None,
    };
    let mut words = command.to_vec();
    for _ in 0..STEPS_MAX {
        let seen = look_at(&found.program).unwrap_or(Seen::Program(Linkage::Unknown));
        let next = match seen {
            Seen::Script(interpreter) => Some((interpreter, "#!".to_owned())),
            Seen::Program(linkage) => {
                found.linkage = linkage;
                wrappers::wrapped(&words).map(|inner| (inner, wrappers::name(&words)))
            }
        };
        let Some((inner, through)) = next else { break };
        let Some(program) = inner.first().and_then(|word| find(word, path_variable, cwd).ok()) else { break };
        if found.drops_environment.is_none() && wrappers::drops_environment(&words) {
            found.drops_environment = Some(through.clone());
        }
        found.program = program;
        found.through.push(through);
        words = inner;
    }
    Ok(found)
}

/// Finds a program as a shell would: by its path, or by its name in one of the directories of `path_variable`.
///
/// # Errors
/// [`NotExecutable`].
pub fn find(command: &OsStr, path_variable: Option<&OsStr>, cwd: Option<&Path>) -> Result<PathBuf, NotExecutable> {
    if command.as_bytes().contains(&b'/') {
        let path = cwd.unwrap_or(Path::new(".")).join(command);
        let path = std::path::absolute(&path).unwrap_or(path);
        return may_execute(&path).map(|()| path);
    }
    // The default of `execvp(3)` when there is no PATH.
    let fallback = OsString::from("/usr/local/bin:/usr/bin:/bin");
    let directories = path_variable.unwrap_or(&fallback);
    let mut refused = None;
    for directory in std::env::split_paths(directories) {
        let path = directory.join(command);
        let path = std::path::absolute(&path).unwrap_or(path);
        match may_execute(&path) {
            Ok(()) => return Ok(path),
            Err(NotExecutable::Permission { path }) => refused = Some(NotExecutable::Permission { path }),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| NotExecutable::NotFound(command.to_string_lossy().into_owned())))
}

fn may_execute(path: &Path) -> Result<(), NotExecutable> {
    let found = std::fs::metadata(path).map_err(|_| NotExecutable::NoFile(path.to_owned()))?;
    if found.is_dir() {
        return Err(NotExecutable::Directory(path.to_owned()));
    }
    // Root needs an x bit as well.
    let allowed = nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    match allowed && found.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err(NotExecutable::Permission { path: path.to_owned() }),
    }
}

/// The kind of a file.
enum Seen {
    /// A script, and the words that run it (without the script's own).
    Script(Vec<OsString>),
    /// Anything else.
    Program(Linkage),
}

fn look_at(path: &Path) -> io::Result<Seen> {
    // A named pipe must not block this process.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(HASH_BANG_MAX).read_to_end(&mut start)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
        let words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
        return Ok(Seen::Script(words.map(|word| OsStr::from_bytes(word).to_owned()).collect()));
    }
    if !start.starts_with(elf::MAGIC) {
        return Ok(Seen::Program(Linkage::Unknown));
    }
    let linkage = match elf::read(&file)? {
        Image::OtherMachine => Linkage::OtherMachine,
        Image::Static => Linkage::Static,
        Image::Dynamic { calls: Calls::ByItself, .. } => Linkage::OwnCalls,
        Image::Dynamic { loader, calls: Calls::ThroughLibc } => match privilege_of(&file, path)? {
            Some(privilege) => Linkage::Privileged(privilege),
            None => Linkage::Dynamic { loader },
        },
    };
    Ok(Seen::Program(linkage))
}

/// Why the loader runs in secure mode (`AT_SECURE` in `getauxval(3)`), if it does.
fn privilege_of(file: &File, path: &Path) -> io::Result<Option<Privilege>> {
    let metadata = file.metadata()?;
    let gains = metadata.mode() & 0o4000 != 0 && metadata.uid() != nix::unistd::geteuid().as_raw()
        || metadata.mode() & 0o2010 == 0o2010 && metadata.gid() != nix::unistd::getegid().as_raw();
    if gains {
        return Ok(Some(Privilege::SetUid));
    }
    let given = !nix::unistd::geteuid().is_root() && crate::sys::foreign::has_capabilities(path);
    Ok(given.then_some(Privilege::Capabilities))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn inspect_file(bytes: &[u8], mode: u32) -> Result<Executable, NotExecutable> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        File::create(&path).unwrap().write_all(bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        inspect(&[path.into()], std::env::var_os("PATH").as_deref(), None)
    }

    #[test]
    fn a_script_is_what_its_interpreter_is() {
        let shell = inspect(&["sh".into()], std::env::var_os("PATH").as_deref(), None).unwrap();
        assert!(matches!(shell.linkage, Linkage::Dynamic { .. }), "{shell:?}");
        for line in ["#!/bin/sh\n", "#! /bin/sh -e\n", "#!/usr/bin/env sh\n", "#!/usr/bin/env -S A=1 sh -e\n"] {
            assert_eq!(inspect_file(line.as_bytes(), 0o755).unwrap().linkage, shell.linkage, "{line}");
        }
    }

    #[test]
    fn wrappers_are_looked_through() {
        let path = std::env::var_os("PATH");
        let look = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            inspect(&words, path.as_deref(), None).unwrap()
        };
        let cat = look(&["cat"]);
        for words in [&["env", "A=1", "cat"][..], &["sh", "-c", "exec cat -u"], &["nice", "sh", "-c", "cat"]] {
            let found = look(words);
            assert_eq!((&found.program, &found.linkage), (&cat.program, &cat.linkage), "{words:?}");
            assert_eq!(found.path, look(&words[..1]).path);
        }
        assert_eq!(look(&["nice", "sh", "-c", "cat"]).through, ["nice", "sh"]);
        let inner = look(&["env", "no-such-command"]);
        assert_eq!((inner.program, inner.through), (inner.path, vec![]));
    }

    #[test]
    fn what_cannot_run_is_named() {
        assert!(matches!(inspect_file(b"#!/bin/sh\n", 0o644), Err(NotExecutable::Permission { .. })));
        assert!(matches!(inspect(&["/".into()], None, None), Err(NotExecutable::Directory(_))));
        assert!(matches!(inspect(&["/no/such/file".into()], None, None), Err(NotExecutable::NoFile(_))));
        assert!(matches!(inspect(&["no-such-command".into()], None, None), Err(NotExecutable::NotFound(_))));
    }

    #[test]
    fn damaged_files_are_unknown_and_never_a_panic() {
        for bytes in [&b""[..], b"\x7fELF", b"\x7fELF\x02\x01", &[0x7f; 300], b"#!", b"#!\n", b"#!/no/such\n"] {
            let linkage = inspect_file(bytes, 0o755).unwrap().linkage;
            assert!(matches!(linkage, Linkage::Unknown | Linkage::OtherMachine), "{bytes:?}: {linkage:?}");
        }
    }
}
