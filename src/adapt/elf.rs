//! What an ELF file (`elf(5)`) says of itself: its machine, its loader, its language.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Most program headers that are looked at.
const HEADERS_MAX: u16 = 512;
/// Most bytes of a loader's name or of a note that are read.
const SEGMENT_MAX: u64 = 4096;
/// The first bytes of every such file.
pub const MAGIC: &[u8] = b"\x7fELF";

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
    /// It has everything in it.
    Static,
    /// For another processor or word size.
    OtherMachine,
}

/// Who makes a dynamic program's system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// The C library, before which a shim can stand.
    ThroughLibc,
    /// The program: the Go runtime does so even when it is linked with libc.
    ByItself,
}

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// Reads the program headers.
///
/// # Errors
/// When the file is cut short.
pub fn read(file: &mut File, header: &[u8]) -> io::Result<Image> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    if header.get(4) != Some(&CLASS_64) || header.get(5) != Some(&LITTLE_ENDIAN) || u16_at(header, 18) != Some(MACHINE)
    {
        return Ok(Image::OtherMachine);
    }
    let offset = u64_at(header, 32).ok_or_else(short)?;
    let size = u16_at(header, 54).ok_or_else(short)?;
    let count = u16_at(header, 56).ok_or_else(short)?.min(HEADERS_MAX);
    let (mut loader, mut calls) = (None, Calls::ThroughLibc);
    for index in 0..u64::from(count) {
        let mut program_header = [0; 56];
        file.seek(SeekFrom::Start(offset.saturating_add(index * u64::from(size))))?;
        file.read_exact(&mut program_header)?;
        let kind = u32::from_le_bytes([program_header[0], program_header[1], program_header[2], program_header[3]]);
        if kind == PT_INTERP {
            let name = segment(file, &program_header).ok_or_else(short)?;
            loader = Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
        }
        // A note of the owner `Go` (Go's cmd/link, data.go); notes and what is in them are aligned to four.
        if kind == PT_NOTE
            && segment(file, &program_header).is_some_and(|notes| notes.chunks(4).any(|word| word == b"Go\0\0"))
        {
            calls = Calls::ByItself;
        }
    }
    Ok(loader.map_or(Image::Static, |loader| Image::Dynamic { loader, calls }))
}

/// Whether a file has all that its header says: the table of sections, which linkers write last, lies
/// within it. A program that was cut short may run for a while, and dies where it needs what is missing.
///
/// # Errors
/// When the file cannot be read.
pub fn is_whole(file: &mut File) -> io::Result<bool> {
    let mut header = Vec::new();
    file.rewind()?;
    file.by_ref().take(64).read_to_end(&mut header)?;
    if !header.starts_with(MAGIC) {
        // A script, say.
        return Ok(!header.is_empty());
    }
    let (table, size, count) = (u64_at(&header, 40), u16_at(&header, 58), u16_at(&header, 60));
    let (Some(table), Some(size), Some(count)) = (table, size, count) else { return Ok(false) };
    Ok(table.saturating_add(u64::from(size) * u64::from(count)) <= file.metadata()?.len())
}

fn segment(file: &mut File, program_header: &[u8; 56]) -> Option<Vec<u8>> {
    let (at, length) = (u64_at(program_header, 8)?, u64_at(program_header, 32)?.min(SEGMENT_MAX));
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|b| u16::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|b| u64::from_le_bytes(*b))
}
