//! Work that takes too long for the master's loop, such as reading `/proc`, is done aside, by threads that exist from
//! the start. A thread that is made at the moment of need may not be available when the user's processes are at their
//! limit, and that is when an operator asks for `status`.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Threads that do the work; two, so that a long look does not hold up a short one.
const THREADS: usize = 2;
/// Jobs that may be under way or wait.
pub const JOBS_MAX: usize = 64;
/// The stack of a thread: the deepest jobs read `/proc` and the kernel's tables of sockets.
const STACK: usize = 512 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the threads, which end when the last one is gone.
#[derive(Clone, Debug)]
pub struct Aside {
    jobs: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
}

/// As many jobs as allowed are under way or wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{JOBS_MAX} questions of this kind wait already; ask again in a moment")]
pub struct Busy;

/// A job broke off, because of an error in this program that the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an internal error; the log has it")]
pub struct BrokeOff;

/// A job that has its place.
#[derive(Debug)]
pub struct Place {
    jobs: mpsc::Sender<Job>,
    permit: OwnedSemaphorePermit,
}

impl Aside {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start() -> io::Result<Aside> {
        let (jobs, incoming) = mpsc::channel::<Job>();
        let incoming = Arc::new(Mutex::new(incoming));
        for _ in 0..THREADS {
            let incoming = Arc::clone(&incoming);
            let work = move || work(&incoming);
            std::thread::Builder::new().name("aside".into()).stack_size(STACK).spawn(work)?;
        }
        Ok(Aside { jobs, places: Arc::new(Semaphore::new(JOBS_MAX)) })
    }

    /// A place for a job, if there is one now.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn place(&self) -> Result<Place, Busy> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        Ok(Place { jobs: self.jobs.clone(), permit })
    }

    /// Does a job as soon as there is a place for it.
    ///
    /// # Errors
    /// [`BrokeOff`].
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokeOff> {
        let permit = Arc::clone(&self.places).acquire_owned().await.map_err(|_| BrokeOff)?;
        Place { jobs: self.jobs.clone(), permit }.run(job).await
    }
}

impl Place {
    /// Does a job.
    ///
    /// # Errors
    /// [`BrokeOff`].
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokeOff> {
        let (answer, answered) = oneshot::channel();
        let Place { jobs, permit } = self;
        let job = move || {
            let done = contained(job);
            // The place is free before the answer is known, so that a caller that asks again at once finds it.
            drop(permit);
            if let Some(done) = done {
                // The caller may be gone.
                let _ = answer.send(done);
            }
        };
        jobs.send(Box::new(job)).map_err(|_| BrokeOff)?;
        answered.await.map_err(|_| BrokeOff)
    }
}

/// What each thread does.
fn work(incoming: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // The thread that waits for a job holds the lock, and the other waits for the lock.
        let next = incoming.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(mpsc::RecvError) => return,
        }
    }
}

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic in this thread breaks off one job and nothing else.
#[must_use]
pub fn is_contained() -> bool {
    CONTAINED.get()
}

/// A job gets nothing but what it owns, so nothing that other code sees is left half done.
fn contained<T>(job: impl FnOnce() -> T) -> Option<T> {
    CONTAINED.set(true);
    let done = catch_unwind(AssertUnwindSafe(job));
    CONTAINED.set(false);
    done.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_job_that_panics_breaks_off_alone() {
        let aside = Aside::start().unwrap();
        let broken = block_on(aside.run(|| -> u32 { std::panic::resume_unwind(Box::new("broken")) }));
        assert_eq!(broken, Err(BrokeOff));
        for n in 0..JOBS_MAX * 2 {
            assert_eq!(block_on(aside.run(move || n)), Ok(n));
        }
    }

    #[test]
    fn more_jobs_than_may_wait_are_told_so() {
        let aside = Aside::start().unwrap();
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        block_on(async {
            let mut waiting = Vec::new();
            for _ in 0..JOBS_MAX {
                let (place, gate) = (aside.place().unwrap(), Arc::clone(&gate));
                let mut job = Box::pin(place.run(move || drop(gate.lock())));
                // Polling once is enough to send it.
                tokio::select! { biased; _ = &mut job => unreachable!("the gate is closed"), () = async {} => {} }
                waiting.push(job);
            }
            assert!(matches!(aside.place(), Err(Busy)));
            drop(closed);
            for job in waiting {
                assert_eq!(job.await, Ok(()));
            }
            assert!(aside.place().is_ok());
        });
    }
}
