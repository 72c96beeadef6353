//! Parses an answer, however it is cut into pieces. No side effects: bytes in, progress out.

/// The header by which a server may report which worker answers: the slot, a number from 0.
pub const SLOT_HEADER: &str = "Maitred-Slot";
/// The longest head of an answer, and the longest line between chunks, that is accepted.
const HEAD_MAX: usize = 64 * 1024;
/// The most header lines of an answer.
const HEADERS_MAX: usize = 64;

/// How much of an answer has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// The answer is complete.
    Whole,
    /// This is not a valid answer.
    Garbled(Garbled),
}

/// Why it is not a valid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbled {
    /// Not a head of HTTP/1.
    Head,
    /// A length or a chunk that cannot be parsed.
    Body,
    /// More bytes than were announced.
    Surplus,
    /// Other bytes than those that were sent.
    Echo,
}

impl Garbled {
    /// In words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Garbled::Head => "what came is not HTTP/1",
            Garbled::Body => "the body's length cannot be understood",
            Garbled::Surplus => "more came than was announced",
            Garbled::Echo => "what came back is not what was sent",
        }
    }
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The slot of the worker, if the server reports it.
    pub slot: Option<u16>,
    /// Whether the server will close the connection after this answer.
    pub closes: bool,
}

/// The parser of successive answers on one connection.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    head: Head,
    /// The beginning of a head, or of a line between chunks, whose end has not arrived yet.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The head of an HTTP answer.
    #[default]
    Head,
    /// This many bytes of the body are still to come.
    Sized(u64),
    /// Everything until the connection ends is body.
    UntilEnd,
    /// The line with the size of a chunk.
    ChunkSize,
    /// This many bytes of a chunk, its line end included.
    Chunk(u64),
    /// The lines after the last chunk.
    Trailer,
    /// This many bytes of an echo have arrived.
    Echo(usize),
}

impl Reader {
    /// Prepares for an HTTP answer.
    pub fn expect_http(&mut self) {
        self.held.clear();
        (self.state, self.head) = (State::Head, Head::default());
    }

    /// Prepares for an echo.
    pub fn expect_echo(&mut self) {
        self.held.clear();
        (self.state, self.head) = (State::Echo(0), Head::default());
    }

    /// What the head says, once it has arrived.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Takes the next bytes. `sent` is what an echo must match.
    pub fn feed(&mut self, mut bytes: &[u8], sent: &[u8]) -> Progress {
        loop {
            let step = match self.state {
                State::Head => self.feed_head(bytes),
                State::Sized(left) => return self.feed_sized(left, bytes),
                State::UntilEnd => return Progress::More,
                State::ChunkSize | State::Trailer => self.feed_line(bytes),
                State::Chunk(left) => {
                    let took = left.min(bytes.len() as u64);
                    self.state = if took == left { State::ChunkSize } else { State::Chunk(left - took) };
                    Step::Took(took as usize)
                }
                State::Echo(have) => return self.feed_echo(have, bytes, sent),
            };
            match step {
                Step::Took(n) => bytes = &bytes[n..],
                Step::Ended(progress) => return progress,
            }
            // A body of length zero is complete without another byte.
            if bytes.is_empty() && self.state != State::Sized(0) {
                return Progress::More;
            }
        }
    }

    /// The server closed the connection. [`Progress::More`] means that it closed too early.
    #[must_use]
    pub fn end(&self) -> Progress {
        if self.state == State::UntilEnd { Progress::Whole } else { Progress::More }
    }

    fn feed_head(&mut self, bytes: &[u8]) -> Step {
        let before = self.held.len();
        // Nearly always the whole head is in the first piece, and nothing needs to be copied.
        let parsed = if before == 0 {
            parse_head(bytes)
        } else {
            self.held.extend_from_slice(bytes);
            parse_head(&self.held)
        };
        match parsed {
            Ok(Some((used, head, state))) => {
                self.held.clear();
                (self.head, self.state) = (head, state);
                Step::Took(used - before)
            }
            Ok(None) if self.held.len().max(bytes.len()) > HEAD_MAX => Step::Ended(Progress::Garbled(Garbled::Head)),
            Ok(None) => {
                if before == 0 {
                    self.held.extend_from_slice(bytes);
                }
                Step::Ended(Progress::More)
            }
            Err(why) => Step::Ended(Progress::Garbled(why)),
        }
    }

