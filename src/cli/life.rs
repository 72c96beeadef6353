//! The options of `run` for the lifecycle of the workers.

use crate::config::life::{KillMode, Life, Probe, Probing, Ready, StopFirst, duration, size};
use crate::config::triggers::{Ignored, Times, Triggers};
use crate::core::fleet::ExitCodes;
use crate::core::scaling::Range;
use crate::sys::process::guard::Detached;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(next_help_heading = "Life of the workers")]
pub struct LifeArgs {
    /// When a worker counts as ready: listen (anywhere that is shared), listen:ADDR, notify (READY=1), http:/PATH, delay:DURATION, fd or fd:N
    #[arg(long, value_name = "HOW", default_value = "listen")]
    ready: Ready,

    /// How long a worker may take to be ready before it is killed
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    boot_timeout: Duration,

    /// How long a worker must go on listening to have been ready: one that ends sooner counts as never ready
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    min_ready: Duration,

    /// Workers that a reload may start beyond the wanted number
    #[arg(long, value_name = "N", default_value_t = 1)]
    max_surge: u32,

    /// Slots that a reload may leave without a worker
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_unavailable: u32,

    /// With --workers A..B: let a worker go when fewer would have been enough for this long
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    scale_down_after: Duration,

    /// Reload when this file, or a file in this directory, changes; may be given several times
    #[arg(long, value_name = "PATH")]
    watch: Vec<PathBuf>,

    /// Leave files and directories out whose name fits, as in *.log, or whose path does, as in cache/**; hidden ones,
    /// node_modules, __pycache__ and editors' files are left out anyway; may be given several times
    #[arg(long, value_name = "PATTERN", value_parser = Ignored::new)]
    watch_ignore: Vec<Ignored>,

    /// How long it must be quiet after a change
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = duration)]
    watch_delay: Duration,

    /// Reload at these times: minute, hour, day, month and weekday as cron has them, as in "0 4 * * *"; may be given
    /// several times
    #[arg(long, value_name = "TIMES", value_parser = Times::new)]
    restart_cron: Vec<Times>,

    /// Give a worker no more connections if it takes none of its waiting ones for this long; 0 for never
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    stall: Duration,

    /// Kill and fork again a worker that is stalled for this long; 0 for never
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration)]
    stall_kill: Duration,

    /// Probe the health of each worker: http:/PATH (2xx or 3xx is good) or tcp
    #[arg(long, value_name = "WHAT")]
    probe: Option<Probe>,

    /// Time from one probe to the next
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    probe_interval: Duration,

    /// How long the answer to a probe may take
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    probe_timeout: Duration,

    /// Good probes in a row after which a worker gets connections again
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    probe_rise: u32,

    /// Bad probes in a row after which a worker gets no connections
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    probe_fall: u32,

    /// How often workers that speak maitred's protocol get a PING; one that stops answering gets no connections
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    heartbeat: Option<Duration>,

    /// How often a worker that sends WATCHDOG=1 must send it, or be killed (WATCHDOG_USEC)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    watchdog: Option<Duration>,

    /// Replace a worker after this many connections, less up to a tenth at random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_connections: Option<u64>,

    /// Replace a worker of this age, less up to a tenth at random
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,

    /// Replace a worker that has grown to this size (512M, 1G), less up to a tenth at random
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_rss: Option<u64>,

    /// Failures of a slot within --restart-window after which it is left alone
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_restarts: u32,

    /// The time in which failures are counted
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    restart_window: Duration,

    /// Exit codes with which a worker that has served ends as it should, as in 0,64: another one follows, and no failure
    /// is counted
    #[arg(long, value_name = "N,…")]
    exit_codes: Option<ExitCodes>,

    /// How long to go on serving after TERM while `status --ready` says no, so that a load balancer notices
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration)]
    stop_delay: Duration,

    /// Which processes of a worker get its signals: its whole process group; only the first, and the rest is killed when
    /// that has ended (mixed); or only the first, and the rest goes on (process)
    #[arg(long, value_enum, value_name = "MODE", default_value = "group")]
    kill_mode: KillMode,

    /// How long an open connection must have been silent after an answer so that a leaving worker gets its stop signal
    /// anyway; 0 for never
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    idle_after: Duration,

    /// Send a leaving worker its stop signal at once, because it answers what it has and then ends; auto knows some
    /// servers
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto", default_missing_value = "signal", num_args = 0..=1, require_equals = true)]
    stop_first: StopFirst,

    /// Let jobs that workers detached (a session of their own, none of our sockets) continue when this ends
    #[arg(long)]
    leave_children: bool,
}

impl LifeArgs {
    /// How many workers there may be, from the first number to the second.
    pub fn range(&self, (min, max): (u32, u32)) -> Range {
        Range { min, max, step: self.max_surge.max(1), down_after: self.scale_down_after }
    }

    /// What asks for a reload by itself; `own` are files that this process writes.
    ///
    /// # Errors
    /// When there is no working directory, to which a path is relative.
    pub fn triggers(&self, own: impl Iterator<Item = PathBuf>) -> Result<Triggers, String> {
        let absolute = |paths: Vec<PathBuf>| {
            let paths: Result<Vec<_>, _> = paths.iter().map(std::path::absolute).collect();
            paths.map_err(|error| error.to_string())
        };
        let (watch, own) = (absolute(self.watch.clone())?, absolute(own.collect())?);
        let (ignore, times) = (self.watch_ignore.clone(), self.restart_cron.clone());
        Ok(Triggers { watch, ignore, own, delay: self.watch_delay, times })
    }

    /// The settings that these options mean.
    ///
    /// # Errors
    /// What cannot be carried out, in words.
    pub fn meant(self) -> Result<Life, String> {
        if self.max_surge == 0 && self.max_unavailable == 0 {
            return Err("with --max-surge 0 and --max-unavailable 0 no worker could ever be replaced".to_owned());
        }
        let given = |time: Duration| (!time.is_zero()).then_some(time);
        let positive = |name, time: Option<Duration>| match time {
            Some(Duration::ZERO) => Err(format!("--{name} 0 makes no sense; leave it out instead")),
            time => Ok(time),
        };
        let probing = match self.probe {
            Some(_) if self.probe_interval.is_zero() || self.probe_timeout.is_zero() => {
                return Err("--probe-interval and --probe-timeout must be longer than 0".to_owned());
            }
            probe => probe.map(|probe| Probing {
                probe,
                interval: self.probe_interval,
                timeout: self.probe_timeout,
                rise: self.probe_rise,
                fall: self.probe_fall,
            }),
        };
        Ok(Life {
            ready: self.ready,
            boot_timeout: positive("boot-timeout", Some(self.boot_timeout))?.unwrap_or_default(),
            max_surge: self.max_surge,
            max_unavailable: self.max_unavailable,
            stall: given(self.stall),
            stall_kill: given(self.stall_kill),
            probing,
            heartbeat: positive("heartbeat", self.heartbeat)?,
            watchdog: positive("watchdog", self.watchdog)?,
            max_connections: self.max_connections,
            max_age: positive("max-age", self.max_age)?,
            max_rss: self.max_rss,
            max_restarts: self.max_restarts,
            restart_window: self.restart_window,
            min_ready: self.min_ready,
            exit_codes: self.exit_codes.unwrap_or_default(),
            stop_delay: self.stop_delay,
            kill_mode: self.kill_mode,
            idle_after: given(self.idle_after),
            stop_first: self.stop_first,
            detached: if self.leave_children { Detached::Stay } else { Detached::End },
        })
    }
}
