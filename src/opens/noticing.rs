//! The tasks that notice closes: they hear of them, weigh whether asking is cheaper, and look again when something may
//! have been missed.

use super::{LOOK_UNHEARD, Opens};
use crate::activity::next_beat;
use crate::clock;
use crate::core::notice::{ASK_EVERY, ASK_MAX, Notice};
use crate::sys::socket::closes::{Bell, Closes, Heard};
use crate::sys::socket::sock_diag::{self, Family};
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Events that are read at once, before the master's other tasks get their turn.
const HEARD_AT_ONCE: u32 = 4096;
/// Answers in a row in which a connection must be missing: the kernel writes an answer piece by piece and may leave out
/// what moved meanwhile.
const MISSING_IN: u32 = 2;
/// Least time between two looks at what was closed, unless a task waits for a place: each look wakes the master, and
/// one look finds many. What a policy sees is brought up to date before it is asked anyway.
const MODERATION: Duration = Duration::from_millis(10);
/// How often the master asks anyway: an event may be lost silently when the kernel has no memory.
const AUDIT: Duration = Duration::from_secs(10);
/// How late the kernel may report a close, on a machine that has much else to do.
const LATE: Duration = Duration::from_secs(1);
/// How often the master weighs how to notice closes.
const WEIGH_EVERY: Duration = Duration::from_millis(250);
/// Audits in a row that find unheard closes, after which the master no longer expects to hear any.
const UNHEARD_MAX: u32 = 2;
/// Least time between two log lines about counting again.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failed question to the kernel.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Hears of closes, without haste unless a task waits for one.
pub async fn hear(opens: Rc<Opens>, closes: Rc<Closes>, bell: AsyncFd<Bell>) {
    while opens.hearing.borrow().is_some() {
        let rings = bell.get_ref().arm(&closes);
        match rings.map(|()| bell.readable()) {
            Ok(rings) => {
                if let Ok(mut rang) = rings.await {
                    bell.get_ref().answer();
                    rang.clear_ready();
                }
            }
            Err(error) => {
                debug!(%error, "cannot wait for closes");
                sleep(FAILED_PAUSE).await;
            }
        }
        while !opens.hear_all(&closes) {
            tokio::task::yield_now().await;
        }
        if opens.waiting.get() == 0 {
            tokio::select! {
                () = sleep(MODERATION) => {}
                () = opens.attention.notified() => {}
            }
        }
    }
}

/// Weighs from time to time what is cheaper, and asks if that is asking.
pub async fn weigh(opens: Rc<Opens>) {
    let mut weighed = clock::now();
    loop {
        match opens.notice.get() {
            // Nothing closes where nothing is open.
            Notice::Hear if opens.total() == 0 => next_beat(WEIGH_EVERY).await,
            Notice::Hear => sleep(WEIGH_EVERY).await,
            Notice::Ask => {
                sleep(ASK_EVERY).await;
                opens.catch_up();
            }
        }
        let (now, open) = (clock::now(), opens.total());
        let passed = now.since(weighed);
        if passed < WEIGH_EVERY && open <= ASK_MAX {
            continue;
        }
        weighed = now;
        let rate = f64::from(opens.closes.replace(0)) / passed.as_secs_f64().max(1e-3);
        let cheaper = opens.notice.get().cheaper(open, rate);
        // Closes of those that cannot be asked for must be heard.
        opens.notice_by(if opens.unaskable.get() > 0 { Notice::Hear } else { cheaper });
    }
}

/// Asks for all connections whenever events were lost, and from time to time anyway; again and again where there are no
/// events.
pub async fn look_again(opens: Rc<Opens>) {
    let (mut unheard, mut failing, mut said) = (0, false, None);
    loop {
        let pause = if opens.hearing.borrow().is_some() { AUDIT } else { LOOK_UNHEARD };
        tokio::select! {
            () = opens.resync.notified() => {}
            () = sleep(pause), if opens.total() > 0 || pause != AUDIT => {}
        }
        if opens.notice.get() == Notice::Ask {
            continue;
        }
        let missed = opens.missed.replace(false);
        let looked = opens.look(if pause == AUDIT && !missed { LATE } else { Duration::ZERO }).await;
        let fails = looked.is_err();
        match looked {
            Ok(closed) if missed => {
                let now = clock::now();
                if said.is_none_or(|said| now.since(said) >= SAY_EVERY) {
                    said = Some(now);
                    info!(
                        open = opens.total(),
                        closed,
                        recounts = opens.recounts.get(),
                        "counted open connections again"
                    );
                }
            }
            // The kernel reports a close within milliseconds, unless it reports nothing at all.
            Ok(closed) if closed > 0 && pause == AUDIT => {
                unheard += 1;
                if unheard >= UNHEARD_MAX {
                    warn!(closed, "the kernel does not tell of closed connections here; looking for them instead");
                    opens.become_deaf();
                }
            }
            Ok(_) => unheard = 0,
            Err(error) => {
                if !failing {
                    warn!(%error, "cannot see which connections are open; what was closed unheard still counts");
                }
                opens.missed.set(missed);
                sleep(FAILED_PAUSE).await;
                opens.resync.notify_one();
            }
        }
        failing = fails;
    }
}

impl Opens {
    /// Reads events; returns whether there is nothing more to hear.
    pub(super) fn hear_all(&self, closes: &Closes) -> bool {
        let mut freed = false;
        let mut all = false;
        for _ in 0..HEARD_AT_ONCE {
            match closes.hear() {
                Ok(Heard::Closed(cookie)) => freed |= self.closed(cookie),
                Ok(Heard::Overrun) => {
                    self.recounts.set(self.recounts.get() + 1);
                    self.missed.set(true);
                }
                Ok(Heard::Nothing) => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        debug!(%error, "cannot hear of closes");
                    }
                    all = true;
                    break;
                }
            }
        }
        if freed {
            self.freed.notify_waiters();
        }
        // The kernel goes on adding to the queue only when nothing waits there any more (`netlink_rcv_wake`). Only then
        // is it certain that the master will hear when a connection closes that an answer shows as open.
        if all && self.missed.get() {
            self.resync.notify_one();
        }
        all
    }

    /// Asks the kernel which connections there are, and forgets the others unless their close is heard of within
    /// `late`. Returns how many it forgot.
    pub(super) async fn look(&self, late: Duration) -> io::Result<usize> {
        let mut gone: HashSet<u64> = self.open.borrow().keys().copied().collect();
        let (families, ports) = (self.families.borrow().clone(), self.ports.borrow().clone());
        let families: Vec<Family> = families.into_iter().collect();
        for _ in 0..MISSING_IN {
            let (families, ports) = (families.clone(), ports.clone());
            let living = self.aside.run(move || sock_diag::cookies_on(&families, &ports));
            let living = living.await.map_err(io::Error::other)??;
            gone.retain(|cookie| !living.contains(cookie));
        }
        if !gone.is_empty() && !late.is_zero() {
            sleep(late).await;
        }
        self.catch_up();
        let closed = gone.into_iter().filter(|cookie| self.closed(*cookie)).count();
        if closed > 0 {
            debug!(closed, "connections were closed without a word");
            self.freed.notify_waiters();
        }
        Ok(closed)
    }
}
