//! What the operator asks for the workers' processes: a user, limits, a priority, a root directory.

use crate::core::ids::Slot;
use crate::sys::process::attributes::{self, Attributes, Entry, Limit, User};
use crate::sys::rights;
use nix::sys::resource::{RLIM_INFINITY, Resource};
use nix::unistd::{Gid, Group, Uid};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What each worker's process gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// What is the same for all.
    pub attributes: Attributes,
    /// The cores, one for each slot.
    pub cores: Option<Cores>,
}

impl Process {
    /// What the worker of this slot gets.
    #[must_use]
    pub fn of(&self, slot: Slot) -> Attributes {
        let cores = match &self.cores {
            None => Vec::new(),
            Some(Cores::These(cores)) => cores.clone(),
            // As they are now: a container's may change.
            Some(Cores::Usable) => attributes::cores_of_this_process().unwrap_or_default(),
        };
        let core = cores.get(slot.index() % cores.len().max(1)).copied();
        Attributes { core, ..self.attributes.clone() }
    }

    /// Whether this process may give workers all of that. What only the kernel can say is known when one starts.
    ///
    /// # Errors
    /// Which right it lacks.
    pub fn is_possible(&self) -> Result<(), String> {
        let mine = rights::own_capabilities().unwrap_or(u64::MAX);
        let lacks = |option: &str, needed: &[u32]| {
            let missing: Vec<String> = needed
                .iter()
                .filter(|number| mine & (1 << **number) == 0)
                .map(|n| rights::capability_name(*n))
                .collect();
            match missing.is_empty() {
                true => Ok(()),
                false => Err(format!(
                    "{option} needs rights that this process has not: {}; start maitred as root, or leave it out",
                    missing.join(", ")
                )),
            }
        };
        let me = nix::unistd::geteuid().as_raw();
        match &self.attributes.user {
            Some(User { uid: Some(uid), .. }) if *uid != me => lacks("--user", &[SETUID, SETGID, KILL])?,
            Some(_) => lacks("--user or --group", &[SETGID])?,
            None => {}
        }
        self.attributes.root.as_ref().map_or(Ok(()), |_| lacks("--chroot", &[SYS_CHROOT]))
    }

    /// The root directory of the workers, if it is not the master's.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        self.attributes.root.as_deref()
    }
}

/// Which cores slots get: one each, in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Those that the master may use when a worker starts.
    Usable,
    /// These.
    These(Vec<usize>),
}

// Capabilities (linux/capability.h). Workers of another user cannot be stopped without the first.
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const SYS_CHROOT: u32 = 18;

/// Most cores that a list can name; the kernel's own limit is 8192 (`CONFIG_NR_CPUS`).
const CORES_MAX: usize = 8192;

/// A wrong value of one of these options.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProcessError {
    /// No such user.
    #[error("there is no user {0:?} here; see /etc/passwd, or give its number and --group")]
    NoUser(String),
    /// A number without an entry says nothing about groups.
    #[error("user {0} has no entry in /etc/passwd, which would tell its group; give --group, too")]
    NoGroupOf(u32),
    /// No such group.
    #[error("there is no group {0:?} here; see /etc/group, or give its number")]
    NoGroup(String),
    /// Users cannot be looked up.
    #[error("cannot look up {what:?}: {why}")]
    Lookup {
        /// The name.
        what: String,
        /// Why not.
        why: String,
    },
    /// Not a list of cores.
    #[error("expected auto or numbers of cores, as in 0-3,8")]
    Cores,
    /// Not a limit.
    #[error(
        "expected NAME=N, NAME=SOFT:HARD or NAME=unlimited, as in nofile=65536 or core=0; names are those of prlimit"
    )]
    Limit,
    /// Not a limit's name.
    #[error("there is no limit {name:?}{}; known are {}", meant(name), NAMES.map(|(name, _)| name).join(", "))]
    LimitName {
        /// What was given.
        name: String,
    },
    /// The soft limit is above the hard one.
    #[error("the soft limit comes first and is not above the hard one, as in nofile=1024:65536")]
    LimitOrder,
    /// Not a mask.
    #[error("expected an octal mask from 000 to 777, as in 027")]
    Umask,
}

