//! Closing a listener whose connections the kernel gives to the workers.

use super::Event;
use super::listener::Listener;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// How often the master looks at an accept queue that gets nothing new: the kernel does not report when it is empty.
const LOOK_AT_QUEUE: Duration = Duration::from_millis(5);

/// What happens to the sockets of a listener when nothing waits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// They stay: new connections are refused already.
    Stay,
    /// They are shut down: nothing else refuses new connections.
    ShutDown,
}

/// Reports a listener as closed once the workers have taken what waits. If new connections are refused already, the
/// sockets stay: a worker that still has one would otherwise wake again and again for nothing.
pub async fn close_when_empty(listener: Rc<Listener>, after: Afterwards) {
    while listener.queued() > 0 {
        sleep(LOOK_AT_QUEUE).await;
    }
    if after == Afterwards::ShutDown {
        listener.close();
    }
    let _ = listener.common.reports.send(Event::ListenerClosed).await;
}
