//! Several apps that run together: which is started, stopped or waits.
//!
//! An app is started when those that it depends on serve. One that ends is started again after a wait that grows
//! ([`super::backoff`]), unless its user stopped it or its options are wrong. At the stop of all, an app is stopped when
//! those that depend on it have ended.

use super::backoff::{HEALTHY, delay};
use super::moment::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// How an app's master ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to stop.
    Stopped,
    /// Its options are wrong, so another attempt would end in the same way.
    Misused,
    /// Its first generation could not start.
    NotStarted,
    /// Anything else.
    Failed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start this app's master.
    Start(String),
    /// Ask this app's master to stop.
    Stop(String),
}

/// An app waits before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Failures in a row.
    pub failures: u32,
    /// How long it waits.
    pub delay: Duration,
}

/// How all of them are at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They were stopped.
    Stopped,
    /// None of them ever served, and none will.
    NotStarted,
    /// Some could not be started because their options are wrong, and no other runs.
    Misused,
}

/// What an app does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It waits for others.
    Waits,
    /// Its master runs.
    Runs { since: Moment, serves: bool, told: bool },
    /// It failed and waits.
    Backoff { until: Moment },
    /// It was stopped.
    Stopped,
    /// Its options are wrong.
    Misused,
}

/// What becomes of an app when its master has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// That depends on how it ended.
    Judged,
    /// It is started again.
    Again,
    /// It is forgotten.
    Forgotten,
}

#[derive(Debug)]
struct App {
    depends_on: Vec<String>,
    state: State,
    then: Then,
    failures: u32,
}

/// The apps that run together.
#[derive(Debug)]
pub struct Apps {
    apps: BTreeMap<String, App>,
    /// How many may be starting at the same time.
    starting_max: usize,
    stopping: bool,
    has_served: bool,
    outcome: Option<Outcome>,
}

impl Apps {
    /// No apps yet, of which so many may be starting at the same time.
    #[must_use]
    pub fn new(starting_max: usize) -> Apps {
        Apps { apps: BTreeMap::new(), starting_max, stopping: false, has_served: false, outcome: None }
    }

    /// An app is to run from now on; one that is there already keeps running, with these dependencies.
    pub fn want(&mut self, name: &str, depends_on: &[String]) {
        let depends_on = depends_on.to_vec();
        match self.apps.get_mut(name) {
            Some(app) => {
                app.depends_on = depends_on;
                if app.then == Then::Forgotten {
                    app.then = Then::Again;
                }
                if matches!(app.state, State::Stopped | State::Misused) {
                    (app.state, app.failures) = (State::Waits, 0);
                }
            }
            None => {
                let app = App { depends_on, state: State::Waits, then: Then::Judged, failures: 0 };
                self.apps.insert(name.to_owned(), app);
            }
        }
    }

    /// An app is not wanted any more.
    pub fn forget(&mut self, name: &str) {
        if let Some(app) = self.apps.get_mut(name) {
            match app.state {
                State::Runs { .. } => app.then = Then::Forgotten,
                _ => drop(self.apps.remove(name)),
            }
        }
    }

    /// An app is to stop and to be started anew.
    pub fn restart(&mut self, name: &str) {
        if let Some(app) = self.apps.get_mut(name) {
            match app.state {
                State::Runs { .. } => app.then = Then::Again,
                _ => (app.state, app.failures) = (State::Waits, 0),
            }
        }
    }

    /// All are to stop.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// An app's first generation serves.
    pub fn serves(&mut self, name: &str) {
        if let Some(App { state: State::Runs { serves, .. }, .. }) = self.apps.get_mut(name) {
            *serves = true;
            self.has_served = true;
        }
    }

    /// An app's master has ended. Says how long it waits, if it does before it is started again.
    pub fn ended(&mut self, name: &str, ending: Ending, now: Moment, random: u32) -> Option<Wait> {
        let app = self.apps.get_mut(name)?;
        let State::Runs { since, serves, .. } = app.state else { return None };
        let then = std::mem::replace(&mut app.then, Then::Judged);
        app.state = match (then, ending) {
            (Then::Forgotten, _) => {
                self.apps.remove(name);
                return None;
            }
            _ if self.stopping => State::Stopped,
            (Then::Again, _) => State::Waits,
            (Then::Judged, Ending::Stopped) => State::Stopped,
            (Then::Judged, Ending::Misused) => State::Misused,
            (Then::Judged, Ending::NotStarted | Ending::Failed) => {
                let was_healthy = serves && now.since(since) >= HEALTHY;
                app.failures = if was_healthy { 1 } else { app.failures.saturating_add(1) };
                let (failures, delay) = (app.failures, delay(app.failures, random));
                app.state = State::Backoff { until: now + delay };
                if !self.has_served && !self.apps.values().any(App::runs) {
                    self.outcome = Some(Outcome::NotStarted);
                }
                return Some(Wait { failures, delay });
            }
        };
        None
    }

