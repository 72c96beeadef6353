//! Which worker served what, and whether all counts agree.
//!
//! Every connection that a client began has one ending there ([`Endings`]), and one at the front: a worker took it, it
//! was turned away, or it was lost. If the two sides do not agree, or the front's own sums do not, the run is invalid.

use super::load::tally::{Endings, Tally};
use super::plan::Plan;
use super::record::{CountedBy, Front, Run};
use super::workload::Disturbance;
use crate::config::Mode;
use crate::control::status::{Status, Worker};
use crate::core::spread::Spread;

impl Front {
    fn between(before: &Status, after: &Status) -> Front {
        let since = |of: fn(&Status) -> u64| of(after).saturating_sub(of(before));
        Front {
            accepted: since(|status| status.totals.accepted),
            handed: since(|status| status.totals.handed),
            returned: since(|status| status.totals.returned),
            rescued: since(|status| status.totals.rescued),
            refused: since(|status| status.totals.refused),
            answered_503: since(|status| status.admission.answered_503),
            lost: since(|status| status.totals.lost),
            restarts: since(|status| status.workers.iter().map(|worker| worker.restarts).sum()),
        }
    }

    /// Checks the front's own sums: everything that came to the front left it again, except for the one connection
    /// that each listener may hold before and after.
    fn unaccounted(&self, listeners: usize) -> Option<String> {
        let came = self.accepted + self.returned + self.rescued;
        let went = self.handed + self.refused + self.lost;
        (came.abs_diff(went) > listeners as u64).then(|| {
            format!(
                "the front's sums do not match: {} accepted, {} returned and {} rescued, but {} handed over, {} turned \
                 away and {} lost",
                self.accepted, self.returned, self.rescued, self.handed, self.refused, self.lost
            )
        })
    }

    /// Checks the connections as a whole between the front and the clients. If the server did not report an ending,
    /// the connection may still wait in the kernel's queue, or may have been turned away after its client gave up.
    fn at_odds(&self, ends: &Endings) -> Option<String> {
        let told = ends.answered + ends.unavailable;
        let silent = ends.hung + ends.failed + ends.abandoned;
        let accepted = (told..=ends.all()).contains(&self.accepted);
        let refused = self.refused <= ends.reset + ends.unavailable + silent;
        let answered = self.answered_503 <= ends.unavailable + ends.reset + silent;
        (!accepted || !refused || !answered).then(|| {
            format!(
                "the front and the clients disagree: {} accepted and {} turned away, {} of them with 503, but the clients \
                 had {} answers, {} resets, {} times 503, and {silent} ended otherwise",
                self.accepted, self.refused, self.answered_503, ends.answered, ends.reset, ends.unavailable
            )
        })
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, more: &Front) {
        self.accepted += more.accepted;
        self.handed += more.handed;
        self.returned += more.returned;
        self.rescued += more.rescued;
        self.refused += more.refused;
        self.answered_503 += more.answered_503;
        self.lost += more.lost;
        self.restarts += more.restarts;
    }
}

/// Fills in which worker served what, and compares the front's counts with what the clients were told. `slots` is the
/// number of slots if neither side reports it.
pub fn count_workers(plan: &Plan, slots: usize, run: &mut Run, tally: &Tally, status: Option<(Status, Status)>) {
    if let Some((before, after)) = &status {
        from_front(plan, run, before, after);
    }
    let by_slot = &tally.by_slot;
    match run.counted_by {
        // A command may remove slots together with their counts, so only the sums can be compared.
        CountedBy::Front if plan.disturb.is_some() => {}
        CountedBy::Front => {
            let turned_away = run.front.map_or(0, |front| front.refused);
            run.invalid.extend(disagreement(&run.per_worker, by_slot, &run.endings, turned_away));
        }
        CountedBy::Clients | CountedBy::Nobody if !by_slot.is_empty() => {
            let slots = by_slot.len().max(slots);
            run.per_worker = (0..slots).map(|slot| by_slot.get(slot).copied().unwrap_or(0)).collect();
            run.counted_by = CountedBy::Clients;
        }
        CountedBy::Clients | CountedBy::Nobody => {}
    }
    run.spread = Spread::of(&run.per_worker);
}

