//! What a worker leaves behind when its first process ends, and what is left of all workers when the master ends.
//!
//! A process that has one of our sockets ends with its worker, whatever session it is in: it would go on taking
//! connections that are not counted. A process that only changed its group ends, too. A job that was detached on
//! purpose (a session of its own, none of our sockets) goes on until the master ends, or longer with
//! `--leave-children`.
//!
//! A thread of its own looks for them ([`crate::sys::process::descent`]) and ends them ([`crate::sys::process::sweep`]), only at those
//! moments. It runs from the start: when processes have used up the machine's limits, no thread can be made.

use super::{Event, Events};
use crate::core::ids::WorkerId;
use crate::sys::process::descent::{self, Kin, Mark};
use crate::sys::process::guard::Detached;
use crate::sys::process::sweep::{Patience, Progress, Sweep};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// How long a process that is left behind may take to end when it is asked, before it is killed; less if `--grace` is
/// less. A worker that still has connections when its time is nearly over gets as much.
pub const TIME_TO_END: Duration = Duration::from_secs(2);
/// How long to wait for a killed process. One that takes longer hangs in the kernel, or has another user.
pub const TIME_TO_DIE: Duration = Duration::from_secs(5);
/// Sweeps after workers that run at once. The next one waits, and finds more to do.
const SWEEPS_MAX: usize = 64;
/// Processes that are named in one line.
const NAMED_MAX: usize = 8;
/// Enough for reading a few files.
const STACK: usize = 256 * 1024;

/// What is known of the workers when the thread looks for what is left.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The name of our family.
    pub family: String,
    /// First processes of workers that live, and the guard: they and their descendants are not looked at.
    pub without: HashSet<Pid>,
    /// The workers that live.
    pub living: HashSet<WorkerId>,
    /// The highest number that a worker has. Workers that come later are not known here, and live.
    pub newest: WorkerId,
    /// All our sockets.
    pub sockets: HashSet<u64>,
}

/// A worker whose first process has ended.
#[derive(Clone, Copy, Debug)]
pub struct Dead {
    /// Its process, which also named its group.
    pub pid: Pid,
    /// The inode of its end of the control channel.
    pub channel: u64,
}

/// What happens to the other processes of a worker whose first process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They end, unless they were detached on purpose.
    Ends,
    /// They go on, unless they have our sockets.
    GoesOn,
}

/// A process that is left.
#[derive(Clone, Debug)]
pub struct Left {
    /// The process.
    pub kin: Kin,
    /// Whether it has one of our sockets.
    pub holds: bool,
    /// Whether it is in a session of its own.
    pub detached: bool,
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    /// Only look for what is left of a worker.
    Look(WorkerId, Dead, Scene),
    /// End what is left of workers that are gone.
    Clean(Option<Dead>, Rest, Scene, Patience),
    /// End everything.
    End(Detached, Scene, Patience),
}

/// The thread's handle; it ends when this is dropped.
#[derive(Debug)]
pub struct Leftovers {
    commands: Option<mpsc::Sender<Command>>,
    wake: Arc<EventFd>,
}

impl Leftovers {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread or descriptor is available.
    pub fn start(events: Events) -> io::Result<Leftovers> {
        let (commands, incoming) = mpsc::channel();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let sweeper = Sweeper {
            master: Pid::this(),
            session: descent::session_of(Pid::this()),
            incoming,
            woken: Arc::clone(&wake),
            events,
            under_way: Vec::new(),
        };
        std::thread::Builder::new().name("leftovers".into()).stack_size(STACK).spawn(move || sweeper.run())?;
        Ok(Leftovers { commands: Some(commands), wake })
    }

    /// Looks for what is left of a worker; [`Event::LeftBehind`] reports it.
    pub fn look(&self, worker: WorkerId, dead: Dead, scene: Scene) {
        self.command(Command::Look(worker, dead, scene));
    }

    /// Ends what is left of a worker, or of all workers that are not among those that live.
    pub fn clean(&self, dead: Option<Dead>, rest: Rest, scene: Scene, patience: Patience) {
        self.command(Command::Clean(dead, rest, scene, patience));
    }

    /// Ends all that descends from this process; [`Event::NobodyLeft`] tells when.
    pub fn end(&self, detached: Detached, scene: Scene, patience: Patience) {
        self.command(Command::End(detached, scene, patience));
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // The thread ends only after this sender is gone.
            let _ = commands.send(command);
            let _ = self.wake.write(1);
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.wake.write(1);
    }
}

struct Sweeper {
    master: Pid,
    session: Pid,
    incoming: mpsc::Receiver<Command>,
    woken: Arc<EventFd>,
    events: Events,
    under_way: Vec<UnderWay>,
}

struct UnderWay {
    whose: Whose,
    scene: Scene,
    sweep: Sweep,
    next: Instant,
    announced: bool,
}

#[derive(Clone, Copy, Debug)]
enum Whose {
    /// Processes of workers that are gone; one of these workers is known well.
    OfTheDead(Option<Dead>, Rest),
    /// All processes of this master.
    All(Detached),
}

