//! `bind` and `listen` of a supervised worker: the same as the shim's packets, seen from outside the worker.

use super::answer::Answer;
use super::event::Deferred;
use crate::core::ids::WorkerId;
use crate::front::handoff::Handoff;
use crate::master::run::Master;
use crate::sys::dispose::Foreign;
use crate::sys::fd;
use crate::sys::foreign;
use crate::sys::rights::Asker;
use crate::sys::seccomp::{Call, Name, OnExec};
use crate::sys::socket::listen;
use crate::wire::address::Address;
use crate::wire::packet::{AnswerTo, Holder, Listen, Otherwise, Ownership, RequestId, ToWorker, Via};
use crate::wire::peer::PEER_MAX;
use crate::workers::supervised::Supervised;
use crate::workers::supervised::names::{address_of, name_bytes};
use crate::workers::supervised::own_socket::{OwnSocket, ephemeral_address};
use crate::workers::supervised::socket::{HandoffSocket, Known};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// What the kernel is to do with a call.
pub(super) enum Verdict {
    /// Carry it out as if it were not supervised.
    Pass,
    /// Return this.
    Return(Result<i64, Errno>),
    /// Wait until a socket is closed that was given up lately, then try again.
    Wait,
}

impl From<io::Error> for Verdict {
    fn from(error: io::Error) -> Verdict {
        Verdict::Return(Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))))
    }
}

impl Master {
    /// A worker calls `bind` or `listen` and waits.
    pub(in crate::master) async fn called(&mut self, id: WorkerId, call: Call) {
        let Some(supervised) = self.workers.get(id).and_then(|worker| worker.supervised.clone()) else { return };
        if self.must_look_first_at(id, &call) {
            return self.look_first(id, Deferred::Called(call));
        }
        let verdict = match call.name {
            Name::Bind => self.bind_called(id, &supervised, &call),
            Name::Listen => self.listen_called(id, &supervised, &call).await,
            Name::Accept | Name::Accept4 | Name::GetSockName | Name::GetSockOpt => Verdict::Pass,
        };
        match verdict {
            Verdict::Pass => supervised.notifier().pass(&call),
            Verdict::Return(result) => supervised.notifier().answer(&call, result),
            Verdict::Wait => self.wait_for_close(id, Deferred::Called(call)),
        }
    }

    fn bind_called(&mut self, id: WorkerId, supervised: &Supervised, call: &Call) -> Verdict {
        // The length is an int. The kernel itself refuses one that is longer than any address.
        let Some(length) = usize::try_from(call.args[2] as i32).ok().filter(|length| *length <= PEER_MAX) else {
            return Verdict::Pass;
        };
        let mut bytes = vec![0; length];
        if let Err(error) = foreign::read_memory(call.thread, call.args[1], &mut bytes) {
            return match error.raw_os_error() {
                Some(libc::EPERM | libc::ENOSYS) => Verdict::Pass,
                _ => Verdict::Return(Err(Errno::EFAULT)),
            };
        }
        let directory = || foreign::working_directory(call.thread).ok();
        let Some((address, _)) = address_of(&bytes, directory) else { return Verdict::Pass };
        let Ok(Some(inode)) = foreign::socket_inode(call.thread, call.descriptor()) else { return Verdict::Pass };
        let Some(own) = OwnSocket::of(call) else {
            return self.datagram_bind_called(id, supervised, call, &address, inode);
        };
        let asker = Asker::of_thread(call.thread);
        // All of the above is about this call only if it still waits.
        if !supervised.notifier().waits(call) {
            return Verdict::Pass;
        }
        let ask = asking(address.clone(), supervised.next_request());
        if self.workers.get(id).is_some_and(|worker| !address.is_ephemeral() && self.is_private(worker, &ask)) {
            return Verdict::Pass;
        }
        if let Some(known) = supervised.take_known(inode) {
            // Called again because a signal came in between. The first call did everything.
            supervised.remember(inode, known);
            return Verdict::Return(Ok(0));
        }
        let asker = match asker {
            Ok(asker) => asker,
            Err(error) => return error.into(),
        };
        if let Err(error) = self.may(&asker, &address) {
            self.refused(id, &address, &error);
            return error.into();
        }
        self.forget_closed(id);
        self.make_way(&address);
        if self.must_wait_for_close(id, &address) {
            return Verdict::Wait;
        }
        match (&address, own) {
            // The kernel chooses the port. Whether the socket is a listener shows when the worker calls `listen`.
            (address, own) if address.is_ephemeral() => {
                if let OwnSocket::OutOfReach = own {
                    supervised.remember(inode, Known::Bound(address.clone()));
                }
                Verdict::Pass
            }
            (Address::Tcp(_), OwnSocket::Copy(own)) if !self.front.listeners.serves(&address) => {
                if let Err(error) = listen::claim(&own, &address, self.front.listeners.sharing(&address)) {
                    self.refused(id, &address, &error);
                    return error.into();
                }
                supervised.remember(inode, Known::Bound(address));
                Verdict::Return(Ok(0))
            }
            (Address::Tcp(_), own) => {
                // The master's socket is in place from now on, so that the worker sees its name and its readiness.
                let asked = self.ask_for(id, supervised, &address, own.copy(), None, &asker);
                match asked.and_then(|prepared| self.install(id, supervised, call, prepared, inode)) {
                    Ok((request, inode)) => {
                        supervised.remember(inode, Known::Prepared { request, socket: None });
                        Verdict::Return(Ok(0))
                    }
                    Err(error) => error.into(),
                }
            }
            (Address::Unix(_) | Address::Abstract(_), own) => {
                match self.ask_for(id, supervised, &address, own.copy(), foreign::umask(call.thread).ok(), &asker) {
                    Ok(prepared) => {
                        supervised.remember(inode, prepared);
                        Verdict::Return(Ok(0))
                    }
                    Err(error) => error.into(),
                }
            }
        }
    }

