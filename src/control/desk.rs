//! The clients at the control socket: those that have not said yet what they want, the oldest first, and those that
//! wait for an answer. Both are bounded, so that the next client is heard, whatever the others do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::sync::{Notify, oneshot};
use tracing::warn;

/// Clients that have said nothing yet. When one more comes, the oldest is dismissed.
pub const SILENT_MAX: usize = 32;
/// Clients that wait for an answer or read it. One more is told to come later.
pub const ANSWERED_MAX: usize = 128;

/// The same of other users, who may only ask for the status: they are to keep nobody from an answer.
const OTHERS_MAX: usize = 8;

/// All clients that are connected.
#[derive(Debug, Default)]
pub struct Desk {
    silent: RefCell<VecDeque<(u64, oneshot::Sender<()>)>>,
    next: Cell<u64>,
    present: Cell<usize>,
    answered: Cell<usize>,
    others: Cell<usize>,
    left: Notify,
    /// How many were dismissed so far.
    dismissed: Cell<u64>,
}

/// A client's place, given up when dropped.
#[derive(Debug)]
pub struct Place {
    desk: Rc<Desk>,
    number: u64,
}

/// The place of a client that gets an answer, given up when dropped.
#[derive(Debug)]
pub struct Turn {
    desk: Rc<Desk>,
    whose: Whose,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Owner,
    Other,
}

impl Desk {
    /// Whether any client is connected.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.present.get() > 0
    }

    /// Waits until no client is connected.
    pub async fn empties(&self) {
        while self.is_busy() {
            self.left.notified().await;
        }
    }

    /// Adds a client. If there are too many, dismisses the one that has said nothing for the longest. The receiver
    /// beside the place reports when the new client is dismissed itself.
    pub fn enter(self: &Rc<Self>) -> (Place, oneshot::Receiver<()>) {
        let (dismiss, dismissed) = oneshot::channel();
        let number = self.next.replace(self.next.get() + 1);
        let mut silent = self.silent.borrow_mut();
        if silent.len() >= SILENT_MAX
            && let Some((_, oldest)) = silent.pop_front()
        {
            let _ = oldest.send(());
            let dismissed = self.dismissed.replace(self.dismissed.get() + 1) + 1;
            if dismissed.is_power_of_two() {
                warn!(dismissed, "more than {SILENT_MAX} control clients say nothing; the oldest is dismissed");
            }
        }
        silent.push_back((number, dismiss));
        self.present.set(self.present.get() + 1);
        (Place { desk: Rc::clone(self), number }, dismissed)
    }

    /// A client has said what it wants and waits now. `None` when too many wait.
    pub fn answer(self: &Rc<Self>) -> Option<Turn> {
        self.turn(Whose::Owner, ANSWERED_MAX)
    }

    /// The same for a client of another user.
    pub fn answer_other(self: &Rc<Self>) -> Option<Turn> {
        self.turn(Whose::Other, OTHERS_MAX)
    }

    fn turn(self: &Rc<Self>, whose: Whose, most: usize) -> Option<Turn> {
        let waiting = self.waiting(whose);
        (waiting.get() < most).then(|| {
            waiting.set(waiting.get() + 1);
            Turn { desk: Rc::clone(self), whose }
        })
    }

    fn waiting(&self, whose: Whose) -> &Cell<usize> {
        match whose {
            Whose::Owner => &self.answered,
            Whose::Other => &self.others,
        }
    }
}

impl Place {
    /// The client has said what it wants.
    pub fn has_spoken(&self) {
        self.desk.silent.borrow_mut().retain(|(number, _)| *number != self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.has_spoken();
        self.desk.present.set(self.desk.present.get() - 1);
        self.desk.left.notify_one();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let waiting = self.desk.waiting(self.whose);
        waiting.set(waiting.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_says_nothing_makes_room() {
        let desk = Rc::<Desk>::default();
        let mut all: Vec<_> = (0..SILENT_MAX).map(|_| desk.enter()).collect();
        all[0].0.has_spoken();
        all.push(desk.enter());
        assert!(all.iter_mut().all(|(_, dismissed)| dismissed.try_recv() != Ok(())));
        all.push(desk.enter());
        let out: Vec<usize> = (0..all.len()).filter(|&i| all[i].1.try_recv() == Ok(())).collect();
        assert_eq!((out, desk.is_busy()), (vec![1], true));
        all.clear();
        assert!(!desk.is_busy());
    }

    #[test]
    fn only_so_many_wait_for_an_answer() {
        let desk = Rc::<Desk>::default();
        let all: Vec<_> = std::iter::from_fn(|| desk.answer()).take(ANSWERED_MAX * 2).collect();
        assert_eq!(all.len(), ANSWERED_MAX);
        // Others have turns of their own, and fewer.
        let others: Vec<_> = std::iter::from_fn(|| desk.answer_other()).take(OTHERS_MAX * 2).collect();
        assert_eq!(others.len(), OTHERS_MAX);
        drop(all);
        assert!(desk.answer().is_some() && desk.answer_other().is_none());
    }
}
