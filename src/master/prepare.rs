//! A master that starts anew. One that continues from another program comes from [`super::upgrade`].

use super::bind::{bind_all, bind_control};
use super::end::End;
use super::error::RunError;
use super::event::{EVENTS_MAX, Event};
use super::pid_file::PidFile;
use super::program::Host;
use super::program::Program;
use super::run::Master;
use super::service::Manager;
use super::signals::forward_signals;
use super::sizing::Sizing;
use super::steering;
use crate::adapt::preload::Shim;
use crate::admin::Bound;
use crate::aside::Aside;
use crate::config::{Config, DESCRIPTORS_OF_MASTER, DESCRIPTORS_PER_WORKER, Mode, WORKERS_MAX};
use crate::core::fleet::{Fleet, OCCUPANTS_MAX};
use crate::datagrams::Datagrams;
use crate::front::accounts::Front;
use crate::front::common::Common;
use crate::front::listeners::Listeners;
use crate::kernel::shares::Shares;
use crate::lifecycle::failures::{Failure, Failures};
use crate::lifecycle::health::Checks;
use crate::lifecycle::reload::Reloads;
use crate::reports::Reports;
use crate::sys::process::guard::{self, Guard};
use crate::sys::process::{descent, limits};
use crate::sys::taken::{self, Taken};
use crate::sys::{dispose, fd};
use crate::triggers;
use crate::workers::form::Form;
use crate::workers::leftovers::Leftovers;
use crate::workers::output::Output;
use crate::workers::pool::Pool;
use crate::workers::rendezvous::Rendezvous;
use crate::workers::start::Starter;
use std::collections::HashSet;
use std::rc::Rc;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

// What is shared with the guard and with workers has room for as many workers as there can be.
const _: () = assert!(OCCUPANTS_MAX * WORKERS_MAX as usize <= guard::GROUPS);
const _: () = assert!(WORKERS_MAX as usize <= taken::SLOTS_MAX);

impl Master {
    /// Acquires everything that can be refused, before the first worker is forked.
    pub(super) fn prepare(mut config: Config, mut host: Host) -> Result<(Master, mpsc::Receiver<Event>), RunError> {
        let limit = limits::raise_descriptor_limit()?;
        let workers = config.range.map_or(config.workers, |range| range.max);
        let needed = u64::from(workers) * DESCRIPTORS_PER_WORKER + DESCRIPTORS_OF_MASTER;
        if needed > limit.hard {
            return Err(RunError::Descriptors { workers, needed, limit: limit.hard });
        }
        steering::is_possible(&config)?;
        let control = bind_control(&mut config)?;
        let pid_file = config.pid_file.as_deref().map(PidFile::write).transpose()?;
        let config = Rc::new(config);
        let spare = limit.hard.saturating_sub(DESCRIPTORS_OF_MASTER) / DESCRIPTORS_PER_WORKER;
        limits::become_subreaper()?;
        let needs = |what| move |source| RunError::Needs { what, source };
        let earlier = descent::descendants(nix::unistd::Pid::this(), &HashSet::new()).unwrap_or_default();
        let guard = Guard::start(config.life.detached).map_err(needs("the process that guards the workers"))?;
        let guard = Rc::new(guard);
        let output = Output::start(host.logs.out.clone(), host.logs.err.clone())
            .map_err(needs("the thread that passes output on"))?;
        let aside = Aside::start().map_err(needs("a thread for what is done aside"))?;
        dispose::start().map_err(needs("a thread that closes what others sent"))?;
        // Comes after the threads were started, so that they keep the ordinary policy.
        if let Err(error) = limits::wake_without_preempting() {
            debug!(%error, "the master preempts its workers");
        }

        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let common = Rc::new(Common::new(&config, fd::packet_cost()?, Reports::wrapped(&sender, Event::Front), aside));
        let workers = Reports::wrapped(&sender, Event::Worker);
        let leftovers =
            Leftovers::start(workers.clone()).map_err(needs("the thread that looks after what workers leave"))?;
        // Without the counters nothing is counted, and everything else goes on.
        let taken = matches!(config.mode, Mode::Shared | Mode::Kernel).then(Taken::new).and_then(Result::ok);
        let starter = Starter {
            config: Rc::clone(&config),
            guard,
            leftovers,
            earlier,
            shim: Shim::new()?,
            old_shims: Vec::new(),
            rendezvous: Rendezvous::open()?,
            output,
            form: Form::of(&config),
            descriptors: limit.soft,
            taken,
            common: Rc::clone(&common),
            events: workers,
        };
        let (executable, adapter, reason) = starter.look(&config).map_err(Failure::from)?;
        info!(command = %executable.path.display(), adapter = adapter.name(), reason, "chose the adapter");
        let mut listeners = Listeners::new(config.mode, Rc::clone(&common));
        bind_all(&config, std::mem::take(&mut host.inherited), &mut listeners, &common)?;
        if let Some(control) = &control {
            control.serve(Reports::wrapped(&sender, Event::Control));
        }
        starter.rendezvous.serve(starter.events.clone())?;
        common.opens.begin();
        triggers::begin(&config.triggers, &Reports::wrapped(&sender, Event::Trigger))?;
        let signals = forward_signals(&sender).map_err(needs("the thread that signals interrupt"))?;
        common.begin_to_accept()?;
        let max_workers = WORKERS_MAX.min(u32::try_from(spare).unwrap_or(WORKERS_MAX));
        let fleet = Fleet::new(config.plan(max_workers));
        if config.weights.named() > config.workers as usize {
            let (weights, workers) = (config.weights.named(), config.workers);
            warn!(weights, workers, "there are weights for more slots than workers; they count when more are added");
        }
        let (name, workers, pid) = (&config.name, config.workers, std::process::id());
        info!(name, pid, workers, mode = config.mode.name(), depth = config.depth, "starting");
        let manager = Manager::find().map_err(needs("the thread that tells the service manager"))?;
        let mut program = Program { control, pid_file, ..Program::new(host, signals, manager) };
        program.begin_to_tell(&config, 0);
        program.serve_admin(&config, Reports::wrapped(&sender, Event::Control), Bound::bind)?;
        let master = Master {
            reloads: Reloads::new(max_workers, config.source.text.clone()),
            fleet,
            workers: Pool::new(starter),
            front: Front::new(config.mode, listeners, Datagrams::new(config.mode), Vec::new(), 0),
            shares: Shares::new(Reports::wrapped(&sender, Event::Shares)),
            sizing: Sizing::new(Reports::wrapped(&sender, Event::Sizing)),
            checks: Checks::new(&config, Reports::wrapped(&sender, Event::Lifecycle)),
            failures: Failures::default(),
            program,
            events: sender,
            end: End::default(),
            config,
        };
        Ok((master, events))
    }
}