    fn feed_sized(&mut self, left: u64, bytes: &[u8]) -> Progress {
        let came = bytes.len() as u64;
        if came > left {
            return Progress::Garbled(Garbled::Surplus);
        }
        self.state = State::Sized(left - came);
        if came == left { Progress::Whole } else { Progress::More }
    }

    /// One line: the size of a chunk, or a line after the last chunk, where an empty line ends the answer.
    fn feed_line(&mut self, bytes: &[u8]) -> Step {
        let Some(end) = bytes.iter().position(|&b| b == b'\n') else {
            self.held.extend_from_slice(bytes);
            let more = if self.held.len() > HEAD_MAX { Progress::Garbled(Garbled::Body) } else { Progress::More };
            return Step::Ended(more);
        };
        self.held.extend_from_slice(&bytes[..=end]);
        let rest = bytes.len() - end - 1;
        let line = std::mem::take(&mut self.held);
        let step = match self.state {
            State::Trailer if line == b"\r\n" && rest > 0 => Step::Ended(Progress::Garbled(Garbled::Surplus)),
            State::Trailer if line == b"\r\n" => Step::Ended(Progress::Whole),
            State::Trailer => Step::Took(end + 1),
            _ => match httparse::parse_chunk_size(&line) {
                Ok(httparse::Status::Complete((_, 0))) => {
                    self.state = State::Trailer;
                    Step::Took(end + 1)
                }
                Ok(httparse::Status::Complete((_, size))) if size < u64::MAX - 2 => {
                    self.state = State::Chunk(size + 2);
                    Step::Took(end + 1)
                }
                _ => Step::Ended(Progress::Garbled(Garbled::Body)),
            },
        };
        // Its buffer is reused for the next line.
        self.held = line;
        self.held.clear();
        step
    }

    fn feed_echo(&mut self, have: usize, bytes: &[u8], sent: &[u8]) -> Progress {
        if sent.get(have..have + bytes.len()) != Some(bytes) {
            return Progress::Garbled(Garbled::Echo);
        }
        self.state = State::Echo(have + bytes.len());
        if have + bytes.len() == sent.len() { Progress::Whole } else { Progress::More }
    }
}

enum Step {
    Took(usize),
    Ended(Progress),
}

