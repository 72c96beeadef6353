//! The end of a file of lines, and what is appended to it. The file may be renamed, removed or cut meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is read at once.
const CHUNK: u64 = 64 << 10;
/// How far back the last lines are looked for.
const BACK_MAX: u64 = 16 << 20;
/// A longer line is shown in pieces.
const LINE_MAX: usize = 64 << 10;

/// A place in a file from which lines are still to be shown.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    at: u64,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

/// The last lines of a file, and the place after them.
///
/// # Errors
/// When the file cannot be read.
pub fn last_lines(path: &Path, lines: usize) -> io::Result<(Vec<u8>, Tail)> {
    let mut file = open(path)?;
    let end = file.metadata()?.len();
    let mut begin = end;
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut found = 0;
    // A line is whole when the end of the one before it is there.
    while begin > 0 && end - begin < BACK_MAX && found <= lines {
        let from = begin.saturating_sub(CHUNK);
        let mut chunk = vec![0; usize::try_from(begin - from).unwrap_or_default()];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut chunk)?;
        found += chunk.iter().filter(|byte| **byte == b'\n').count();
        chunks.push(chunk);
        begin = from;
    }
    chunks.reverse();
    let mut text = chunks.concat();
    let ends: Vec<usize> = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    let complete = ends.last().map_or(0, |end| end + 1);
    let partial = text.split_off(complete);
    let first =
        ends.len().checked_sub(lines.saturating_add(1)).and_then(|before| ends.get(before)).map_or(0, |end| end + 1);
    let text = if lines == 0 { Vec::new() } else { text.split_off(first) };
    Ok((text, Tail { path: path.to_owned(), file: Some(file), at: end, partial }))
}

impl Tail {
    /// A file that is not there yet, from its beginning.
    #[must_use]
    pub fn from_start(path: &Path) -> Tail {
        Tail { path: path.to_owned(), file: None, at: 0, partial: Vec::new() }
    }

    /// The lines that were appended since. A file that took the place of this one is shown from its beginning, when this
    /// one was shown to its end.
    pub fn new_lines(&mut self) -> Vec<Vec<u8>> {
        let before = self.at;
        let mut lines = self.read_on();
        if self.at == before
            && self.is_replaced()
            && let Ok(file) = open(&self.path)
        {
            // The last line of the old one will have no end any more.
            lines.extend(Some(std::mem::take(&mut self.partial)).filter(|partial| !partial.is_empty()));
            (self.file, self.at) = (Some(file), 0);
            lines.extend(self.read_on());
        }
        lines
    }

    fn is_replaced(&self) -> bool {
        let Ok(there) = std::fs::metadata(&self.path) else { return false };
        let open = self.file.as_ref().and_then(|file| file.metadata().ok());
        open.is_none_or(|open| (open.dev(), open.ino()) != (there.dev(), there.ino()))
    }

    fn read_on(&mut self) -> Vec<Vec<u8>> {
        let Some(file) = &mut self.file else { return Vec::new() };
        if file.metadata().is_ok_and(|now| now.len() < self.at) {
            // It was cut (`copytruncate` of `logrotate(8)`).
            (self.at, self.partial) = (0, Vec::new());
        }
        let mut new = Vec::new();
        if file.seek(SeekFrom::Start(self.at)).and_then(|_| file.take(BACK_MAX).read_to_end(&mut new)).is_err() {
            return Vec::new();
        }
        self.at += new.len() as u64;
        let mut lines = Vec::new();
        for piece in new.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.pop_if(|last| *last == b'\n').is_some() {
                lines.push(std::mem::take(&mut self.partial));
            }
        }
        if self.partial.len() > LINE_MAX {
            lines.push(std::mem::take(&mut self.partial));
        }
        lines
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Non-blocking, since opening a pipe would wait for its writer.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_last_lines_are_whole() {
        let (_dir, path) = file("1\n2\n3\nhal");
        let last = |lines| String::from_utf8(last_lines(&path, lines).unwrap().0).unwrap();
        assert_eq!((last(0).as_str(), last(1).as_str(), last(2).as_str()), ("", "3\n", "2\n3\n"));
        assert_eq!(last(9), "1\n2\n3\n");
        let (_dir, long) = file(&(0..50_000).map(|n| format!("{n}\n")).collect::<String>());
        let (text, _) = last_lines(&long, 20_000).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!((text.lines().next(), text.lines().count()), (Some("30000"), 20_000));
        assert!(last_lines(Path::new("/dev/null"), 1).is_err());
    }

    #[test]
    fn what_is_appended_is_seen_once_also_after_a_rename_and_a_cut() {
        let (dir, path) = file("1\nha");
        let (_, mut tail) = last_lines(&path, 1).unwrap();
        let new = |tail: &mut Tail| {
            tail.new_lines().into_iter().map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>()
        };
        assert!(new(&mut tail).is_empty());
        append(&path, "lf\n2\n");
        assert_eq!(new(&mut tail), ["half", "2"]);
        append(&path, "3\n");
        std::fs::rename(&path, dir.path().join("old.log")).unwrap();
        assert_eq!(new(&mut tail), ["3"]);
        append(&dir.path().join("old.log"), "half");
        append(&path, "4\n");
        assert!(new(&mut tail).is_empty());
        assert_eq!(new(&mut tail), ["half", "4"]);
        File::options().write(true).truncate(true).open(&path).unwrap();
        assert!(new(&mut tail).is_empty());
        append(&path, "5\n");
        assert_eq!(new(&mut tail), ["5"]);
        let mut later = Tail::from_start(&dir.path().join("later.log"));
        assert!(new(&mut later).is_empty());
        append(&dir.path().join("later.log"), "first\n");
        assert_eq!(new(&mut later), ["first"]);
    }
}