    /// Asks for an address on behalf of the worker.
    fn ask_for(
        &mut self,
        id: WorkerId,
        supervised: &Supervised,
        address: &Address,
        own: Option<Foreign>,
        umask: Option<u32>,
        asker: &Asker,
    ) -> io::Result<Known> {
        self.forget_closed(id);
        let request = supervised.next_request();
        let asked = Listen { umask, ..asking(address.clone(), request) };
        match self.serve_request(id, &asked, own, asker) {
            Ok(Answer { message: ToWorker::Listening { via, ownership, .. }, mut fds }) => {
                let is_the_listener = via == Via::Shared && ownership == Ownership::Adopted;
                Ok(Known::Prepared { request, socket: fds.pop().filter(|_| !is_the_listener) })
            }
            Ok(_) => Err(Errno::EINVAL.into()),
            Err(error) => {
                self.refused(id, address, &error);
                Err(error)
            }
        }
    }

    async fn listen_called(&mut self, id: WorkerId, supervised: &Rc<Supervised>, call: &Call) -> Verdict {
        let Ok(Some(inode)) = foreign::socket_inode(call.thread, call.descriptor()) else { return Verdict::Pass };
        let asker = Asker::of_thread(call.thread);
        if !supervised.notifier().waits(call) {
            return Verdict::Pass;
        }
        // As the kernel takes it: a negative backlog is the longest.
        let backlog = call.args[1] as u32;
        let known = supervised.take_known(inode).map(|known| self.opened_again(id, known));
        if known.is_none()
            && let Some(request) = supervised.copy_of(inode)
        {
            return match self.install_beside(id, supervised, call, request, inode) {
                Ok(()) => self.now_accepting(id, request, backlog).await,
                Err(error) => error.into(),
            };
        }
        let bound = if let Some(Known::Bound(address)) = &known { Some(address.clone()) } else { None };
        let prepared = match known {
            Some(Known::Listening { request }) => {
                supervised.remember(inode, Known::Listening { request });
                return self.now_accepting(id, request, backlog).await;
            }
            Some(prepared @ Known::Prepared { .. }) => Ok(prepared),
            Some(Known::Bound(address)) => {
                let ask = asking(address.clone(), supervised.next_request());
                if self.workers.get(id).is_some_and(|worker| self.is_private(worker, &ask)) {
                    return Verdict::Pass;
                }
                let own = OwnSocket::of(call).and_then(OwnSocket::copy);
                asker.and_then(|asker| self.ask_for(id, supervised, &address, own, None, &asker))
            }
            None => {
                let Some(own) = OwnSocket::of(call).and_then(OwnSocket::copy) else { return Verdict::Pass };
                let Some(address) = ephemeral_address(&own) else { return Verdict::Pass };
                let real = listen::local_address_of(own.as_fd()).unwrap_or_else(|_| address.clone());
                let private = |address: Address| {
                    let ask = asking(address, supervised.next_request());
                    self.workers.get(id).is_some_and(|worker| self.is_private(worker, &ask))
                };
                if private(address.clone()) || private(real) {
                    return Verdict::Pass;
                }
                asker.and_then(|asker| self.ask_for(id, supervised, &address, Some(own), None, &asker))
            }
        };
        let own_inode = inode;
        let installed = prepared.and_then(|prepared| self.install(id, supervised, call, prepared, inode));
        match installed {
            Ok((request, inode)) => {
                supervised.remember(inode, Known::Listening { request });
                // Other processes may have the worker's own socket. They mean the same request by it.
                supervised.remember_copy(own_inode, request);
                self.now_accepting(id, request, backlog).await
            }
            Err(error) => {
                // If the call was interrupted in the middle, the worker will listen again.
                if let Some(address) = bound {
                    supervised.remember(inode, Known::Bound(address));
                }
                error.into()
            }
        }
    }

