//! A worker that uses all of the library: `whole threads|tokio PATH`.
//!
//! It serves a port of the kernel's choice and the Unix socket PATH, says when it is ready and how it is, sends
//! requests for `/back` in slot 0 to another worker, keeps a connection open that asks for `/stay`, and ends as soon as it
//! is asked to.

use maitred::worker::{self, AsyncListener, AsyncUnixListener, Listener, UnixListener, slot};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_default();
    let path = args.next().unwrap_or_else(|| "whole.sock".to_owned());
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    match kind.as_str() {
        "tokio" => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(by_tokio(address, path))
        }
        _ => by_threads(address, &path),
    }
}

/// The answer to a request, or nothing when it should go to another worker.
fn answer(request: &[u8]) -> Option<String> {
    if request.starts_with(b"GET /back ") && slot() == Some(0) {
        return None;
    }
    let body = format!("slot {:?}, process {}\n", slot(), std::process::id());
    Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// Whether the client may ask again.
fn stays(request: &[u8]) -> bool {
    request.starts_with(b"GET /stay ")
}

fn begin() -> io::Result<()> {
    worker::status("serving")?;
    worker::ready()
}

fn by_threads(address: SocketAddr, path: &str) -> io::Result<()> {
    let (tcp, unix) = (Listener::bind(address)?, UnixListener::bind(path)?);
    std::thread::spawn(move || {
        while let Ok(stream) = unix.accept() {
            std::thread::spawn(move || converse(stream));
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            // Not yet read: whoever gets it reads it from its beginning.
            let mut request = [0; 4096];
            let peeked = stream.peek(&mut request).unwrap_or(0);
            if answer(&request[..peeked]).is_none() {
                let _ = tcp.give_back(stream);
                continue;
            }
            std::thread::spawn(move || converse(&mut stream));
        }
    });
    begin()?;
    worker::stop_requested().wait();
    worker::leaving()
}

fn converse(mut stream: impl Read + Write) {
    let mut request = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut request) {
        let text = answer(&request[..read]).unwrap_or_default();
        if stream.write_all(text.as_bytes()).is_err() || !stays(&request[..read]) {
            return;
        }
    }
}

async fn by_tokio(address: SocketAddr, path: String) -> io::Result<()> {
    let (tcp, unix) = (AsyncListener::bind(address).await?, AsyncUnixListener::bind(path)?);
    begin()?;
    loop {
        tokio::select! {
            accepted = tcp.accept() => {
                let (stream, _) = accepted?;
                let mut request = [0; 4096];
                let peeked = stream.peek(&mut request).await.unwrap_or(0);
                match answer(&request[..peeked]) {
                    Some(_) => drop(tokio::spawn(converse_async(stream))),
                    None => tcp.give_back(stream)?,
                }
            }
            accepted = unix.accept() => drop(tokio::spawn(converse_async(accepted?))),
            () = worker::stop_requested() => return worker::leaving(),
        }
    }
}

async fn converse_async(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut request = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut request).await {
        let text = answer(&request[..read]).unwrap_or_default();
        if stream.write_all(text.as_bytes()).await.is_err() || !stays(&request[..read]) {
            return;
        }
    }
}
