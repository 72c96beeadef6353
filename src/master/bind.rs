//! What is bound before the first worker starts: the control socket, the addresses of `--bind`, and
//! those that a service manager passed.

use super::error::RunError;
use super::steering;
use crate::config::bind::Bind;
use crate::config::{Config, Control, Mode, Named};
use crate::control::server::{ControlError, ControlSocket};
use crate::core::ids::Slot;
use crate::front::common::Common;
use crate::front::listener::{HeldBy, Key, Listener, Origin};
use crate::front::listeners::Listeners;
use crate::kernel::order::Share;
use crate::lifecycle::failures::Failure;
use crate::sys::socket::inherited::Inherited;
use crate::sys::socket::listen::{self, BACKLOG, Sharing};
use crate::wire::address::Address;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tracing::{info, warn};

/// Takes the control socket. If the name only comes from the command, a second server that the same interpreter runs is
/// not refused: it gets a number.
///
/// # Errors
/// [`ControlError`], unless the master can do without the socket.
pub fn bind_control(config: &mut Config) -> Result<Option<ControlSocket>, RunError> {
    let path = match &config.control {
        Control::Explicit(path) => return Ok(Some(ControlSocket::bind(&config.name, path, config.access)?)),
        Control::Usual(path) => path.clone(),
    };
    let mut bound = ControlSocket::bind(&config.name, &path, config.access);
    for number in 2..=NAMESAKES_MAX {
        match bound {
            Err(ControlError::Taken { .. }) if config.named == Named::ByCommand => {
                let name = format!("{}-{number}", config.name);
                bound = ControlSocket::bind(&name, &path.with_file_name(format!("{name}.sock")), config.access);
                if bound.is_ok() {
                    info!(name, "another maitred has the name of this command; taking the next");
                    config.name = name;
                    break;
                }
            }
            _ => break,
        }
    }
    if let Ok(socket) = &bound
        && config.access.is_shared()
        && let Err(error) = socket.open_directory()
    {
        warn!(path = %path.display(), %error, "other users cannot reach the control socket; check its directory");
    }
    match bound {
        Ok(socket) => Ok(Some(socket)),
        Err(
            error @ (ControlError::Io { .. }
            | ControlError::Directory(_)
            | ControlError::Occupied { .. }
            | ControlError::Locked(_)),
        ) => {
            warn!(path = %path.display(), %error, "no control socket; status and other commands will not reach this maitred");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Masters that may run with the same command's name.
const NAMESAKES_MAX: u32 = 100;

/// Binds what `--bind` asks for and what a service manager passed.
pub fn bind_all(
    config: &Config,
    mut inherited: Inherited,
    listeners: &mut Listeners,
    common: &Rc<Common>,
) -> Result<(), RunError> {
    let sharing = match config.mode {
        Mode::Kernel => Sharing::Group,
        Mode::Handoff | Mode::Shared => Sharing::Alone,
    };
    let stored = inherited.stored();
    // Those that an earlier master had come first: clients wait there already.
    let bound = |address: &Address, bind: &dyn Fn() -> io::Result<socket2::Socket>| {
        stored.take(address, sharing).map_or_else(|| patiently(bind), Ok)
    };
    let bound_to = |address: &Address| bound(address, &|| listen::bind(address, sharing));
    let share = |slot| Share { slot, weight: config.weights.of(Slot(slot)) };
    let shares: Vec<Share> = (0..config.workers).map(share).collect();
    let mut add = |address: &Address, made: io::Result<socket2::Socket>, file: FileOf| {
        let shown = address.to_string().trim_start_matches("tcp:").to_owned();
        let fail = |source| Failure::Bind { address: shown.clone(), source };
        let socket = made.map_err(fail)?;
        let index = listeners.iter().filter(|l| l.key.asked == *address).count();
        let key = Key { asked: address.clone(), index };
        let mut listener = Listener::new(key, socket, Origin::Operator, Rc::clone(common)).map_err(fail)?;
        listener.held_by.set(if file == FileOf::Manager { HeldBy::Manager } else { HeldBy::Master });
        match (listeners.sharing(address), file) {
            (Sharing::Group, FileOf::Nobody) => {
                listener.begin_group(Slot(0), listeners.steering());
                listener.backlog.set(BACKLOG);
                let group = listener.group.iter();
                group.into_iter().try_for_each(|group| steering::fill(group, &shares)).map_err(fail)?;
            }
            (_, FileOf::Master) => listener.own_path(),
            (_, FileOf::Manager) if config.mode == Mode::Kernel => {
                warn!(address = %listener.address, "a socket that was passed to maitred cannot be one of many: its workers share it");
            }
            (_, FileOf::Manager | FileOf::Nobody) => {}
        }
        if listener.group.is_none() {
            listener.listen(BACKLOG).map_err(fail)?;
        }
        let listener = listeners.add_bound(listener);
        info!(address = %listener.address, "listening");
        Ok::<(), RunError>(())
    };
    for bind in &config.bind {
        match bind {
            Bind::Any(port) => {
                let v6 = Address::Tcp(([0u16; 8], *port).into());
                match bound_to(&v6) {
                    // A machine without IPv6.
                    Err(e)
                        if e.raw_os_error() == Some(libc::EAFNOSUPPORT)
                            || e.raw_os_error() == Some(libc::EADDRNOTAVAIL) =>
                    {
                        let v4 = Address::Tcp(([0u8; 4], *port).into());
                        add(&v4, bound_to(&v4), FileOf::Nobody)?;
                    }
                    made => add(&v6, made, FileOf::Nobody)?,
                }
            }
            Bind::Tcp(addresses) => {
                for &address in addresses {
                    let address = Address::Tcp(address);
                    add(&address, bound_to(&address), FileOf::Nobody)?;
                }
            }
            Bind::Unix { path, mode } => {
                let address = Address::Unix(path.clone());
                add(&address, bound(&address, &|| listen::bind_unix(path, *mode)), FileOf::Master)?;
            }
            Bind::Abstract(name) => {
                let address = Address::Abstract(name.clone());
                add(&address, bound(&address, &|| listen::bind(&address, Sharing::Alone)), FileOf::Nobody)?;
            }
            Bind::Inherited(number) => {
                let Some(socket) = inherited.remove(*number) else { continue };
                add(&inherited_address(&socket, *number)?, Ok(socket), FileOf::Manager)?;
            }
        }
    }
    for (number, socket) in inherited.rest() {
        add(&inherited_address(&socket, number)?, Ok(socket), FileOf::Manager)?;
    }
    listeners.stored = stored;
    Ok(())
}

/// How often to try again an address that is taken, and the pause between attempts: the workers of a master that was
/// killed a moment ago may still be ending (nginx does the same).
const BIND_ATTEMPTS: u32 = 10;
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Binds, and tries again while an address is about to become free. Nothing runs yet that this could hold up.
fn patiently(bind: impl Fn() -> io::Result<socket2::Socket>) -> io::Result<socket2::Socket> {
    for _ in 0..BIND_ATTEMPTS {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(BIND_PAUSE),
            bound => return bound,
        }
    }
    bind()
}

/// What made the socket, and the file of a Unix socket, and so removes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileOf {
    /// The master, with a file.
    Master,
    /// The master, without one.
    Nobody,
    /// A service manager.
    Manager,
}

/// Where a socket that was passed is bound; the file that it may have is not the master's.
///
/// Connections inherit `SO_REUSEADDR`. While there are any without it, the socket could not listen again after a
/// process shut it down.
fn inherited_address(socket: &socket2::Socket, number: i32) -> Result<Address, Failure> {
    let _ = socket.set_reuse_address(true);
    listen::local_address(socket).map_err(|source| Failure::Bind { address: format!("fd://{number}"), source })
}
