//! Bringing unmodified programs in: look at the executable, then choose how.

pub mod inspect;
pub mod preload;

use crate::config::{Adapter, Config, Mode};
use inspect::{Executable, Linkage};
use std::path::PathBuf;

/// How a worker takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// No libc, no `LD_PRELOAD`.
    #[error(
        "cannot load the shim into {}: it is statically linked; leave --adapter at auto, or use --adapter seccomp",
        .0.display()
    )]
    Static(PathBuf),
    /// The loader ignores `LD_PRELOAD` there.
    #[error(
        "cannot bring {} in: it is setuid or setgid, so the loader ignores the shim; run it as its user, or use \
         --adapter native if it speaks maitred's protocol",
        .0.display()
    )]
    Setuid(PathBuf),
    /// 32-bit, or another processor's.
    #[error(
        "cannot bring {} in: it is built for another machine than maitred (32-bit, or another processor), so the shim \
         does not fit; use a {} build",
        .0.display(), std::env::consts::ARCH
    )]
    OtherMachine(PathBuf),
    /// Descriptors can be inherited only if they exist before the worker.
    #[error(
        "--adapter inherit passes listening sockets to the worker: it needs --mode shared or kernel and at least one --bind"
    )]
    NothingToInherit,
}

/// Chooses the adapter; the text says why.
///
/// # Errors
/// [`AdaptError`] when the command cannot take part in the way that is asked for.
pub fn choose(config: &Config, executable: &Executable) -> Result<(Chosen, String), AdaptError> {
    let can_inherit = config.mode != Mode::Handoff && !config.bind.is_empty();
    match config.adapter {
        Adapter::Native => Ok((Chosen::Native, "asked for".to_owned())),
        Adapter::Seccomp => Ok((Chosen::Seccomp, "asked for".to_owned())),
        Adapter::Inherit if can_inherit => Ok((Chosen::Inherit, "asked for".to_owned())),
        Adapter::Inherit => Err(AdaptError::NothingToInherit),
        Adapter::Auto | Adapter::Preload => match &executable.linkage {
            Linkage::Dynamic { loader } => Ok((Chosen::Preload, format!("dynamically linked, loaded by {loader}"))),
            Linkage::Unknown => Ok((Chosen::Preload, "no ELF file, so presumably run by one that is dynamic".into())),
            Linkage::Static if config.adapter == Adapter::Preload => Err(AdaptError::Static(executable.path.clone())),
            Linkage::Static => Ok((Chosen::Seccomp, "statically linked, so its system calls are supervised".into())),
            Linkage::Setuid => Err(AdaptError::Setuid(executable.path.clone())),
            Linkage::OtherMachine => Err(AdaptError::OtherMachine(executable.path.clone())),
        },
    }
}