    /// What is to be done now.
    pub fn advance(&mut self, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        let names: Vec<String> = self.apps.keys().cloned().collect();
        let mut starting = self.starting();
        for name in names {
            let may_start = self.may_start(&name) && starting < self.starting_max;
            let may_stop = self.may_stop(&name);
            let stopping = self.stopping;
            let Some(app) = self.apps.get_mut(&name) else { continue };
            match app.state {
                State::Waits | State::Backoff { .. } if may_start && app.state.is_due(now) => {
                    app.state = State::Runs { since: now, serves: false, told: false };
                    starting += 1;
                    actions.push(Action::Start(name));
                }
                State::Runs { since, serves, told: false } if may_stop => {
                    app.state = State::Runs { since, serves, told: true };
                    actions.push(Action::Stop(name));
                }
                State::Waits | State::Backoff { .. } if stopping => app.state = State::Stopped,
                _ => {}
            }
        }
        actions
    }

    /// When something is to be done though nothing happens.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        if self.starting() >= self.starting_max {
            // One that serves or ends comes first.
            return None;
        }
        let due = |(name, app): (&String, &App)| match app.state {
            State::Backoff { until } if self.may_start(name) => Some(until),
            _ => None,
        };
        self.apps.iter().filter_map(due).min()
    }

    /// Whether an app was told to stop. One that is started only now was not there to hear it.
    #[must_use]
    pub fn is_told(&self, name: &str) -> bool {
        matches!(self.apps.get(name), Some(App { state: State::Runs { told: true, .. }, .. }))
    }

    fn starting(&self) -> usize {
        let is_starting = |app: &&App| matches!(app.state, State::Runs { serves: false, told: false, .. });
        self.apps.values().filter(is_starting).count()
    }

    /// How all of them are, if nothing will happen any more.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        if self.outcome.is_some() {
            return self.outcome;
        }
        let goes_on = |(name, app): (&String, &App)| match app.state {
            State::Runs { .. } => true,
            State::Waits | State::Backoff { .. } => self.may_start(name),
            State::Stopped | State::Misused => false,
        };
        if self.apps.iter().any(goes_on) {
            return None;
        }
        match self.apps.values().any(|app| app.state == State::Misused) && !self.stopping {
            true => Some(Outcome::Misused),
            false => Some(Outcome::Stopped),
        }
    }

    /// Whether nothing is under way: each app serves, or was stopped, or has failed and waits. Then the number of those
    /// that serve, and of the others.
    #[must_use]
    pub fn settled(&self) -> Option<(usize, usize)> {
        let is_under_way = |(name, app): (&String, &App)| match app.state {
            State::Runs { serves, told, .. } => !serves || told || app.then != Then::Judged,
            State::Waits => self.may_start(name),
            State::Backoff { .. } | State::Stopped | State::Misused => false,
        };
        if self.apps.iter().any(is_under_way) {
            return None;
        }
        let serving = self.apps.values().filter(|app| app.runs()).count();
        Some((serving, self.apps.len() - serving))
    }

    /// The apps that run, or will again.
    pub fn alive(&self) -> impl Iterator<Item = &str> {
        let lives = |app: &App| app.then != Then::Forgotten && !matches!(app.state, State::Stopped | State::Misused);
        self.apps.iter().filter(move |(_, app)| lives(app)).map(|(name, _)| name.as_str())
    }

    fn may_start(&self, name: &str) -> bool {
        let serves =
            |name: &String| matches!(self.apps.get(name), Some(App { state: State::Runs { serves: true, .. }, .. }));
        !self.stopping && self.apps.get(name).is_some_and(|app| app.depends_on.iter().all(serves))
    }

    fn may_stop(&self, name: &str) -> bool {
        let Some(app) = self.apps.get(name) else { return false };
        let depends = |app: &App| app.runs() && app.depends_on.iter().any(|other| other == name);
        app.then != Then::Judged || self.stopping && !self.apps.values().any(depends)
    }
}

impl State {
    /// Whether its wait after a failure is over, if it had one.
    fn is_due(self, now: Moment) -> bool {
        !matches!(self, State::Backoff { until } if until > now)
    }
}