fn meant(name: &str) -> String {
    let nearest = super::options::nearest(name, NAMES.iter().map(|(name, _)| *name));
    nearest.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

impl FromStr for Cores {
    type Err = ProcessError;

    fn from_str(text: &str) -> Result<Cores, ProcessError> {
        if text == "auto" {
            return Ok(Cores::Usable);
        }
        let number = |text: &str| text.parse::<usize>().ok().filter(|core| *core < CORES_MAX);
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => cores.extend(first..=last),
                _ => return Err(ProcessError::Cores),
            }
            if cores.len() > CORES_MAX {
                return Err(ProcessError::Cores);
            }
        }
        Ok(Cores::These(cores))
    }
}

/// The names of limits, as `prlimit(1)` has them.
const NAMES: [(&str, Resource); 16] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

/// `NAME=N` or `NAME=SOFT:HARD`; N is a number, one with K, M or G, or `unlimited` (systemd: `infinity`).
///
/// # Errors
/// [`ProcessError`].
pub fn limit(text: &str) -> Result<Limit, ProcessError> {
    let (name, value) = text.split_once('=').ok_or(ProcessError::Limit)?;
    let known = name.to_ascii_lowercase();
    let known = known.strip_prefix("rlimit_").or(known.strip_prefix("limit")).unwrap_or(&known);
    let found = NAMES.iter().find(|(name, _)| *name == known);
    let (_, resource) = found.ok_or_else(|| ProcessError::LimitName { name: name.to_owned() })?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let amount = |text: &str| match text {
        "unlimited" | "infinity" => Ok(RLIM_INFINITY),
        "0" => Ok(0),
        text => super::life::size(text).map_err(|_| ProcessError::Limit),
    };
    let (soft, hard) = (amount(soft)?, amount(hard)?);
    if soft > hard {
        return Err(ProcessError::LimitOrder);
    }
    Ok(Limit { resource: *resource, soft, hard })
}

/// An octal mask.
///
/// # Errors
/// [`ProcessError::Umask`].
pub fn umask(text: &str) -> Result<libc::mode_t, ProcessError> {
    match libc::mode_t::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o777 && !text.starts_with('+') => Ok(mask),
        _ => Err(ProcessError::Umask),
    }
}

/// The user that `--user` and `--group` mean, by name or number, with all groups that the system has it in; nothing if
/// neither is given.
///
/// # Errors
/// [`ProcessError`] for one that there is not.
pub fn user(user: Option<&str>, group: Option<&str>) -> Result<Option<User>, ProcessError> {
    let gid = group.map(group_number).transpose()?;
    let Some(name) = user else {
        return Ok(gid.map(|gid| User { uid: None, gid, groups: vec![gid], entry: None }));
    };
    let lookup = |errno: nix::errno::Errno| ProcessError::Lookup { what: name.to_owned(), why: errno.to_string() };
    let number = name.parse::<u32>().ok();
    let found = match number {
        Some(uid) => nix::unistd::User::from_uid(Uid::from_raw(uid)),
        None => nix::unistd::User::from_name(name),
    };
    match (found.map_err(lookup)?, number, gid) {
        (Some(found), _, gid) => {
            let gid = gid.unwrap_or(found.gid.as_raw());
            let c_name = CString::new(found.name.as_str()).map_err(|_| ProcessError::NoUser(name.to_owned()))?;
            let groups = nix::unistd::getgrouplist(&c_name, Gid::from_raw(gid)).map_err(lookup)?;
            let groups = groups.into_iter().map(Gid::as_raw).collect();
            let entry = Entry { name: found.name, home: found.dir, shell: found.shell };
            Ok(Some(User { uid: Some(found.uid.as_raw()), gid, groups, entry: Some(entry) }))
        }
        (None, Some(uid), Some(gid)) => Ok(Some(User { uid: Some(uid), gid, groups: vec![gid], entry: None })),
        (None, Some(uid), None) => Err(ProcessError::NoGroupOf(uid)),
        (None, None, _) => Err(ProcessError::NoUser(name.to_owned())),
    }
}

