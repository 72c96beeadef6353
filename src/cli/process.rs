//! The options of `run` for the workers' processes.

use crate::config::process::{self, Cores, Process};
use crate::sys::process::attributes::{Attributes, Gains, Limit};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(next_help_heading = "Processes of the workers")]
pub struct ProcessArgs {
    /// Run the workers as this user, by name or number, with all its groups; the master stays what it is
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// The workers' group, by name or number; that of the user by default
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,

    /// What files that workers make may not be, as in 027
    #[arg(long, value_name = "MASK", value_parser = process::umask)]
    umask: Option<libc::mode_t>,

    /// Limit a resource of each worker: nofile=65536, core=0, as=2G, nofile=1024:65536 (soft and hard); names are those
    /// of prlimit(1); may be given several times
    #[arg(long, value_name = "NAME=N", value_parser = process::limit)]
    rlimit: Vec<Limit>,

    /// The workers' nice value, -20 (first) to 19 (last)
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    nice: Option<i32>,

    /// Keep each slot on one core: auto takes those that the master may use in turn, a list these, as in 0-3,8
    #[arg(long, value_name = "LIST")]
    cpu_affinity: Option<Cores>,

    /// How soon the kernel kills a worker when memory runs out: -1000 (never) to 1000 (first)
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adjust: Option<i32>,

    /// The workers' root directory; the command and --cwd are looked for inside
    #[arg(long, value_name = "DIR", value_parser = process::root)]
    chroot: Option<PathBuf>,

    /// Workers, and what they start, can never gain rights by executing a setuid file
    #[arg(long)]
    no_new_privileges: bool,
}

impl ProcessArgs {
    /// What these options mean.
    ///
    /// # Errors
    /// Which user or group there is not.
    pub fn meant(self) -> Result<Process, String> {
        let user = process::user(self.user.as_deref(), self.group.as_deref()).map_err(|error| error.to_string())?;
        let attributes = Attributes {
            user,
            umask: self.umask,
            limits: self.rlimit,
            nice: self.nice,
            core: None,
            oom_score_adjust: self.oom_score_adjust,
            root: self.chroot,
            gains: if self.no_new_privileges { Gains::Never } else { Gains::Possible },
        };
        Ok(Process { attributes, cores: self.cpu_affinity })
    }
}
