//! Handles what a server sent.

use super::connection::Phase;
use super::*;

impl Engine<'_> {
    pub(super) fn read(&mut self, key: usize) -> io::Result<()> {
        let connection = &mut self.connections[key];
        let Some(socket) = &connection.socket else { return Ok(()) };
        let came = match (&mut &*socket).read(&mut self.buffer) {
            Ok(n) => n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => {
                let ending = ending_of(&error);
                self.close(key, ending);
                return Ok(());
            }
        };
        let progress = match (connection.phase, came) {
            (Phase::Asked(_), 0) => match connection.reader.end() {
                Progress::More => {
                    self.close(key, Ending::Closed);
                    return Ok(());
                }
                progress => progress,
            },
            // No request is open: only the end may come.
            (Phase::Free | Phase::Pausing(_), 0) => {
                self.close(key, Ending::NotKept);
                return Ok(());
            }
            (Phase::Free | Phase::Pausing(_), _) => Progress::Garbled(Garbled::Surplus),
            (Phase::Asked(_), came) => connection.reader.feed(&self.buffer[..came], &self.questions[0][0]),
        };
        match progress {
            Progress::More => Ok(()),
            Progress::Garbled(why) => {
                self.close(key, Ending::Garbled(why));
                Ok(())
            }
            Progress::Whole => self.answered(key),
        }
    }

    /// An exchange is complete.
    pub(super) fn answered(&mut self, key: usize) -> io::Result<()> {
        let now = Instant::now();
        let connection = &mut self.connections[key];
        let head = connection.reader.head();
        // The time of an error does not count: turning a connection away is fast.
        if let Some(since) = connection.since.take().filter(|_| head.status < 400) {
            self.tally.answer((now - since).as_micros() as u64);
        }
        if let Some(slot) = head.slot {
            match connection.slot {
                None => {
                    connection.slot = Some(slot);
                    self.tally.served_by(slot);
                    self.board.enter(slot);
                    if self.load.sources.is_some() {
                        self.tally.came_from(connection.source, slot);
                    }
                }
                Some(first) => connection.mixed |= first != slot,
            }
        }
        if head.status >= 400 {
            let ending = if head.status == 503 { Ending::Unavailable } else { Ending::Status(head.status) };
            self.close(key, ending);
        } else if connection.left == 0 {
            self.close(key, Ending::Answered);
        } else if head.closes {
            self.close(key, Ending::NotKept);
        } else {
            connection.left -= 1;
            self.pause_or_ask(key, now)?;
        }
        Ok(())
    }

    pub(super) fn pause_or_ask(&mut self, key: usize, now: Instant) -> io::Result<()> {
        if let Some(mean) = self.load.pause {
            let times: f64 = Exp1.sample(&mut self.random);
            self.serial += 1;
            self.pausing.push(Reverse((now + mean.mul_f64(times.min(PAUSE_TIMES_MAX)), key, self.serial)));
            self.connections[key].phase = Phase::Pausing(self.serial);
            return Ok(());
        }
        self.ask_again(key, now)
    }

    pub(super) fn ask_again(&mut self, key: usize, now: Instant) -> io::Result<()> {
        self.ask(key, now, now);
        if self.connections[key].watches_room { self.watch(key) } else { Ok(()) }
    }
}