    /// A hand-off socket that the worker has shut down is of no use any more: it listens as if it had just bound its
    /// address.
    fn opened_again(&mut self, id: WorkerId, known: Known) -> Known {
        let Known::Listening { request } = known else { return known };
        let asked = self.workers.get(id).and_then(|worker| worker.requests.iter().find(|r| r.id == request));
        let handoff = asked.and_then(|asked| Some((asked.address.clone(), asked.handoff.as_ref()?)));
        let shut = handoff.filter(|(_, handoff)| fd::is_hung_up(handoff.receiver())).map(|(address, _)| address);
        match shut {
            Some(address) => {
                self.close(id, request);
                Known::Bound(address)
            }
            None => known,
        }
    }

    /// Puts the master's socket also in place of a copy of the worker's own socket, which another process inherited
    /// before the worker's own was replaced.
    fn install_beside(
        &self,
        id: WorkerId,
        supervised: &Supervised,
        call: &Call,
        request: RequestId,
        inode: u64,
    ) -> io::Result<()> {
        let Some(worker) = self.workers.get(id) else { return Ok(()) };
        let Some(asked) = worker.requests.iter().find(|asked| asked.id == request) else { return Ok(()) };
        let socket = match (&asked.handoff, &asked.listener.group) {
            (Some(handoff), _) => handoff.receiver().try_clone_to_owned()?,
            (None, Some(group)) => group.socket_of(worker.slot)?.as_fd().try_clone_to_owned()?,
            (None, None) => match asked.listener.socket() {
                Some(socket) => socket.as_fd().try_clone_to_owned()?,
                None => return Ok(()),
            },
        };
        if fd::inode(socket.as_fd())? != inode {
            self.put_in_place(id, supervised, call, request, &socket, inode)?;
        }
        Ok(())
    }

    async fn now_accepting(&mut self, id: WorkerId, request: RequestId, backlog: u32) -> Verdict {
        match self.accepting(id, request, Some(backlog)) {
            Ok(entered) => {
                if let Some(entered) = entered {
                    self.listens(id, entered).await;
                }
                Verdict::Return(Ok(0))
            }
            Err(error) => error.into(),
        }
    }

    /// Puts the master's socket in place of the worker's, with the same flags. Returns its inode.
    fn install(
        &mut self,
        id: WorkerId,
        supervised: &Supervised,
        call: &Call,
        prepared: Known,
        own_inode: u64,
    ) -> io::Result<(RequestId, u64)> {
        let (request, socket) = match prepared {
            Known::Prepared { request, socket: Some(socket) } => (request, socket),
            Known::Prepared { request, socket: None } => return Ok((request, own_inode)),
            Known::Bound(_) | Known::Listening { .. } => return Err(Errno::EINVAL.into()),
        };
        let installed = self.put_in_place(id, supervised, call, request, &socket, own_inode);
        if installed.is_err() {
            // As if the worker had not asked. It will ask again.
            self.close(id, request);
        }
        installed.map(|inode| (request, inode))
    }

    fn put_in_place(
        &self,
        id: WorkerId,
        supervised: &Supervised,
        call: &Call,
        request: RequestId,
        socket: &OwnedFd,
        own_inode: u64,
    ) -> io::Result<u64> {
        let inode = fd::inode(socket.as_fd())?;
        let protocol = foreign::protocol(call.thread, call.descriptor()).unwrap_or_default();
        let worker = self.workers.get(id).ok_or(Errno::ESRCH)?;
        let asked = worker.requests.iter().find(|asked| asked.id == request).ok_or(Errno::ESRCH)?;
        if let Some(handoff) = &asked.handoff {
            let family = match protocol.as_str() {
                "TCPv6" | "MPTCPv6" => libc::AF_INET6,
                unix if unix.starts_with("UNIX") => libc::AF_UNIX,
                _ => libc::AF_INET,
            } as u16;
            let name = name_bytes(&asked.listener.address, family);
            let socket = Rc::new(HandoffSocket::new(Rc::<Handoff>::clone(handoff), name, family));
            // Copies that the worker made of its own socket mean the same.
            supervised.open(own_inode, Rc::clone(&socket));
            supervised.open(inode, socket);
        }
        put_with_its_flags(supervised, call, socket)?;
        Ok(inode)
    }
}

/// Puts a socket in place of the one that a call is about, with the same flags.
pub(super) fn put_with_its_flags(supervised: &Supervised, call: &Call, socket: &OwnedFd) -> io::Result<()> {
    let flags = foreign::flags(call.thread, call.descriptor())?;
    let on_exec = if flags & libc::O_CLOEXEC != 0 { OnExec::Close } else { OnExec::Keep };
    // Others may share it, and their choice must not be undone.
    if flags & libc::O_NONBLOCK != 0 {
        socket2::SockRef::from(socket).set_nonblocking(true)?;
    }
    supervised.notifier().put(call, socket.as_fd(), call.descriptor(), on_exec)
}

/// The request for an address that a supervised worker would bind by itself.
fn asking(address: Address, id: RequestId) -> Listen {
    let (answer, otherwise, holder) = (AnswerTo::Sender, Otherwise::BindsItself, Holder::Unknown);
    Listen { address, id, answer, umask: None, otherwise, holder }
}
