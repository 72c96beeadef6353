//! Closing a listener whose connections the kernel gives to the workers.

use super::Event;
use super::listener::Listener;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// How often an accept queue is looked at that gets nothing new: the kernel tells nobody when it is
/// empty.
const LOOK_AT_QUEUE: Duration = Duration::from_millis(5);

/// What becomes of the sockets of a listener when nothing waits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// New connections are refused already.
    Stay,
    /// Nothing else refuses new connections.
    ShutDown,
}

/// Reports a listener as closed once the workers have taken what waits. If it refuses new connections
/// the sockets stay: a worker that still has one would be woken by nothing, again and again.
pub async fn close_when_empty(listener: Rc<Listener>, after: Afterwards) {
    while listener.queued() > 0 {
        sleep(LOOK_AT_QUEUE).await;
    }
    if after == Afterwards::ShutDown {
        listener.close();
    }
    let _ = listener.common.reports.send(Event::ListenerClosed).await;
}
