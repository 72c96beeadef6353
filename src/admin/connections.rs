//! The clients' connections: how many there may be, and how long one may take to ask and to read.

use super::access::Reach;
use super::answers::{Admin, router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::Socket;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Sleep, sleep};
use tracing::warn;

/// Clients at once. One more takes the place of the one that has asked nothing for the longest.
pub const CLIENTS_MAX: usize = 256;
/// How long a client may take to send a request, and may stay without one.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may read nothing while there is something for it.
const READS_WITHIN: Duration = Duration::from_secs(10);
/// The line and the headers of a request.
const HEAD_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a failed `accept`, such as without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that clients connect to.
#[derive(Debug)]
pub struct Place {
    /// As it is shown.
    pub address: String,
    /// The socket.
    pub socket: Socket,
    /// Who can reach it.
    pub reach: Reach,
    /// Its file.
    pub path: Option<PathBuf>,
}

impl Place {
    /// The same with another descriptor of its socket.
    ///
    /// # Errors
    /// When no descriptor is free.
    pub fn copy(&self) -> io::Result<Place> {
        let (address, socket) = (self.address.clone(), self.socket.try_clone()?);
        Ok(Place { address, socket, reach: self.reach, path: self.path.clone() })
    }
}

/// Removes a socket's file at the end.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

impl Listening {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Listening::Tcp(listener) => Box::new(listener.accept().await?.0),
            Listening::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Accepts at all places, until one of them is lost.
///
/// # Errors
/// When the reactor cannot watch a socket.
pub async fn serve(places: Vec<Place>, admin: Arc<Admin>) -> io::Result<()> {
    let (accepted, mut connections) = mpsc::channel(1);
    let mut files = Vec::new();
    for place in places {
        let listening = match &place.path {
            None => Listening::Tcp(TcpListener::from_std(OwnedFd::from(place.socket).into())?),
            Some(path) => {
                files.push(File(path.clone()));
                Listening::Unix(UnixListener::from_std(OwnedFd::from(place.socket).into())?)
            }
        };
        let (accepted, reach, address) = (accepted.clone(), place.reach, place.address);
        tokio::spawn(async move {
            let mut failed: u64 = 0;
            loop {
                match listening.accept().await {
                    Ok(stream) => {
                        if accepted.send((stream, reach)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        failed += 1;
                        if failed.is_power_of_two() {
                            warn!(%address, %error, failed, "cannot accept on an admin address");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }
    drop(accepted);
    let mut clients = Clients::default();
    while let Some((stream, reach)) = connections.recv().await {
        clients.make_room(&admin);
        let busy = Arc::new(AtomicBool::new(false));
        let client = tokio::spawn(converse(stream, Arc::clone(&admin), reach, Arc::clone(&busy)));
        clients.0.push_back(Client { task: client.abort_handle(), busy });
    }
    Ok(())
}

/// The clients, the oldest first.
#[derive(Default)]
struct Clients(VecDeque<Client>);

struct Client {
    task: AbortHandle,
    /// Whether it waits for an answer, or reads one.
    busy: Arc<AtomicBool>,
}

impl Clients {
    /// If there are too many, sends away the oldest that waits for nothing, or the oldest of all.
    fn make_room(&mut self, admin: &Admin) {
        if self.0.len() < CLIENTS_MAX {
            return;
        }
        self.0.retain(|client| !client.task.is_finished());
        if self.0.len() < CLIENTS_MAX {
            return;
        }
        let idle = self.0.iter().position(|client| !client.busy.load(Ordering::Relaxed)).unwrap_or(0);
        if let Some(client) = self.0.remove(idle) {
            client.task.abort();
            admin.dismissed();
        }
    }
}

async fn converse(stream: Box<dyn Stream>, admin: Arc<Admin>, reach: Reach, busy: Arc<AtomicBool>) {
    let service = TowerToHyperService::new(router(admin, reach, busy));
    let stream = TokioIo::new(Patient { stream, stuck: Mutex::new(None) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .max_header_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(4 * HEAD_MAX)
        .serve_connection(stream, service);
    // What a client does wrong is its own affair.
    let _ = served.await;
}

/// A stream that fails when the other side reads nothing for too long.
struct Patient {
    stream: Box<dyn Stream>,
    /// Since it takes no more.
    stuck: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Patient {
    fn judge<T>(&self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        if written.is_ready() {
            *stuck = None;
            return written;
        }
        match stuck.get_or_insert_with(|| Box::pin(sleep(READS_WITHIN))).as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