/// The head at the beginning of `bytes`: its length, its content, and what follows it.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, Head, State)>, Garbled> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Garbled::Head),
    };
    let status = response.code.ok_or(Garbled::Head)?;
    let mut head = Head { status, slot: None, closes: response.version == Some(0) };
    let mut state = State::UntilEnd;
    for header in response.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(value).map_err(|_| Garbled::Body)?;
            // Chunks take precedence over a length (RFC 9112, 6.3).
            if state == State::UntilEnd {
                // `parse` would accept a sign.
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                state = State::Sized(text.parse().ok().filter(|_| digits).ok_or(Garbled::Body)?);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case(b"chunked") {
            state = State::ChunkSize;
        } else if header.name.eq_ignore_ascii_case("connection") {
            let says =
                |word: &[u8]| value.split(|&b| b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(word));
            head.closes = says(b"close") || head.closes && !says(b"keep-alive");
        } else if header.name.eq_ignore_ascii_case(SLOT_HEADER) {
            head.slot = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        }
    }
    match status {
        // Only an interim answer: the final answer follows.
        100..=199 => state = State::Head,
        204 | 304 => state = State::Sized(0),
        _ => {}
    }
    head.closes |= state == State::UntilEnd;
    Ok(Some((used, head, state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the text in one piece, and byte by byte: both must give the same result.
    fn check(text: &str, expected: Progress) -> Head {
        let mut whole = Reader::default();
        whole.expect_http();
        assert_eq!(whole.feed(text.as_bytes(), b""), expected, "{text:?}");
        let mut pieces = Reader::default();
        pieces.expect_http();
        let mut progress = Progress::More;
        for byte in text.as_bytes().chunks(1) {
            if let Progress::Garbled(_) = progress {
                break;
            }
            let came_early = progress == Progress::Whole;
            progress = pieces.feed(byte, b"");
            assert!(!came_early || progress == Progress::Garbled(Garbled::Surplus), "{text:?}");
        }
        assert_eq!(progress, expected, "{text:?}, byte by byte");
        assert_eq!(pieces.head(), whole.head());
        whole.head()
    }

    #[test]
    fn answers_with_a_length() {
        let head = check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nmaitred-slot: 3\r\n\r\nhi", Progress::Whole);
        assert_eq!(head, Head { status: 200, slot: Some(3), closes: false });
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", Progress::More);
        check("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", Progress::Whole);
        check("HTTP/1.1 204 No\r\n\r\n", Progress::Whole);
        let head = check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: TE, Close\r\n\r\n", Progress::Whole);
        assert!(head.closes);
        let head = check("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", Progress::Whole);
        assert!(!head.closes);
        check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", Progress::Whole);
    }

    #[test]
    fn answers_in_chunks() {
        let start = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{start}2;ext=1\r\nhi\r\nA\r\n0123456789\r\n0\r\n\r\n"), Progress::Whole);
        check(&format!("{start}2\r\nhi\r\n0\r\nSum: 1\r\n\r\n"), Progress::Whole);
        check(&format!("{start}2\r\nhi\r\n0\r\n"), Progress::More);
        check(&format!("{start}zz\r\n"), Progress::Garbled(Garbled::Body));
    }

    #[test]
    fn answers_that_end_with_the_connection() {
        let head = check("HTTP/1.0 200 OK\r\n\r\nwhatever", Progress::More);
        assert!(head.closes);
        let mut reader = Reader::default();
        reader.expect_http();
        assert_eq!(reader.end(), Progress::More);
        reader.feed(b"HTTP/1.0 200 OK\r\n\r\nwhat", b"");
        assert_eq!(reader.end(), Progress::Whole);
    }

    #[test]
    fn what_is_no_answer() {
        check("SSH-2.0-OpenSSH_9.2\r\n", Progress::Garbled(Garbled::Head));
        check("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n", Progress::Garbled(Garbled::Body));
        check("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n", Progress::Garbled(Garbled::Body));
        let mut reader = Reader::default();
        reader.expect_http();
        let surplus = reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhi", b"");
        assert_eq!(surplus, Progress::Garbled(Garbled::Surplus));
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * HEAD_MAX));
        let mut reader = Reader::default();
        reader.expect_http();
        assert_eq!(reader.feed(endless.as_bytes(), b""), Progress::Garbled(Garbled::Head));
    }

    #[test]
    fn an_echo_is_what_was_sent() {
        let mut reader = Reader::default();
        reader.expect_echo();
        assert_eq!(reader.feed(b"he", b"hello"), Progress::More);
        assert_eq!(reader.feed(b"llo", b"hello"), Progress::Whole);
        reader.expect_echo();
        assert_eq!(reader.feed(b"help!", b"hello"), Progress::Garbled(Garbled::Echo));
        reader.expect_echo();
        assert_eq!(reader.feed(b"hello!", b"hello"), Progress::Garbled(Garbled::Echo));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fail(pieces in proptest::collection::vec(proptest::collection::vec(0u8..=255, 0..40), 0..8)) {
            let mut reader = Reader::default();
            reader.expect_http();
            reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"");
            for piece in pieces {
                reader.feed(&piece, b"");
            }
        }
    }
}
