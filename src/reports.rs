//! How a part reports upward: it says what happened with events of its own, and the code that joins the parts wraps
//! them into its own. So no part needs to know what is above it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;

/// No receiver takes reports any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), Gone>> + Send + 'a>>;

trait Sink<R>: Send + Sync {
    fn send(&self, report: R) -> Sending<'_>;
    fn send_blocking(&self, report: R) -> Result<(), Gone>;
}

struct Wrapped<R, E> {
    events: mpsc::Sender<E>,
    wrap: fn(R) -> E,
}

impl<R, E: Send> Sink<R> for Wrapped<R, E> {
    fn send(&self, report: R) -> Sending<'_> {
        let event = (self.wrap)(report);
        Box::pin(async { self.events.send(event).await.map_err(|_| Gone) })
    }

    fn send_blocking(&self, report: R) -> Result<(), Gone> {
        self.events.blocking_send((self.wrap)(report)).map_err(|_| Gone)
    }
}

/// Where reports go. What waits there is limited by the channel behind it.
pub struct Reports<R>(Arc<dyn Sink<R>>);

impl<R: 'static> Reports<R> {
    /// Reports that become events of a channel.
    #[must_use]
    pub fn wrapped<E: Send + 'static>(events: &mpsc::Sender<E>, wrap: fn(R) -> E) -> Reports<R> {
        Reports(Arc::new(Wrapped { events: events.clone(), wrap }))
    }

    /// Sends a report, and waits for room if there is none.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send(&self, report: R) -> Result<(), Gone> {
        self.0.send(report).await
    }

    /// The same from another thread, which may wait.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn send_blocking(&self, report: R) -> Result<(), Gone> {
        self.0.send_blocking(report)
    }
}

impl<R> Clone for Reports<R> {
    fn clone(&self) -> Reports<R> {
        Reports(Arc::clone(&self.0))
    }
}

impl<R> fmt::Debug for Reports<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Above {
        Room(u32),
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_report_arrives_wrapped_until_nobody_takes_it() {
        let (sender, mut events) = mpsc::channel(1);
        let reports: Reports<u32> = Reports::wrapped(&sender, Above::Room);
        assert_eq!(reports.clone().send(7).await, Ok(()));
        assert_eq!(events.recv().await, Some(Above::Room(7)));
        drop(events);
        assert_eq!(reports.send(8).await, Err(Gone));
    }
}
