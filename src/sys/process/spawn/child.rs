//! Between `fork` and `exec`: only async-signal-safe calls, on memory that was prepared before.

use super::attributes::Prepared;
use super::{PID_DIGITS, PLACED_MAX};
use crate::sys::seccomp;
use std::io;
use std::os::fd::RawFd;

/// What the child was doing when it failed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Prepare = 1,
    Directory = 2,
    Exec = 3,
    Filter = 4,
    Limit = 5,
    Nice = 6,
    Affinity = 7,
    OomScoreAdjust = 8,
    Root = 9,
    Group = 10,
    User = 11,
    Gains = 12,
}

impl Step {
    const ALL: [Step; 12] = [
        Step::Prepare,
        Step::Directory,
        Step::Exec,
        Step::Filter,
        Step::Limit,
        Step::Nice,
        Step::Affinity,
        Step::OomScoreAdjust,
        Step::Root,
        Step::Group,
        Step::User,
        Step::Gains,
    ];

    /// The step that a child reports.
    pub(super) fn reported(number: u8) -> Step {
        Step::ALL.into_iter().find(|step| *step as u8 == number).unwrap_or(Step::Exec)
    }
}

/// Everything the child needs, as numbers and pointers that stay valid across the fork.
pub(super) struct ChildPlan<'a> {
    pub(super) parent: libc::pid_t,
    pub(super) path: *const libc::c_char,
    pub(super) argv: *const *const libc::c_char,
    pub(super) envp: *const *const libc::c_char,
    pub(super) cwd: *const libc::c_char,
    pub(super) stdin: RawFd,
    pub(super) stdout: RawFd,
    pub(super) stderr: RawFd,
    pub(super) keep: &'a [RawFd],
    pub(super) listen: Vec<RawFd>,
    pub(super) placed: Vec<(RawFd, RawFd)>,
    pub(super) listen_pid_digits: *mut u8,
    pub(super) descriptors: u64,
    pub(super) report: RawFd,
    pub(super) filter: *const libc::sock_fprog,
    pub(super) attributes: Prepared<'a>,
}

impl ChildPlan<'_> {
    /// Everything that the child does before its program starts.
    ///
    /// # Safety
    /// Call in a freshly forked child only; the pointers must be valid.
    pub(super) unsafe fn run(&self) -> ! {
        // SAFETY: async-signal-safe calls (`signal-safety(7)`) on valid arguments only.
        unsafe {
            libc::setpgid(0, 0);
            self.die_with_the_master();
            crate::sys::process::limits::like_before();
            for signal in 1..=64 {
                // KILL, STOP and libc's own refuse; all others get their default.
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            for (from, to) in [(self.stdin, 0), (self.stdout, 1), (self.stderr, 2)] {
                if from >= 0 && libc::dup2(from, to) < 0 {
                    self.fail(Step::Prepare);
                }
            }
            for &fd in self.keep {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            self.place_listen_fds();
            for &(from, to) in &self.placed {
                // The sources lie above the targets unless descriptors ran out, see `spawn`.
                if from < PLACED_MAX || self.report < PLACED_MAX || libc::dup2(from, to) < 0 {
                    self.fail(Step::Prepare);
                }
            }
            let output = |from: RawFd, number| (from >= 0).then_some(number);
            if let Err((step, error)) =
                self.attributes.before_directory([output(self.stdout, 1), output(self.stderr, 2)])
            {
                self.fail_because(step, &error);
            }
            if !self.cwd.is_null() && libc::chdir(self.cwd) < 0 {
                self.fail(Step::Directory);
            }
            if let Err((step, error)) = self.attributes.after_directory() {
                self.fail_because(step, &error);
            }
            // The kernel forgets it when a process becomes another user (`commit_creds` in kernel/cred.c).
            self.die_with_the_master();
            self.submit_to_filter();
            if let Err((step, error)) = self.attributes.limit_descriptors(self.descriptors) {
                self.fail_because(step, &error);
            }
            libc::execve(self.path, self.argv, self.envp);
            self.fail(Step::Exec)
        }
    }

    /// Dies with the master (`PR_SET_PDEATHSIG`).
    ///
    /// # Safety
    /// As for [`ChildPlan::run`].
    unsafe fn die_with_the_master(&self) {
        // SAFETY: plain numbers.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != self.parent {
                // The master ended before the line above could take effect.
                libc::_exit(127);
            }
        }
    }

    /// Puts the listening descriptors at 3 and above and writes the pid that they are meant for.
    ///
    /// # Safety
    /// As for [`ChildPlan::run`].
    unsafe fn place_listen_fds(&self) {
        // SAFETY: as in `run`; the digits point into the environment prepared before the fork.
        unsafe {
            let first_free = 3 + self.listen.len() as RawFd;
            for (index, &fd) in self.listen.iter().enumerate() {
                // The sources lie above the targets, see `spawn`.
                let target = 3 + index as RawFd;
                if fd < first_free || self.report < first_free || libc::dup2(fd, target) < 0 {
                    self.fail(Step::Prepare);
                }
            }
            // Without leading zeros, which some readers would take for octal.
            let (mut pid, mut digits, mut len) = (libc::getpid(), [0u8; PID_DIGITS], 0);
            while pid > 0 && len < PID_DIGITS {
                if let Some(digit) = digits.get_mut(len) {
                    *digit = b'0' + (pid % 10) as u8;
                }
                pid /= 10;
                len += 1;
            }
            for (place, digit) in digits.iter().take(len).rev().enumerate() {
                *self.listen_pid_digits.add(place) = *digit;
            }
            *self.listen_pid_digits.add(len) = 0;
        }
    }

    /// Puts the child under its filter, if it gets one, and sends the parent the descriptor on which calls are
    /// reported.
    ///
    /// # Safety
    /// As for [`ChildPlan::run`].
    unsafe fn submit_to_filter(&self) {
        if self.filter.is_null() {
            return;
        }
        // SAFETY: as in `run`; sending is as [`crate::sys::fd::send_connection`] does it, on the stack.
        unsafe {
            let notifier = seccomp::filter::install(self.filter);
            if notifier < 0 {
                self.fail(Step::Filter);
            }
            let borrowed = std::os::fd::BorrowedFd::borrow_raw(notifier);
            let report = std::os::fd::BorrowedFd::borrow_raw(self.report);
            if !matches!(crate::sys::fd::send_connection(report, borrowed, &[0]), Ok(crate::sys::fd::Sent::Sent)) {
                self.fail(Step::Filter);
            }
            libc::close(notifier);
        }
    }

    /// Reports what failed and ends.
    ///
    /// # Safety
    /// As for [`ChildPlan::run`].
    unsafe fn fail(&self, step: Step) -> ! {
        // SAFETY: as in `run`.
        unsafe { self.fail_because(step, &io::Error::last_os_error()) }
    }

    /// Reports what failed, and why, and ends.
    ///
    /// # Safety
    /// As for [`ChildPlan::run`].
    unsafe fn fail_because(&self, step: Step, error: &io::Error) -> ! {
        let errno = error.raw_os_error().unwrap_or(0).to_ne_bytes();
        let report = [step as u8, errno[0], errno[1], errno[2], errno[3]];
        // SAFETY: writes five bytes of a local array.
        unsafe {
            libc::write(self.report, report.as_ptr().cast(), report.len());
            libc::_exit(127)
        }
    }
}