impl App {
    fn runs(&self) -> bool {
        matches!(self.state, State::Runs { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::super::backoff::{BASE, CAP};
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn start(name: &str) -> Action {
        Action::Start(name.to_owned())
    }

    fn stop(name: &str) -> Action {
        Action::Stop(name.to_owned())
    }

    /// `web` depends on `db`.
    fn two() -> Apps {
        let mut apps = Apps::new(9);
        apps.want("db", &[]);
        apps.want("web", &["db".to_owned()]);
        apps
    }

    #[test]
    fn each_comes_when_those_that_it_needs_serve_and_goes_before_them() {
        let mut apps = two();
        assert_eq!(apps.advance(at(0)), [start("db")]);
        assert_eq!(apps.advance(at(0)), []);
        apps.serves("db");
        assert_eq!(apps.advance(at(1)), [start("web")]);
        assert_eq!(apps.settled(), None);
        apps.serves("web");
        assert_eq!(apps.settled(), Some((2, 0)));
        apps.stop();
        assert_eq!(apps.advance(at(2)), [stop("web")]);
        assert_eq!(apps.advance(at(2)), []);
        assert_eq!(apps.ended("web", Ending::Stopped, at(3), 0), None);
        assert_eq!(apps.advance(at(3)), [stop("db")]);
        assert_eq!(apps.outcome(), None);
        // What it says at the end is not judged any more.
        assert_eq!(apps.ended("db", Ending::Failed, at(4), 0), None);
        assert_eq!((apps.outcome(), apps.wakes_at()), (Some(Outcome::Stopped), None));
    }

    #[test]
    fn only_so_many_start_at_once() {
        let mut apps = Apps::new(1);
        apps.want("a", &[]);
        apps.want("b", &[]);
        assert_eq!(apps.advance(at(0)), [start("a")]);
        apps.serves("a");
        assert_eq!(apps.advance(at(0)), [start("b")]);
        // One that waits to be started again waits for its turn, too.
        apps.ended("a", Ending::Failed, at(1), 0);
        assert_eq!((apps.wakes_at(), apps.settled()), (None, None));
        apps.serves("b");
        assert_eq!((apps.wakes_at(), apps.settled()), (Some(at(1) + BASE), Some((1, 1))));
    }

    #[test]
    fn one_that_is_told_before_it_is_there_is_known() {
        let mut apps = Apps::new(9);
        apps.want("a", &[]);
        apps.advance(at(0));
        assert!(!apps.is_told("a"));
        apps.restart("a");
        assert_eq!(apps.advance(at(1)), [stop("a")]);
        assert!(apps.is_told("a") && apps.settled().is_none());
    }

    #[test]
    fn one_that_fails_comes_again_later_and_later_until_it_has_served_for_a_while() {
        let mut apps = Apps::new(9);
        apps.want("web", &[]);
        apps.advance(at(0));
        apps.serves("web");
        let wait = |failures, delay| Some(Wait { failures, delay });
        assert_eq!(apps.ended("web", Ending::Failed, at(1), 0), wait(1, BASE));
        assert_eq!(apps.advance(at(1)), []);
        assert_eq!(apps.wakes_at(), Some(at(1) + BASE));
        assert_eq!(apps.advance(at(2)), [start("web")]);
        assert_eq!(apps.ended("web", Ending::NotStarted, at(2), 0), wait(2, BASE * 2));
        for _ in 0..20 {
            let due = apps.wakes_at().unwrap();
            assert_eq!(apps.advance(due), [start("web")]);
            apps.ended("web", Ending::Failed, due, 0);
        }
        let due = apps.wakes_at().unwrap();
        apps.advance(due);
        apps.serves("web");
        let later = due + HEALTHY;
        assert_eq!(apps.ended("web", Ending::Failed, later, 0), wait(1, BASE));
        assert!(CAP > BASE);
    }

    #[test]
    fn where_nothing_ever_served_the_first_failure_of_all_is_the_end() {
        let mut apps = two();
        apps.advance(at(0));
        apps.ended("db", Ending::NotStarted, at(1), 0);
        assert_eq!(apps.outcome(), Some(Outcome::NotStarted));
        let mut apps = Apps::new(9);
        apps.want("a", &[]);
        apps.want("b", &[]);
        apps.advance(at(0));
        apps.ended("a", Ending::NotStarted, at(1), 0);
        assert_eq!(apps.outcome(), None);
        apps.serves("b");
        apps.ended("b", Ending::Failed, at(2), 0);
        assert_eq!(apps.outcome(), None, "it has served");
    }

    #[test]
    fn what_its_user_stopped_stays_stopped_until_it_is_wanted_again() {
        let mut apps = two();
        apps.advance(at(0));
        apps.serves("db");
        apps.advance(at(0));
        apps.serves("web");
        apps.ended("web", Ending::Stopped, at(1), 0);
        assert_eq!((apps.advance(at(99)), apps.alive().collect::<Vec<_>>()), (vec![], vec!["db"]));
        apps.want("web", &["db".to_owned()]);
        assert_eq!(apps.advance(at(100)), [start("web")]);
        apps.ended("web", Ending::Misused, at(101), 0);
        assert_eq!((apps.advance(at(200)), apps.outcome()), (vec![], None));
        apps.ended("db", Ending::Stopped, at(201), 0);
        assert_eq!(apps.outcome(), Some(Outcome::Misused));
    }

    #[test]
    fn one_is_exchanged_or_forgotten_when_it_has_ended() {
        let mut apps = two();
        apps.advance(at(0));
        apps.serves("db");
        apps.advance(at(0));
        apps.serves("web");
        apps.restart("web");
        assert_eq!(apps.advance(at(1)), [stop("web")]);
        apps.ended("web", Ending::Stopped, at(2), 0);
        assert_eq!(apps.advance(at(2)), [start("web")]);
        apps.forget("web");
        assert_eq!(apps.advance(at(3)), [stop("web")]);
        // Wanted again before it has ended.
        apps.want("web", &[]);
        apps.ended("web", Ending::Stopped, at(4), 0);
        assert_eq!(apps.advance(at(4)), [start("web")]);
        apps.forget("web");
        apps.advance(at(5));
        apps.ended("web", Ending::Stopped, at(6), 0);
        assert_eq!(apps.alive().collect::<Vec<_>>(), ["db"]);
    }
}
