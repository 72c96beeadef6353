//! The output of a subject.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Lines of standard error that are kept for a message.
const LAST_LINES: usize = 20;

/// What a subject writes to standard error, read by a thread so that the subject never waits for the lab.
pub(super) struct Output {
    /// One message for each worker that became ready; closed at the end of the output.
    pub(super) ready: Receiver<()>,
    pub(super) kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) lines: VecDeque<String>,
    pub(super) bytes: u64,
}

impl Output {
    pub(super) fn read(pipe: OwnedFd) -> io::Result<Output> {
        let (send, ready) = channel();
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let shared = Arc::clone(&kept);
        let thread = std::thread::Builder::new().name("bench-output".to_owned());
        thread.spawn(move || keep_lines(pipe, &send, &shared))?;
        Ok(Output { ready, kept })
    }
}

fn keep_lines(pipe: OwnedFd, ready: &Sender<()>, kept: &Mutex<Kept>) {
    for line in BufReader::new(File::from(pipe)).split(b'\n').map_while(Result::ok) {
        let Ok(mut kept) = kept.lock() else { return };
        kept.bytes += line.len() as u64 + 1;
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        let logged = serde_json::from_str::<serde_json::Value>(&line).ok();
        match logged.as_ref().and_then(|entry| Some((entry.get("level")?.as_str()?, entry.get("message")?.as_str()?))) {
            Some((_, "worker ready")) => {
                // The messages are no longer counted once the measurement has begun.
                let _ = ready.send(());
            }
            // Skips log lines: a message needs only the end of the output and the workers' own words.
            Some(_) => {}
            None if line.is_empty() => {}
            None => {
                if kept.lines.len() == LAST_LINES {
                    kept.lines.pop_front();
                }
                kept.lines.push_back(line);
            }
        }
    }
}
