//! Everything that the next program must know, as JSON; descriptors by their numbers.

use crate::adapt::Chosen;
use crate::admin;
use crate::config::Config;
use crate::control::server::{self};
use crate::core::claim::Claim;
use crate::core::fleet::Fleet;
use crate::core::health::Health;
use crate::core::ids::{Generation, Slot, WorkerId};
use crate::core::moment::Moment;
use crate::datagrams;
use crate::front::handoff::passing as handoffs;
use crate::front::listener::passing as listeners;
use crate::front::refused;
use crate::kernel::group;
use crate::master::{pid_file, recorder};
use crate::opens;
use crate::provoked;
use crate::sys::exec::{Kind, Number};
use crate::sys::fd;
use crate::sys::process::guard::{self};
use crate::sys::process::limits;
use crate::sys::rights;
use crate::wire::address::Address;
use crate::wire::packet::RequestId;
use crate::workers::output::{self};
use crate::workers::supervised::{self};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Changes whenever a version could not read what another wrote.
pub const FORMAT: u32 = 1;

/// Longest state that is read.
const STATE_MAX: u64 = 256 << 20;

/// Everything that the next program must know.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    pub format: u32,
    pub version: String,
    pub since: Moment,
    pub upgrades: u32,
    pub name: String,
    /// The working directory as the user named it.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// The text of the configuration file at the start, whose `bind`, `mode` and so on stay.
    pub base_text: Option<String>,
    /// The text of the configuration file in force, of each generation, and of the next.
    pub text: Option<String>,
    pub texts: BTreeMap<Generation, Option<String>>,
    pub next_text: Option<Option<String>>,
    pub fleet: Fleet,
    pub counters: Vec<[u64; 4]>,
    #[serde(default)]
    pub datagrams: Vec<datagrams::Passed>,
    pub accepted_before: u64,
    pub lost: u64,
    #[serde(default)]
    pub refused: refused::Passed,
    #[serde(default)]
    pub refused_returned: u64,
    #[serde(default)]
    pub opens: opens::passing::Passed,
    #[serde(default)]
    pub provoked: provoked::Passed,
    pub descriptors: u64,
    #[serde(default)]
    pub policy: limits::Chosen,
    #[serde(default)]
    pub pid_file: Option<pid_file::Passed>,
    #[serde(default)]
    pub admin: Vec<admin::Passed>,
    #[serde(default)]
    pub recorder: Option<recorder::Passed>,
    pub last_words: Vec<(Slot, String)>,
    pub last_reload: Option<String>,
    pub handoffs: Vec<handoffs::Passed>,
    pub listeners: Vec<PassedListener>,
    pub workers: Vec<PassedWorker>,
    pub streams: Vec<output::Passed>,
    pub guard: guard::Passed,
    #[serde(rename = "door")]
    pub rendezvous: (String, Number),
    pub control: Option<server::Passed>,
    pub shim: Number,
    pub old_shims: Vec<Number>,
    /// The last worker that was started with each. Earlier programs did not write this down.
    #[serde(default)]
    pub old_shims_newest: Vec<WorkerId>,
    #[serde(default)]
    pub earlier: Vec<(i32, u64)>,
    pub taken: Option<Number>,
    pub client: Option<Number>,
    /// What the process may do, and which descriptors it passes on. Earlier programs did not write this down.
    #[serde(default)]
    pub capabilities: u64,
    #[serde(default)]
    pub passed: Vec<Kind>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PassedListener {
    pub served: bool,
    pub listener: listeners::Passed,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PassedWorker {
    pub id: WorkerId,
    pub slot: Slot,
    pub generation: Generation,
    pub pid: i32,
    pub adapter: Chosen,
    pub since: Moment,
    pub token: String,
    #[serde(default)]
    pub channel_inode: u64,
    pub channel: Number,
    pub pidfd: Number,
    pub notify: Number,
    pub notification: Option<Number>,
    pub requests: Vec<PassedRequest>,
    #[serde(default)]
    pub datagrams: Vec<PassedDatagram>,
    pub supervised: Option<supervised::Passed>,
    pub uses_inherited: bool,
    #[serde(default)]
    pub passed: u32,
    #[serde(default)]
    pub listened: bool,
    pub reported: bool,
    pub ready: bool,
    pub admitted: bool,
    pub leaves: bool,
    pub health: Health,
    pub last_words: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PassedRequest {
    pub id: RequestId,
    pub listener: usize,
    pub handoff: Option<usize>,
    pub accepting: bool,
    pub own: Option<Number>,
    #[serde(default)]
    pub address: Option<Address>,
    #[serde(default)]
    pub claim: Claim,
    #[serde(default)]
    pub holders: Vec<Number>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PassedDatagram {
    pub id: RequestId,
    pub address: SocketAddr,
    pub claim: Claim,
    pub holders: Vec<Number>,
}

/// A state that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The descriptor is not there, or cannot be read.
    #[error("cannot read the state of the old binary: {0}")]
    Read(#[from] io::Error),
    /// This version does not understand it.
    #[error("cannot understand the state of the old binary: {0}")]
    Understand(#[from] serde_json::Error),
    /// It says that it is of another format.
    #[error("the state of the old binary has format {found}, and this version knows {FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
}

/// Reads the state at a descriptor.
///
/// # Errors
/// [`StateError`].
pub fn read(number: i32) -> Result<State, StateError> {
    let mut text = Vec::new();
    let file = std::fs::File::from(fd::inherited(number)?);
    // The file offset is shared with the writer, so reading starts at the beginning.
    io::Seek::rewind(&mut &file)?;
    file.take(STATE_MAX).read_to_end(&mut text)?;
    understand(&text)
}

/// Understands the state's text.
pub(crate) fn understand(text: &[u8]) -> Result<State, StateError> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    let OnlyFormat { format } = serde_json::from_slice(text)?;
    if format != FORMAT {
        return Err(StateError::Format { found: format });
    }
    Ok(serde_json::from_slice(text)?)
}

impl State {
    /// Whether this process has what the old program passes on, and all its privileges: those that a file gives
    /// (`setcap(8)`) are those of the new file.
    ///
    /// # Errors
    /// Why not.
    pub fn is_here(&self) -> Result<(), String> {
        let missing = self.capabilities & !rights::own_capabilities().map_err(|error| error.to_string())?;
        if missing > 0 {
            let names = (0..u64::BITS).filter(|bit| missing >> bit & 1 == 1).map(rights::capability_name);
            let names = names.collect::<Vec<_>>().join(",");
            return Err(format!(
                "the new binary would run without {names}, which this process has; give them to the file with setcap"
            ));
        }
        self.passed.iter().try_for_each(Kind::is_here).map_err(|error| format!("not everything is passed on: {error}"))
    }

    /// Whether this program could go on from here, as far as that can be known before it does. `config` is
    /// what the text in force says.
    ///
    /// # Errors
    /// Why not.
    pub fn is_understood(&self, config: &Config) -> Result<(), String> {
        let made = |text: &Option<String>| (config.source.make)(text.clone()).map(drop);
        made(&self.base_text)?;
        self.texts.values().chain(&self.next_text).try_for_each(made)?;
        let groups = self.listeners.iter().filter_map(|passed| passed.listener.group());
        match groups.into_iter().all(group::Passed::is_understood) {
            true => Ok(()),
            false => Err("the steering program of the old version is another one".to_owned()),
        }
    }

    /// Puts back what cannot change while a master runs.
    pub fn keep_base(&self, config: &mut Config) -> Result<(), String> {
        let base = (config.source.make)(self.base_text.clone())?;
        config.keep_from(&base);
        config.control = base.control;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
