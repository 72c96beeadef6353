//! Makes unmodified programs take part: inspects the executable, then chooses an adapter.

pub mod daemons;
pub mod draining;
pub mod elf;
pub mod inspect;
pub mod preload;
pub mod preset;
pub mod wrappers;

use crate::config::preset::Preset;
use crate::config::{Adapter, Config, Mode};
use inspect::{Executable, Linkage, Privilege};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How a worker takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chosen {
    /// The shim is loaded before libc.
    Preload,
    /// Its system calls are supervised.
    Seccomp,
    /// Listening descriptors from 3 upwards.
    Inherit,
    /// The worker speaks the protocol.
    Native,
}

impl Chosen {
    /// The adapter's name in `status` and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Chosen::Preload => "preload",
            Chosen::Seccomp => "seccomp",
            Chosen::Inherit => "inherit",
            Chosen::Native => "native",
        }
    }
}

/// Why a command cannot take part.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AdaptError {
    /// There is no libc that a shim could intercept.
    #[error(
        "cannot load the shim into {}: {}; leave --adapter at auto, or use --adapter seccomp", .0.display(), .1
    )]
    NoLibc(PathBuf, &'static str),
    /// The loader ignores `LD_PRELOAD` for this program.
    #[error(
        "cannot bring {} in: it is setuid or setgid, so the loader ignores the shim; run maitred as its user, or use \
         --adapter native if it speaks maitred's protocol",
        .0.display()
    )]
    SetUid(PathBuf),
    /// The same, for another reason.
    #[error(
        "cannot bring {} in: its file has capabilities, so the loader ignores the shim; take them away (setcap -r) and \
         give them to maitred instead, which binds for its workers",
        .0.display()
    )]
    Capabilities(PathBuf),
    /// A wrapper that depends on its own privileges, which supervision would take away.
    #[error(
        "cannot bring {} in: {} takes the shim out of its environment; run maitred itself as that user, or as root \
         with setpriv or runuser -u before the command",
        .0.display(), .1
    )]
    Environment(PathBuf, String),
    /// A 32-bit program, or one for another processor.
    #[error(
        "cannot bring {} in: it is built for another machine than maitred (32-bit, or another processor), so the shim \
         does not fit; use a {} build, or --mode shared or kernel with --bind and --adapter inherit",
        .0.display(), std::env::consts::ARCH
    )]
    OtherMachine(PathBuf),
    /// The loader would not find the shim.
    #[error(
        "the shim is not in the workers' root directory (--chroot); leave --adapter at auto, or use --adapter seccomp"
    )]
    Root,
    /// Descriptors can be inherited only if they exist before the worker does.
    #[error(
        "{0} passes listening sockets to the worker: it needs --mode shared or kernel and at least one --bind (fd://3 for a socket that a service manager passes)"
    )]
    NothingToInherit(&'static str),
}

/// What determines the adapter of a worker, besides its executable.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// `--adapter`.
    pub adapter: Adapter,
    /// `--preset`.
    pub preset: Option<Preset>,
    /// `--mode`.
    pub mode: Mode,
    /// Whether a `--bind` is given.
    pub bound: bool,
    /// Where it looks for files.
    pub root: Root,
}

impl From<&Config> for Circumstances {
    fn from(config: &Config) -> Circumstances {
        let bound = !config.bind.is_empty();
        let root = config.process.root().map_or(Root::Ours, |_| Root::ItsOwn);
        Circumstances { adapter: config.adapter, preset: config.preset, mode: config.mode, bound, root }
    }
}

/// The root directory of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// That of the master.
    Ours,
    /// Another one (`--chroot`), in which there is no shim.
    ItsOwn,
}

/// Chooses the adapter; the text gives the reason.
///
/// # Errors
/// [`AdaptError`] when the command cannot take part in the requested way.
pub fn choose(given: Circumstances, executable: &Executable) -> Result<(Chosen, String), AdaptError> {
    let can_inherit = given.mode != Mode::Handoff && given.bound;
    let program = || executable.program.clone();
    let because = |what: &str| match executable.through.as_slice() {
        [] => what.to_owned(),
        through => format!("{} behind {}, {what}", executable.program.display(), through.join(" and ")),
    };
    let dropped = executable.drops_environment.clone();
    let chosen = match (given.adapter, &executable.linkage) {
        (Adapter::Auto | Adapter::Inherit, _) if given.preset.is_some() && can_inherit => {
            (Chosen::Inherit, "a preset was asked for".to_owned())
        }
        (Adapter::Auto | Adapter::Inherit, _) if given.preset.is_some() => {
            return Err(AdaptError::NothingToInherit("--preset"));
        }
        (Adapter::Native, _) => (Chosen::Native, "asked for".to_owned()),
        (Adapter::Seccomp, _) => (Chosen::Seccomp, "asked for".to_owned()),
        (Adapter::Inherit, _) if can_inherit => (Chosen::Inherit, "asked for".to_owned()),
        (Adapter::Inherit, _) => return Err(AdaptError::NothingToInherit("--adapter inherit")),
        (Adapter::Preload, _) if given.root == Root::ItsOwn => return Err(AdaptError::Root),
        (Adapter::Auto, Linkage::Dynamic { .. } | Linkage::Unknown) if given.root == Root::ItsOwn => {
            (Chosen::Seccomp, because("in a root directory where there is no shim, so its system calls are supervised"))
        }
        (Adapter::Preload, Linkage::Static) => return Err(AdaptError::NoLibc(program(), "it is statically linked")),
        (Adapter::Preload, Linkage::OwnCalls) => {
            return Err(AdaptError::NoLibc(program(), "it is a Go program, which makes its system calls itself"));
        }
        (Adapter::Auto, Linkage::Dynamic { .. }) if dropped.is_some() => {
            let wrapper = dropped.unwrap_or_default();
            if wrapper != "env" && !nix::unistd::geteuid().is_root() {
                return Err(AdaptError::Environment(program(), wrapper));
            }
            let what = format!("{wrapper} takes the shim out of its environment, so its system calls are supervised");
            (Chosen::Seccomp, because(&what))
        }
        (Adapter::Auto | Adapter::Preload, Linkage::Dynamic { loader }) => {
            (Chosen::Preload, because(&format!("dynamically linked, loaded by {loader}")))
        }
        (Adapter::Auto | Adapter::Preload, Linkage::Unknown) => {
            (Chosen::Preload, because("no ELF file, so presumably run by one that is dynamic"))
        }
        (Adapter::Auto, Linkage::Static) => {
            (Chosen::Seccomp, because("statically linked, so its system calls are supervised"))
        }
        (Adapter::Auto, Linkage::OwnCalls) => (
            Chosen::Seccomp,
            because(
                "a Go program, which makes its system calls itself although it has a loader, so they are supervised",
            ),
        ),
        (Adapter::Auto, Linkage::Privileged(_)) if nix::unistd::geteuid().is_root() => {
            (Chosen::Seccomp, because("setuid, so the loader ignores a shim, and its system calls are supervised"))
        }
        (_, Linkage::Privileged(Privilege::SetUid)) => return Err(AdaptError::SetUid(program())),
        (_, Linkage::Privileged(Privilege::Capabilities)) => return Err(AdaptError::Capabilities(program())),
        (Adapter::Auto, Linkage::OtherMachine) if can_inherit => {
            (Chosen::Inherit, because("built for another machine, so it can only inherit its sockets"))
        }
        (_, Linkage::OtherMachine) => return Err(AdaptError::OtherMachine(program())),
    };
    Ok(chosen)
}