/// A group by name or number.
///
/// # Errors
/// [`ProcessError`] for a name that there is not.
pub fn group_number(name: &str) -> Result<u32, ProcessError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let lookup = |errno: nix::errno::Errno| ProcessError::Lookup { what: name.to_owned(), why: errno.to_string() };
    let found = Group::from_name(name).map_err(lookup)?;
    found.map(|group| group.gid.as_raw()).ok_or_else(|| ProcessError::NoGroup(name.to_owned()))
}

/// The root directory, as given; it must be one.
///
/// # Errors
/// Says what is wrong with it.
pub fn root(text: &str) -> Result<PathBuf, String> {
    let root = std::path::absolute(text).map_err(|error| error.to_string())?;
    if root.is_dir() { Ok(root) } else { Err("it is no directory".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_a_list_and_slots_take_turns_at_them() {
        assert_eq!("auto".parse(), Ok(Cores::Usable));
        assert_eq!("0-2,8".parse(), Ok(Cores::These(vec![0, 1, 2, 8])));
        for text in ["", "3-1", "x", "1,", "8192", "-1", "0-99999999"] {
            assert_eq!(text.parse::<Cores>(), Err(ProcessError::Cores), "{text}");
        }
        let process = Process { cores: Some(Cores::These(vec![4, 6])), ..Process::default() };
        assert_eq!([0, 1, 2].map(|slot| process.of(Slot(slot)).core), [Some(4), Some(6), Some(4)]);
        assert_eq!(Process::default().of(Slot(0)).core, None);
        let usable = Process { cores: Some(Cores::Usable), ..Process::default() };
        assert_eq!(usable.of(Slot(0)).core, attributes::cores_of_this_process().unwrap().first().copied());
    }

    #[test]
    fn limits_have_the_names_of_prlimit_and_two_sides() {
        let of = |resource, soft, hard| Ok(Limit { resource, soft, hard });
        assert_eq!(limit("nofile=1024:65536"), of(Resource::RLIMIT_NOFILE, 1024, 65536));
        assert_eq!(limit("LimitNOFILE=64K"), of(Resource::RLIMIT_NOFILE, 65536, 65536));
        assert_eq!(limit("RLIMIT_CORE=0"), of(Resource::RLIMIT_CORE, 0, 0));
        assert_eq!(limit("as=1G:infinity"), of(Resource::RLIMIT_AS, 1 << 30, RLIM_INFINITY));
        assert_eq!(limit("nofile=9:8"), Err(ProcessError::LimitOrder));
        assert_eq!(limit("nofile"), Err(ProcessError::Limit));
        assert_eq!(limit("nofile=x"), Err(ProcessError::Limit));
        assert!(limit("nofiles=1").unwrap_err().to_string().contains("did you mean nofile?"));
    }

    #[test]
    fn a_mask_is_octal() {
        assert_eq!((umask("027"), umask("0"), umask("777")), (Ok(0o27), Ok(0), Ok(0o777)));
        for text in ["8", "1000", "", "+7", "-1"] {
            assert_eq!(umask(text), Err(ProcessError::Umask), "{text}");
        }
    }

    #[test]
    fn users_and_groups_have_names_and_numbers() {
        assert_eq!(user(None, None), Ok(None));
        let root = user(Some("root"), None).unwrap().unwrap();
        assert_eq!((root.uid, root.gid, root.entry.map(|entry| entry.name)), (Some(0), 0, Some("root".to_owned())));
        assert_eq!(user(Some("0"), None).unwrap().unwrap().uid, Some(0));
        assert_eq!(user(Some("no-such-user"), None), Err(ProcessError::NoUser("no-such-user".to_owned())));
        assert_eq!(user(None, Some("no-such-group")), Err(ProcessError::NoGroup("no-such-group".to_owned())));
        assert_eq!(user(Some("4000000000"), None), Err(ProcessError::NoGroupOf(4_000_000_000)));
        let of_numbers = User { uid: Some(4_000_000_000), gid: 7, groups: vec![7], entry: None };
        assert_eq!(user(Some("4000000000"), Some("7")), Ok(Some(of_numbers)));
        assert_eq!(user(None, Some("7")), Ok(Some(User { uid: None, gid: 7, groups: vec![7], entry: None })));
    }
}
