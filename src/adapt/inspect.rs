//! Looking at the executable that a command names: where it is, and whether a shim can be loaded
//! into it. Reads files, executes nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Interpreters of scripts that are followed: the kernel's own limit is 5 (`BINPRM_MAX_RECURSION`).
const INTERPRETERS_MAX: usize = 5;
/// The kernel reads that much of a `#!` line (`BINPRM_BUF_SIZE`).
const HASH_BANG_MAX: u64 = 256;
/// Most program headers that are looked at.
const HEADERS_MAX: u16 = 512;

/// A command that cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum NotExecutable {
    /// Nowhere in `PATH`.
    #[error("cannot find the command {0:?} in PATH; check the spelling, or give its path as ./{0}")]
    NotFound(String),
    /// A path to nothing.
    #[error("cannot execute {}: no such file", .0.display())]
    NoFile(PathBuf),
    /// A file without the permission.
    #[error("cannot execute {0}: permission denied; make it executable with chmod +x {0}, or name its interpreter", path.display())]
    Permission { path: PathBuf },
    /// A directory.
    #[error("cannot execute {}: it is a directory", .0.display())]
    Directory(PathBuf),
}

/// How the executable gets its libc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// By this dynamic loader, which honours `LD_PRELOAD`.
    Dynamic { loader: String },
    /// It has everything in it.
    Static,
    /// Dynamic, but its privileges make the loader ignore `LD_PRELOAD`.
    Setuid,
    /// For another processor or word size.
    OtherMachine,
    /// No ELF file and no script: the system may know how to run it.
    Unknown,
}

/// What a command names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// The file, absolute or relative to the worker's directory.
    pub path: PathBuf,
    /// How it gets its libc; for a script, how its interpreter does.
    pub linkage: Linkage,
}

/// Finds the command as a shell would, and looks at it.
///
/// # Errors
/// [`NotExecutable`].
pub fn inspect(
    command: &OsStr,
    path_variable: Option<&OsStr>,
    cwd: Option<&Path>,
) -> Result<Executable, NotExecutable> {
    let path = find(command, path_variable, cwd)?;
    let linkage = linkage_of(&path, path_variable, INTERPRETERS_MAX).unwrap_or(Linkage::Unknown);
    Ok(Executable { path, linkage })
}

fn find(command: &OsStr, path_variable: Option<&OsStr>, cwd: Option<&Path>) -> Result<PathBuf, NotExecutable> {
    if command.as_bytes().contains(&b'/') {
        let path = cwd.unwrap_or(Path::new(".")).join(command);
        let path = std::path::absolute(&path).unwrap_or(path);
        return may_execute(&path).map(|()| path);
    }
    // What `execvp(3)` takes when there is no PATH.
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

fn linkage_of(path: &Path, path_variable: Option<&OsStr>, depth: usize) -> io::Result<Linkage> {
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(HASH_BANG_MAX).read_to_end(&mut start)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        if depth == 0 {
            return Ok(Linkage::Unknown);
        }
        return Ok(match interpreter(line, path_variable) {
            Some(interpreter) => linkage_of(&interpreter, path_variable, depth - 1)?,
            None => Linkage::Unknown,
        });
    }
    if !start.starts_with(b"\x7fELF") {
        return Ok(Linkage::Unknown);
    }
    let metadata = file.metadata()?;
    let linkage = elf_linkage(&mut file, &start)?;
    let gains = metadata.mode() & 0o4000 != 0 && metadata.uid() != nix::unistd::geteuid().as_raw()
        || metadata.mode() & 0o2010 == 0o2010 && metadata.gid() != nix::unistd::getegid().as_raw();
    Ok(if gains && matches!(linkage, Linkage::Dynamic { .. }) { Linkage::Setuid } else { linkage })
}

