//! A worker with the Rust library, without any framework: `listener blocking|tokio [ADDR]`.

use maitred::worker::{AsyncListener, Listener, slot};
use std::io::{Read, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_default();
    let address = args.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let address = address.parse().map_err(std::io::Error::other)?;
    let body = format!("slot {:?}, process {}\n", slot(), std::process::id());
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    match kind.as_str() {
        "tokio" => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let listener = AsyncListener::bind(address).await?;
            loop {
                let (mut stream, _) = listener.accept().await?;
                // A client that went away is no reason to end.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }),
        _ => {
            let listener = Listener::bind(address)?;
            loop {
                let (mut stream, _) = listener.accept()?;
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    }
}