/// What the front counted, and whether that is consistent in itself.
fn from_front(plan: &Plan, run: &mut Run, before: &Status, after: &Status) {
    let difference = |of: fn(&Worker) -> u64| -> Vec<u64> {
        after.workers.iter().zip(&before.workers).map(|(a, b)| of(a).saturating_sub(of(b))).collect()
    };
    if after.totals.lost > 0 {
        run.invalid.push(format!("the front lost {} connections", after.totals.lost));
    }
    let restarts: u64 = difference(|worker| worker.restarts).iter().sum();
    let meant = plan.workload.disturbance() == Disturbance::Crash || plan.disturb.is_some();
    if restarts > 0 && !meant {
        run.invalid.push(format!("workers ended {restarts} times while they were measured"));
    }
    let front = Front::between(before, after);
    let handoff = before.mode == Mode::Handoff.name();
    run.invalid.extend(front.unaccounted(after.listeners.len()));
    run.invalid.extend(front.at_odds(&run.endings).filter(|_| handoff));
    run.front = Some(front);
    let taken = difference(|worker| worker.taken);
    // In shared mode only the shim can count the connections that are taken.
    if handoff || taken.iter().any(|&n| n > 0) {
        run.per_worker = taken;
        run.counted_by = CountedBy::Front;
    }
}

/// Checks the front's count against the clients'. A connection that was not answered may or may not have reached a
/// worker, unless the front turned it away; all others must appear on both sides, for each worker.
fn disagreement(front: &[u64], clients: &[u64], endings: &Endings, turned_away: u64) -> Option<String> {
    let doubtful = (endings.unanswered() + endings.abandoned).saturating_sub(turned_away);
    let sum: u64 = front.iter().sum();
    let agreed = if clients.is_empty() {
        sum >= endings.answered && sum <= endings.answered + doubtful
    } else {
        let known: u64 = clients.iter().sum();
        let at_most = |slot: usize, served: &u64| *served <= front.get(slot).copied().unwrap_or(0);
        clients.iter().enumerate().all(|(slot, served)| at_most(slot, served)) && sum - sum.min(known) <= doubtful
    };
    (!agreed).then(|| {
        format!(
            "the front and the clients disagree: workers took {front:?}, the clients were answered by {clients:?} \
             ({} answered, {doubtful} not)",
            endings.answered
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endings(answered: u64, hung: u64) -> Endings {
        Endings { answered, hung, ..Endings::default() }
    }

    #[test]
    fn front_and_clients_agree_when_every_answer_is_found_on_both_sides() {
        assert_eq!(disagreement(&[5, 5], &[5, 5], &endings(10, 0), 0), None);
        assert_eq!(disagreement(&[5, 5], &[], &endings(10, 0), 0), None);
        // One hung: it is unknown whether its worker took it.
        assert_eq!(disagreement(&[5, 5], &[5, 4], &endings(9, 1), 0), None);
        assert_eq!(disagreement(&[5, 4], &[5, 4], &endings(9, 1), 0), None);
    }

    #[test]
    fn they_disagree_when_the_sums_match_but_the_workers_do_not() {
        assert!(disagreement(&[5, 5], &[6, 4], &endings(10, 0), 0).is_some());
        assert!(disagreement(&[5, 5], &[5, 4], &endings(10, 0), 0).is_some());
        assert!(disagreement(&[5, 5], &[5, 5, 1], &endings(11, 0), 0).is_some());
        assert!(disagreement(&[5, 4], &[], &endings(10, 0), 0).is_some());
        assert!(disagreement(&[5, 6], &[], &endings(10, 0), 0).is_some());
    }

    #[test]
    fn what_the_front_turned_away_cannot_have_been_taken() {
        let ends = Endings { answered: 10, reset: 5, unavailable: 5, ..Endings::default() };
        assert_eq!(disagreement(&[5, 5], &[5, 5], &ends, 10), None);
        assert!(disagreement(&[5, 6], &[5, 5], &ends, 10).is_some());
        assert!(disagreement(&[5, 6], &[], &ends, 10).is_some());
        assert_eq!(disagreement(&[5, 6], &[5, 5], &ends, 9), None);
    }

    #[test]
    fn all_that_came_to_the_front_must_have_left_it() {
        let front = Front { accepted: 20, handed: 11, returned: 1, refused: 9, ..Front::default() };
        assert!(front.unaccounted(0).is_some());
        assert_eq!(front.unaccounted(1), None);
        assert!(Front { refused: 7, ..front }.unaccounted(1).is_some());
    }

    #[test]
    fn the_clients_must_know_of_all_that_were_turned_away() {
        let ends = Endings { answered: 10, reset: 4, unavailable: 5, hung: 1, ..Endings::default() };
        let front = Front { accepted: 19, refused: 9, answered_503: 5, ..Front::default() };
        assert_eq!(front.at_odds(&ends), None);
        // The one that hung may have been turned away later, or may never have been accepted.
        assert_eq!(Front { accepted: 20, refused: 10, ..front }.at_odds(&ends), None);
        assert!(Front { refused: 11, ..front }.at_odds(&ends).is_some());
        assert!(Front { accepted: 14, ..front }.at_odds(&ends).is_some());
        assert!(Front { accepted: 21, ..front }.at_odds(&ends).is_some());
    }
}
