//! What this kernel and these privileges allow. This is found by trying, since version numbers do not show what a
//! distribution has patched or a container forbids.

use crate::adapt::preload::Shim;
use crate::kernel::exact::Exact;
use crate::kernel::program::Choice;
use crate::kernel::random;
use crate::sys::foreign;
use crate::sys::process::limits;
use crate::sys::process::needs::{self, Need};
use crate::sys::seccomp;
use crate::sys::socket::bpf;
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

/// The result of a test: success, or the kernel's refusal.
pub type Tried = Result<(), Refusal>;

/// The kernel's refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Its error number.
    pub errno: i32,
    /// The error in words.
    pub text: String,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { errno: error.raw_os_error().unwrap_or(0), text: error.to_string() }
    }
}

/// Something that every master needs, and whether it is available.
#[derive(Clone, Debug)]
pub struct Needed {
    /// The call or other resource.
    pub what: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// The result of the test.
    pub tried: Tried,
    /// What to do if it failed.
    pub advice: &'static str,
}

impl From<Need> for Needed {
    fn from(need: Need) -> Needed {
        let advice = need.tried.as_ref().err().map_or("", needs::advice).trim_start_matches("; ");
        Needed { what: need.what, purpose: need.purpose, tried: need.tried.map_err(Refusal::from), advice }
    }
}

/// Everything that decides what works here.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Release of the kernel.
    pub kernel: String,
    /// The processor's architecture.
    pub machine: String,
    /// Effective user id.
    pub uid: u32,
    /// Effective capabilities that matter here, by name.
    pub capabilities: Vec<&'static str>,
    /// Whether executing a program cannot give more privileges (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privs: bool,
    /// Kernel settings that matter here; settings that the kernel lacks are missing.
    pub settings: BTreeMap<&'static str, String>,
    /// The hard limit of open descriptors.
    pub descriptors: u64,
    /// What every master needs.
    #[serde(serialize_with = "shown_all")]
    pub needs: Vec<Needed>,
    /// A place for the shim's file that belongs only to this user and from which it can be loaded.
    #[serde(serialize_with = "shown")]
    pub shim: Tried,
    /// Loading the program that takes turns.
    #[serde(serialize_with = "shown")]
    pub exact: Tried,
    /// Attaching the program that draws.
    #[serde(serialize_with = "shown")]
    pub random: Tried,
    /// Supervising a child's system calls.
    #[serde(serialize_with = "shown")]
    pub supervise: Tried,
    /// Reading a child's memory.
    #[serde(serialize_with = "shown")]
    pub memory: Tried,
    /// Copying a child's descriptors.
    #[serde(serialize_with = "shown")]
    pub descriptor: Tried,
}

fn shown_all<S: serde::Serializer>(needs: &[Needed], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(needs.iter().map(|need| {
        let shown = match &need.tried {
            Ok(()) => serde_json::Value::from("yes"),
            Err(refusal) => serde_json::json!({ "errno": refusal.errno, "text": refusal.text }),
        };
        (need.what, shown)
    }))
}

fn shown<S: serde::Serializer>(tried: &Tried, serializer: S) -> Result<S::Ok, S::Error> {
    match tried {
        Ok(()) => serializer.serialize_str("yes"),
        Err(refusal) => refusal.serialize(serializer),
    }
}

/// Capabilities that matter here, by their bits (`capabilities(7)`, linux/capability.h).
const CAPABILITIES: [(&str, u32); 5] = [
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_BPF", 39),
];
const SETTINGS: [&str; 5] = [
    "kernel.unprivileged_bpf_disabled",
    "kernel.yama.ptrace_scope",
    "kernel.io_uring_disabled",
    "net.core.somaxconn",
    "net.ipv4.ip_unprivileged_port_start",
];

impl Facts {
    /// Tests everything; takes a few milliseconds and leaves nothing behind except the shim's file.
    #[must_use]
    pub fn gather() -> Facts {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or("");
        let effective = u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0);
        let setting = |name: &'static str| {
            let value = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
            Some((name, value.trim().to_owned()))
        };
        let name = nix::sys::utsname::uname();
        let word = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            name.as_ref().map(|name| of(name).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let (supervise, memory, descriptor) = try_on_a_child();
        Facts {
            kernel: word(|name| name.release()),
            machine: word(|name| name.machine()),
            uid: nix::unistd::geteuid().as_raw(),
            capabilities: CAPABILITIES
                .iter()
                .filter(|(_, bit)| effective >> bit & 1 == 1)
                .map(|(name, _)| *name)
                .collect(),
            no_new_privs: field("NoNewPrivs:") == "1",
            settings: SETTINGS.into_iter().filter_map(setting).collect(),
            descriptors: limits::descriptor_limit().map_or(0, |limit| limit.hard),
            needs: needs::try_all().into_iter().map(Needed::from).collect(),
            shim: try_shim(),
            exact: Exact::load(Choice::InTurn).map(drop).map_err(|refused| Refusal {
                errno: refused.source.raw_os_error().unwrap_or(0),
                text: refused.advice(),
            }),
            random: try_random().map_err(Refusal::from),
            supervise,
            memory,
            descriptor,
        }
    }
}

/// Each run looks for the file in this place, so it may stay there.
fn try_shim() -> Tried {
    match Shim::new().map(|shim| shim.why_in_memory()) {
        Ok(None) => Ok(()),
        Ok(Some(because)) => Err(Refusal { errno: 0, text: because }),
        Err(error) => Err(error.into()),
    }
}

fn try_random() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(1)?;
    bpf::attach_classic(&random::program(&[(0, 1)]), socket.as_fd())
}

/// Starts a child under a filter, which waits to be killed, and tests on it what supervision needs.
fn try_on_a_child() -> (Tried, Tried, Tried) {
    let child = match seccomp::Subject::start() {
        Ok(child) => child,
        Err(error) => {
            let refusal = Refusal::from(error);
            return (Err(refusal.clone()), Err(refusal.clone()), Err(refusal));
        }
    };
    let supervise = child.supervised().map_err(Refusal::from);
    // The child runs the same program, so its code is at the same address.
    let at = Facts::gather as fn() -> Facts as usize as u64;
    let memory = foreign::read_memory(child.pid(), at, &mut [0; 1]).map_err(Refusal::from);
    let descriptor = foreign::descriptor(child.pid(), 2).map(drop).map_err(Refusal::from);
    (supervise, memory, descriptor)
}
