//! The options of `run` that say where lines go.

use crate::config::life::{LifeError, duration, size};
use crate::logs::Log;
use crate::logs::kept::Kept;
use crate::logs::rotation::{Compress, Rotation};
use crate::logs::{FileError, Sink};
use crate::master::program::Logs;
use clap::Args;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// A size, or none.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<u64>);

fn limit(text: &str) -> Result<Limit, LifeError> {
    if text == "0" { Ok(Limit(None)) } else { size(text).map(|size| Limit(Some(size))) }
}

/// What may be kept of each stream at most: it is held in memory, and sent in one answer.
const BUFFER_MAX: u64 = 8 << 20;

fn buffer(text: &str) -> Result<Limit, String> {
    match limit(text).map_err(|error| error.to_string())? {
        Limit(Some(size)) if size > BUFFER_MAX => Err("it is at most 8M; files hold more".to_owned()),
        size => Ok(size),
    }
}

#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// Write the log to this file, not to standard error
    ///
    /// Lines are appended. USR1 opens the files of this and the next two options again, and a file that was renamed or
    /// removed is made anew.
    #[arg(long, value_name = "PATH")]
    log_file: Option<PathBuf>,

    /// Write the workers' standard output to this file
    #[arg(long, value_name = "PATH")]
    out_file: Option<PathBuf>,

    /// Write the workers' error output to this file
    #[arg(long, value_name = "PATH")]
    err_file: Option<PathBuf>,

    /// Write all three to one file: that of --log-file, in the background all.log
    #[arg(long)]
    pub merge_logs: bool,

    /// Put a file of these aside when it has grown to this size (512K, 10M); 0 leaves that to others
    #[arg(long, value_name = "SIZE", default_value = "10M", value_parser = limit)]
    log_max_size: Limit,

    /// Put a file of these aside when it is this old, too
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    log_max_age: Option<Duration>,

    /// How many of those are kept: PATH.1 is the newest
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
    log_keep: u32,

    /// Compress those: PATH.1.gz
    #[arg(long)]
    log_compress: bool,

    /// Keep up to this much of the last lines of each stream in memory, for `maitred logs`; with 0, workers write to our
    /// standard output themselves
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = buffer)]
    log_buffer: Limit,

    /// Become a session of its own
    #[arg(long, hide = true)]
    pub background: bool,

    /// Take this descriptor's text for the file's, until a reload reads it again
    #[arg(long, value_name = "FD", hide = true)]
    pub text_fd: Option<RawFd>,

    /// Write a line to this descriptor when the first generation serves
    #[arg(long, value_name = "FD", hide = true)]
    pub ready_fd: Option<RawFd>,
}

impl FileArgs {
    /// The file that was given for a log.
    pub fn given(&self, log: Log) -> Option<PathBuf> {
        match log {
            _ if self.merge_logs => self.log_file.clone(),
            Log::Out => self.out_file.clone(),
            Log::Err => self.err_file.clone(),
            Log::Master => self.log_file.clone(),
        }
    }

    /// Opens the files.
    ///
    /// # Errors
    /// [`FileError`] for the first that cannot be opened.
    pub fn open(&self) -> Result<Logs, FileError> {
        let rotation = Rotation {
            max_size: self.log_max_size.0,
            max_age: self.log_max_age,
            keep: self.log_keep,
            compress: if self.log_compress { Compress::Yes } else { Compress::No },
        };
        let kept = Kept::new(self.log_buffer.0.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX)));
        let [out, err, master] = Log::ALL.map(|log| self.given(log));
        let open = |log: Log, path: &Option<PathBuf>| Sink::open(log, path.as_deref(), rotation, &kept);
        // Two that are one file are opened once, so that it is put aside once.
        let is_same = |one: &Option<PathBuf>, other: &Option<PathBuf>| one.is_some() && one == other;
        let to_out = open(Log::Out, &out)?;
        let to_err = if is_same(&err, &out) { to_out.shared_with(Log::Err) } else { open(Log::Err, &err)? };
        let log = match &master {
            same if is_same(same, &out) => to_out.shared_with(Log::Master),
            same if is_same(same, &err) => to_err.shared_with(Log::Master),
            other => open(Log::Master, other)?,
        };
        let (out, err) = (to_out, to_err);
        Ok(Logs { out, err, log })
    }
}
