//! Where lines go: to the standard output or error of this process, or to a file.
//!
//! All of this blocks, so it belongs to threads of its own. The loop only asks for a file to be opened again.

mod file;
pub mod kept;
pub mod rotation;

pub use file::{FileError, LogFile};

use crate::sys::outlet;
use kept::Kept;
use rotation::Rotation;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A stream of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// What the workers write to standard output.
    Out,
    /// What the workers write to standard error.
    Err,
    /// The log of the master.
    Master,
}

impl Log {
    /// All of them.
    pub const ALL: [Log; 3] = [Log::Out, Log::Err, Log::Master];

    /// Its name: `out`, `err` or `master`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Log::Out => "out",
            Log::Err => "err",
            Log::Master => "master",
        }
    }
}

/// Where one stream of lines goes. Clones are the same.
#[derive(Clone, Debug)]
pub struct Sink {
    stream: Log,
    outlet: Arc<Outlet>,
    /// Lines that could not be written.
    lost: Arc<AtomicU64>,
    kept: Kept,
}

/// A destination, which several streams can share.
#[derive(Debug)]
struct Outlet {
    to: To,
    /// Whether the file should be opened again before the next line.
    reopen: AtomicBool,
}

#[derive(Debug)]
enum To {
    Output,
    Error,
    File(Mutex<LogFile>),
}

impl Sink {
    /// A stream that goes to a file if there is a path, else to a stream of this process.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(stream: Log, path: Option<&Path>, rotation: Rotation, kept: &Kept) -> Result<Sink, FileError> {
        let to = match (path, stream) {
            (Some(path), _) => To::File(Mutex::new(LogFile::open(path, rotation)?)),
            (None, Log::Out) => To::Output,
            (None, Log::Err | Log::Master) => To::Error,
        };
        let outlet = Arc::new(Outlet { to, reopen: AtomicBool::new(false) });
        Ok(Sink { stream, outlet, lost: Arc::default(), kept: kept.clone() })
    }

    /// Another stream that goes to the same place.
    #[must_use]
    pub fn shared_with(&self, stream: Log) -> Sink {
        Sink { stream, outlet: Arc::clone(&self.outlet), lost: Arc::default(), kept: self.kept.clone() }
    }

    /// The last lines of all streams.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Keeps a line in memory.
    pub fn keep(&self, slot: Option<u32>, line: &[u8]) {
        self.kept.add(self.stream, slot, line);
    }

    /// Whether it is a file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.outlet.to, To::File(_))
    }

    /// Opens the file again before the next line, as `logrotate(8)` expects of `USR1`. Never blocks.
    pub fn reopen(&self) {
        self.outlet.reopen.store(true, Ordering::Relaxed);
    }

    /// Lines that could not be written so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes whole lines. What cannot be written is lost and counted: the next lines may succeed.
    ///
    /// # Errors
    /// That of `write(2)`.
    pub fn write(&self, lines: &[u8]) -> io::Result<()> {
        let written = match &self.outlet.to {
            To::Output => outlet::write_all(io::stdout().lock().as_fd(), lines),
            To::Error => outlet::write_all(io::stderr().lock().as_fd(), lines),
            To::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                if self.outlet.reopen.swap(false, Ordering::Relaxed) {
                    file.reopen();
                }
                file.write(lines)
            }
        };
        if written.is_err() {
            let lines = lines.iter().filter(|byte| **byte == b'\n').count();
            self.lost.fetch_add(lines as u64, Ordering::Relaxed);
        }
        written
    }
}
