//! When a file of lines is put aside, and what becomes of those that were: `out.log.1` is the newest, as `logrotate(8)`
//! has it.
//!
//! This is our own because the crates for it do not fit: file-rotate ends the program when somebody removes its files
//! meanwhile, and tracing-appender knows no size.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

/// What compressed files end with.
const COMPRESSED: &str = ".gz";
/// What a file ends with while it is compressed.
const UNFINISHED: &str = ".gz.part";

/// When a file is put aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The size in bytes at which it is; none for no limit.
    pub max_size: Option<u64>,
    /// The age at which it is; none for no limit.
    pub max_age: Option<Duration>,
    /// How many are kept.
    pub keep: u32,
    /// Whether those are compressed.
    pub compress: Compress,
}

/// Whether files that were put aside are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Each is compressed by a thread of its own.
    Yes,
    /// They stay as they are.
    No,
}

impl Rotation {
    /// Files stay as they are.
    pub const NEVER: Rotation = Rotation { max_size: None, max_age: None, keep: 0, compress: Compress::No };

    /// Whether a file of this size and age is put aside.
    #[must_use]
    pub fn is_due(&self, size: u64, age: Duration) -> bool {
        size > 0 && (self.max_size.is_some_and(|max| size >= max) || self.max_age.is_some_and(|max| age >= max))
    }

    /// Puts the file at this path aside, and forgets the oldest. With compression, returns the thread that does it; until
    /// it has ended, nothing else may be put aside there.
    ///
    /// # Errors
    /// When the file cannot be renamed; then it stays.
    pub fn put_aside(&self, path: &Path) -> io::Result<Option<JoinHandle<()>>> {
        if self.keep == 0 {
            return std::fs::remove_file(path).map(|()| None);
        }
        for ending in ["", COMPRESSED] {
            remove(&numbered(path, self.keep, ending))?;
            for number in (1..self.keep).rev() {
                rename(&numbered(path, number, ending), &numbered(path, number + 1, ending))?;
            }
        }
        let newest = numbered(path, 1, "");
        std::fs::rename(path, &newest)?;
        if self.compress == Compress::No {
            return Ok(None);
        }
        // One that an earlier master left.
        remove(&numbered(path, 1, UNFINISHED))?;
        let (part, done) = (numbered(path, 1, UNFINISHED), numbered(path, 1, COMPRESSED));
        // Without a thread it stays as it is.
        let work = move || drop(compress(&newest, &part, &done));
        Ok(std::thread::Builder::new().name("compress".into()).spawn(work).ok())
    }
}

/// The name of a file that was put aside.
fn numbered(path: &Path, number: u32, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{ending}"));
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    unless_absent(std::fs::remove_file(path))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    unless_absent(std::fs::rename(from, to))
}

fn unless_absent(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Compresses a file. It disappears when the compressed one is there, whole.
fn compress(from: &Path, part: &Path, to: &Path) -> io::Result<()> {
    let result = (|| {
        let mut source = File::open(from)?;
        let target = File::options().write(true).create(true).truncate(true).mode(super::file::MODE).open(part)?;
        let mut encoder = GzEncoder::new(target, Compression::default());
        io::copy(&mut source, &mut encoder)?;
        encoder.finish()?.sync_all()?;
        std::fs::rename(part, to)?;
        std::fs::remove_file(from)
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(part);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_SIZE: Rotation = Rotation { max_size: Some(10), max_age: None, keep: 2, compress: Compress::No };

    #[test]
    fn a_size_and_an_age_count_and_an_empty_file_stays() {
        let aged = Rotation { max_size: None, max_age: Some(Duration::from_secs(9)), ..OF_SIZE };
        let (young, old) = (Duration::ZERO, Duration::from_secs(9));
        assert!(OF_SIZE.is_due(10, young) && !OF_SIZE.is_due(9, old));
        assert!(aged.is_due(1, old) && !aged.is_due(1, young) && !aged.is_due(0, old));
        assert!(!Rotation::NEVER.is_due(u64::MAX, Duration::MAX));
    }

    #[test]
    fn the_newest_has_number_one_and_the_oldest_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        for text in ["1", "2", "3"] {
            std::fs::write(&path, text).unwrap();
            assert!(OF_SIZE.put_aside(&path).unwrap().is_none());
        }
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["out.log.1", "out.log.2"]);
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((text("out.log.1").as_str(), text("out.log.2").as_str()), ("3", "2"));
        std::fs::write(&path, "4").unwrap();
        Rotation { keep: 0, ..OF_SIZE }.put_aside(&path).unwrap();
        assert!(!path.exists() && text("out.log.1") == "3");
    }

    #[test]
    fn what_is_compressed_can_be_read_again() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let rotation = Rotation { compress: Compress::Yes, ..OF_SIZE };
        for text in ["first", "second"] {
            std::fs::write(&path, text.repeat(1000)).unwrap();
            rotation.put_aside(&path).unwrap().unwrap().join().unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["out.log.1.gz", "out.log.2.gz"]);
        let mut text = String::new();
        let file = File::open(dir.path().join("out.log.2.gz")).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "first".repeat(1000));
    }
}
