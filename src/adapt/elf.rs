//! What an ELF file (`elf(5)`) says about itself: its machine, its loader, its language.

use object::elf::{ELFCLASS64, ELFDATA2LSB, EM_AARCH64, EM_X86_64, FileHeader64, Machine, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, ReadCache};
use std::fs::File;
use std::io::{self, Read, Seek};

/// The longest loader name, and the longest notes, that are read (`PATH_MAX`).
const SEGMENT_MAX: u64 = 4096;
/// The first bytes of every such file (`ELFMAG`).
pub const MAGIC: &[u8] = b"\x7fELF";
const MACHINE: Machine = if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 };

/// How a program gets its libc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// By this dynamic loader.
    Dynamic {
        /// The loader's path.
        loader: String,
        /// Whether its system calls go through libc.
        calls: Calls,
    },
    /// It contains everything.
    Static,
    /// For another processor or word size.
    OtherMachine,
}

/// What makes a dynamic program's system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// The C library, whose calls a shim can intercept.
    ThroughLibc,
    /// The program itself: the Go runtime does so even when it is linked with libc.
    ByItself,
}

type Header = FileHeader64<LittleEndian>;

/// Reads the program headers.
///
/// # Errors
/// When the file cannot be read, is cut short, or contradicts itself.
pub fn read(file: &File) -> io::Result<Image> {
    let data = ReadCache::new(file);
    // A file for another machine may have another layout, so the header is checked first.
    let Ok(header) = Header::parse(&data) else { return other_or_short(file) };
    if header.e_machine.get(LittleEndian) != MACHINE {
        return Ok(Image::OtherMachine);
    }
    let (mut loader, mut calls) = (None, Calls::ThroughLibc);
    for segment in header.program_headers(LittleEndian, &data).map_err(malformed)? {
        if segment.p_type(LittleEndian) == PT_INTERP {
            if segment.p_filesz(LittleEndian) > SEGMENT_MAX {
                return Err(malformed("the loader's name is too long"));
            }
            let name = segment.interpreter(LittleEndian, &data).map_err(malformed)?;
            loader = name.map(|name| String::from_utf8_lossy(name).into_owned());
        }
        // The owner name of Go's notes (cmd/link of Go, data.go).
        if segment.p_filesz(LittleEndian) <= SEGMENT_MAX
            && let Ok(Some(mut notes)) = segment.notes(LittleEndian, &data)
        {
            while let Ok(Some(note)) = notes.next() {
                if note.name() == b"Go" {
                    calls = Calls::ByItself;
                }
            }
        }
    }
    Ok(loader.map_or(Image::Static, |loader| Image::Dynamic { loader, calls }))
}

/// Classifies a file that is not an ELF file for this machine.
fn other_or_short(mut file: &File) -> io::Result<Image> {
    let mut ident = [0; 6];
    file.rewind()?;
    file.read_exact(&mut ident)?;
    match ident {
        [.., class, data] if (class, data) != (ELFCLASS64.0, ELFDATA2LSB.0) => Ok(Image::OtherMachine),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn malformed(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// Whether a file has everything that its header promises: the section table, which linkers write last, lies within
/// the file. A truncated program may run for a while, and then dies where it needs a missing part.
///
/// # Errors
/// When the file cannot be read.
pub fn is_whole(mut file: &File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.rewind()?;
    file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    if start != MAGIC {
        // A script, for example.
        return Ok(!start.is_empty());
    }
    let data = ReadCache::new(file);
    Ok(Header::parse(&data).is_ok_and(|header| header.section_headers(LittleEndian, &data).is_ok()))
}