/// The program that runs a script, looked up in `PATH` where the line says `env`.
fn interpreter(line: &[u8], path_variable: Option<&OsStr>) -> Option<PathBuf> {
    let line = line.split(|&b| b == b'\n').next()?;
    let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let program = Path::new(OsStr::from_bytes(words.next()?));
    if program.file_name() != Some(OsStr::new("env")) {
        return Some(program.to_owned());
    }
    let named = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
    find(OsStr::from_bytes(named), path_variable, None).ok()
}

/// Looks for the program header that names a dynamic loader (`elf(5)`, `PT_INTERP`).
fn elf_linkage(file: &mut File, header: &[u8]) -> io::Result<Linkage> {
    const CLASS_64: u8 = 2;
    const LITTLE_ENDIAN: u8 = 1;
    const PT_INTERP: u32 = 3;
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let u16_at = |bytes: &[u8], at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let u64_at = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|b| b.first_chunk::<8>()).map(|b| u64::from_le_bytes(*b))
    };
    if header.get(4) != Some(&CLASS_64) || header.get(5) != Some(&LITTLE_ENDIAN) || u16_at(header, 18) != Some(machine)
    {
        return Ok(Linkage::OtherMachine);
    }
    let offset = u64_at(header, 32).ok_or_else(short)?;
    let size = u16_at(header, 54).ok_or_else(short)?;
    let count = u16_at(header, 56).ok_or_else(short)?.min(HEADERS_MAX);
    for index in 0..u64::from(count) {
        let mut program_header = [0; 56];
        file.seek(SeekFrom::Start(offset.saturating_add(index * u64::from(size))))?;
        file.read_exact(&mut program_header)?;
        if program_header[..4] == PT_INTERP.to_le_bytes() {
            let at = u64_at(&program_header, 8).ok_or_else(short)?;
            let len = u64_at(&program_header, 32).ok_or_else(short)?.min(4096);
            file.seek(SeekFrom::Start(at))?;
            let mut loader = Vec::new();
            file.take(len).read_to_end(&mut loader)?;
            let loader = String::from_utf8_lossy(&loader).trim_end_matches('\0').to_owned();
            return Ok(Linkage::Dynamic { loader });
        }
    }
    Ok(Linkage::Static)
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
        inspect(path.as_os_str(), std::env::var_os("PATH").as_deref(), None)
    }

    #[test]
    fn a_script_is_what_its_interpreter_is() {
        let shell = inspect(OsStr::new("sh"), std::env::var_os("PATH").as_deref(), None).unwrap();
        assert!(matches!(shell.linkage, Linkage::Dynamic { .. }), "{shell:?}");
        for line in ["#!/bin/sh\n", "#! /bin/sh -e\n", "#!/usr/bin/env sh\n", "#!/usr/bin/env -S A=1 sh -e\n"] {
            assert_eq!(inspect_file(line.as_bytes(), 0o755).unwrap().linkage, shell.linkage, "{line}");
        }
    }

    #[test]
    fn what_cannot_run_is_named() {
        assert!(matches!(inspect_file(b"#!/bin/sh\n", 0o644), Err(NotExecutable::Permission { .. })));
        assert!(matches!(inspect(OsStr::new("/"), None, None), Err(NotExecutable::Directory(_))));
        assert!(matches!(inspect(OsStr::new("/no/such/file"), None, None), Err(NotExecutable::NoFile(_))));
        assert!(matches!(inspect(OsStr::new("no-such-command"), None, None), Err(NotExecutable::NotFound(_))));
    }

    #[test]
    fn damaged_files_are_unknown_and_never_a_panic() {
        for bytes in [&b""[..], b"\x7fELF", b"\x7fELF\x02\x01", &[0x7f; 300], b"#!", b"#!\n", b"#!/usr/bin/env\n"] {
            let linkage = inspect_file(bytes, 0o755).unwrap().linkage;
            assert!(matches!(linkage, Linkage::Unknown | Linkage::OtherMachine), "{bytes:?}: {linkage:?}");
        }
    }
}