impl Sweeper {
    fn run(mut self) {
        loop {
            while self.under_way.len() < SWEEPS_MAX {
                match self.incoming.try_recv() {
                    Ok(command) => self.take(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.go_on();
            self.wait();
        }
    }

    fn take(&mut self, command: Command) {
        let (whose, scene, patience) = match command {
            Command::Look(worker, dead, scene) => {
                let found = look(self.master, self.session, Some(dead), &scene).unwrap_or_else(|error| {
                    debug!(%error, "cannot look who is left of a worker");
                    Vec::new()
                });
                let _ = self.events.send_blocking(Event::LeftBehind { worker, found });
                return;
            }
            Command::Clean(dead, rest, scene, patience) => (Whose::OfTheDead(dead, rest), scene, patience),
            Command::End(detached, scene, patience) => {
                // The new sweep covers all of these.
                self.under_way.clear();
                (Whose::All(detached), scene, patience)
            }
        };
        let now = Instant::now();
        let sweep = Sweep::new(now, patience);
        self.under_way.push(UnderWay { whose, scene, sweep, next: now, announced: false });
    }

    /// Takes the next step of every sweep whose time has come, or in which a process has ended.
    fn go_on(&mut self) {
        let (master, session, events, now) = (self.master, self.session, &self.events, Instant::now());
        self.under_way.retain_mut(|one| {
            let mut fds: Vec<_> = one.sweep.waited_for().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let ended = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
            drop(fds);
            if one.next > now && !ended {
                return true;
            }
            let (whose, scene, announced) = (one.whose, &one.scene, &mut one.announced);
            let progress = one.sweep.step(|| {
                let left = match whose {
                    Whose::OfTheDead(dead, rest) => to_clean(master, session, dead, rest, scene),
                    Whose::All(detached) => to_end(master, session, detached, scene),
                }?;
                if !left.is_empty() && !std::mem::replace(announced, true) {
                    announce(whose, &left);
                }
                Ok(left)
            });
            match progress {
                Ok(Progress::Until(next)) => {
                    one.next = next;
                    true
                }
                Ok(Progress::Done(left)) => {
                    report(whose, left, events);
                    false
                }
                Err(error) => {
                    warn!(%error, "cannot look who is left of the workers; is /proc mounted?");
                    report(whose, Vec::new(), events);
                    false
                }
            }
        });
    }

    /// Waits for commands, for an end, and for the time of the next step.
    fn wait(&self) {
        let next = self.under_way.iter().map(|one| one.next).min();
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            // Rounded up: a step that comes a little early would come again and again.
            let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.under_way.iter().flat_map(|one| one.sweep.waited_for()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        let polled = poll(&mut fds, timeout);
        if polled.is_ok() && fds.first().and_then(PollFd::any) == Some(true) {
            let _ = self.woken.read();
        }
    }
}

/// What is left of workers that are gone, including detached jobs. `dead` is one of these workers. No other process can
/// have its number as long as the number names a group or session.
fn look(master: Pid, session: Pid, dead: Option<Dead>, scene: &Scene) -> io::Result<Vec<Left>> {
    let mut of_the_dead: HashMap<Pid, bool> = HashMap::new();
    let mut found = Vec::new();
    for kin in descent::descendants(master, &scene.without)? {
        // What descends from one of their processes is theirs, whatever its own mark says.
        let inherited = of_the_dead.get(&kin.parent) == Some(&true);
        let theirs = inherited || is_of_the_dead(&kin, dead, scene);
        of_the_dead.insert(kin.pid, theirs);
        if theirs {
            let holds = descent::sockets_of(kin.pid).is_ok_and(|inodes| !inodes.is_disjoint(&scene.sockets));
            let detached = kin.session != session && dead.is_none_or(|dead| kin.session != dead.pid);
            found.push(Left { kin, holds, detached });
        }
    }
    Ok(found)
}

fn is_of_the_dead(kin: &Kin, dead: Option<Dead>, scene: &Scene) -> bool {
    match descent::mark_of(kin.pid, &scene.family) {
        Mark::OfWorker(id) => !scene.living.contains(&WorkerId(id)) && id <= scene.newest.0,
        // Programs write their title over their environment, and `su -` empties it.
        Mark::Nothing | Mark::Unreadable => dead.is_some_and(|dead| {
            let has_channel = || descent::sockets_of(kin.pid).is_ok_and(|inodes| inodes.contains(&dead.channel));
            kin.group == dead.pid || kin.session == dead.pid || has_channel()
        }),
    }
}

fn to_clean(master: Pid, session: Pid, dead: Option<Dead>, rest: Rest, scene: &Scene) -> io::Result<Vec<Kin>> {
    let left = look(master, session, dead, scene)?;
    let goes_on = |left: &Left| left.detached || rest == Rest::GoesOn;
    Ok(left.into_iter().filter(|left| left.holds || !goes_on(left)).map(|left| left.kin).collect())
}

fn to_end(master: Pid, session: Pid, detached: Detached, scene: &Scene) -> io::Result<Vec<Kin>> {
    let mut all = descent::descendants(master, &scene.without)?;
    let holds = |kin: &Kin| descent::sockets_of(kin.pid).is_ok_and(|inodes| !inodes.is_disjoint(&scene.sockets));
    all.retain(|kin| detached == Detached::End || kin.session == session || holds(kin));
    Ok(all)
}

/// Some of them, in words.
#[must_use]
pub fn names<'a>(left: impl ExactSizeIterator<Item = &'a Kin>) -> String {
    let more = left.len().saturating_sub(NAMED_MAX);
    let named = left.take(NAMED_MAX).map(Kin::to_string).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

fn announce(whose: Whose, left: &[Kin]) {
    let (count, processes) = (left.len(), names(left.iter()));
    match whose {
        Whose::OfTheDead(..) => info!(count, processes, "ending what a worker left behind"),
        Whose::All(_) => info!(count, processes, "ending what workers left behind"),
    }
}

fn report(whose: Whose, left: Vec<Kin>, events: &Events) {
    match whose {
        Whose::OfTheDead(..) if left.is_empty() => {}
        Whose::OfTheDead(..) => {
            let processes = names(left.iter());
            warn!(processes, "what a worker left behind cannot be killed; it is tried again at the end");
        }
        Whose::All(_) => {
            let _ = events.send_blocking(Event::NobodyLeft { but: left });
        }
    }
}
