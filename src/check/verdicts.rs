//! What follows from the facts for each mode and adapter: whether it works, how, and what to do if it does not. Has no
//! side effects.

use super::facts::{Facts, Refusal};
use crate::adapt::inspect::{Executable, Linkage};
use crate::adapt::{self, Chosen, Circumstances, Root};
use crate::config::{Adapter, Mode};
use serde::Serialize;

/// Whether something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Works {
    /// It does not work.
    No,
    /// It works, but not fully.
    Partly,
    /// It works.
    Yes,
}

impl Works {
    /// The word for a table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Works::No => "no",
            Works::Partly => "partly",
            Works::Yes => "yes",
        }
    }
}

/// Whether and how it works, and what to do to get it or to get more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether it works.
    pub works: Works,
    /// How it works, or why it does not.
    pub how: String,
    /// What to do to improve that.
    pub todo: Option<String>,
}

impl Verdict {
    fn yes(how: impl Into<String>) -> Verdict {
        Verdict { works: Works::Yes, how: how.into(), todo: None }
    }

    fn partly(how: impl Into<String>, todo: impl Into<String>) -> Verdict {
        Verdict { works: Works::Partly, how: how.into(), todo: Some(todo.into()) }
    }

    fn no(why: impl Into<String>, todo: impl Into<String>) -> Verdict {
        Verdict { works: Works::No, how: why.into(), todo: Some(todo.into()) }
    }
}

/// The verdict on one mode or adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its name on the command line.
    pub name: String,
    /// The conclusion.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Whether a mode works with an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Combination {
    /// The mode.
    pub mode: String,
    /// The adapter.
    pub adapter: &'static str,
    /// Whether they work together.
    pub works: Works,
}

/// What would be used without any option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Default {
    /// The mode.
    pub mode: String,
    /// The adapter, if one can be chosen.
    pub adapter: Option<&'static str>,
    /// Whether it would work.
    pub works: bool,
    /// Why this adapter, or why none.
    pub reason: String,
}

/// Everything that `check` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    /// Each mode.
    pub modes: Vec<Named>,
    /// Each adapter, for this program.
    pub adapters: Vec<Named>,
    /// Each mode with each adapter.
    pub combinations: Vec<Combination>,
    /// What would be used without any option.
    pub default: Default,
}

const MODES: [Mode; 3] = [Mode::Handoff, Mode::Shared, Mode::Kernel];
const ADAPTERS: [Chosen; 4] = [Chosen::Preload, Chosen::Seccomp, Chosen::Inherit, Chosen::Native];

/// The conclusions for this program, or for any program.
#[must_use]
pub fn verdicts(facts: &Facts, executable: Option<&Executable>) -> Verdicts {
    let linkage = executable.map(|executable| &executable.linkage);
    let combinations = MODES.iter().flat_map(|mode| ADAPTERS.iter().map(|adapter| (*mode, *adapter)));
    let combination = |(mode, adapter): (Mode, Chosen)| Combination {
        mode: mode.name(),
        adapter: adapter.name(),
        works: together(facts, mode, adapter, linkage),
    };
    let handoff =
        Circumstances { adapter: Adapter::Auto, preset: None, mode: Mode::Handoff, bound: false, root: Root::Ours };
    let chosen = match executable {
        Some(executable) => adapt::choose(handoff, executable).map_err(|error| error.to_string()),
        None => Ok((Chosen::Preload, "for a dynamically linked program".to_owned())),
    };
    let default = match chosen {
        Ok((adapter, reason)) => Default {
            mode: Mode::Handoff.name(),
            adapter: Some(adapter.name()),
            works: together(facts, Mode::Handoff, adapter, linkage) > Works::No,
            reason,
        },
        Err(reason) => Default { mode: Mode::Handoff.name(), adapter: None, works: false, reason },
    };
    Verdicts {
        modes: MODES.map(|m| Named { name: m.name(), verdict: mode(facts, m) }).into(),
        adapters: ADAPTERS.map(|a| Named { name: a.name().to_owned(), verdict: adapter(facts, a, linkage) }).into(),
        combinations: combinations.map(combination).collect(),
        default,
    }
}

fn together(facts: &Facts, with_mode: Mode, with_adapter: Chosen, linkage: Option<&Linkage>) -> Works {
    match (with_mode, with_adapter) {
        (Mode::Handoff, Chosen::Inherit) => Works::No,
        // Installing and answering in one step (SECCOMP_ADDFD_FLAG_SEND).
        (Mode::Handoff, Chosen::Seccomp) if version(&facts.kernel) < (5, 14) => Works::No,
        _ => mode(facts, with_mode).works.min(adapter(facts, with_adapter, linkage).works),
    }
}

fn mode(facts: &Facts, mode: Mode) -> Verdict {
    let missing = facts.needs.iter().find_map(|need| Some((need, need.tried.as_ref().err()?)));
    if let Some((need, refusal)) = missing {
        return Verdict::no(
            format!("{} cannot be had: {}; it is needed to {}", need.what, refusal.text, need.purpose),
            need.advice,
        );
    }
    match (mode, &facts.exact, &facts.random) {
        (Mode::Handoff, ..) => Verdict::yes("the master accepts and hands each connection over, in exact turn"),
        (Mode::Shared, ..) => Verdict::yes("all workers accept on one socket, whoever wakes first"),
        (Mode::Kernel, Ok(()), _) => {
            Verdict::yes("a program in the kernel takes exact turns among the workers' sockets")
        }
        (Mode::Kernel, Err(refusal), Ok(())) => {
            Verdict::partly("each connection's worker is drawn at random", format!("for exact turns: {}", refusal.text))
        }
        (Mode::Kernel, Err(refusal), Err(_)) => {
            Verdict::partly("the kernel's hash chooses, also among workers that are gone", refusal.text.clone())
        }
    }
}

fn adapter(facts: &Facts, adapter: Chosen, linkage: Option<&Linkage>) -> Verdict {
    let dynamic = "use a dynamically linked build that calls libc, or another adapter";
    match (adapter, linkage) {
        (Chosen::Preload, None | Some(Linkage::Dynamic { .. })) if facts.shim.is_err() => Verdict::partly(
            "the shim is found through the master's /proc entry, so not by a worker that a wrapper gives another user",
            format!(
                "make a directory that only maitred's user can write to, not mounted noexec ({})",
                facts.shim.as_ref().err().map(|refusal| &*refusal.text).unwrap_or_default()
            ),
        ),
        (Chosen::Preload, None) => Verdict::yes("for every dynamically linked program that calls libc"),
        (Chosen::Preload, Some(Linkage::Dynamic { loader })) => Verdict::yes(format!("the shim is loaded by {loader}")),
        (Chosen::Preload, Some(Linkage::Unknown)) => {
            Verdict::partly("no ELF file; it works if what runs it is dynamic", "name the interpreter in the command")
        }
        (Chosen::Preload, Some(Linkage::Static)) => Verdict::no("statically linked: there is no loader", dynamic),
        (Chosen::Preload, Some(Linkage::OwnCalls)) => {
            Verdict::no("a Go program, which makes its system calls itself", dynamic)
        }
        (Chosen::Preload, Some(Linkage::Privileged(_))) => {
            Verdict::no("its file has privileges, so the loader ignores the shim", "run it without them")
        }
        (Chosen::Preload | Chosen::Seccomp, Some(Linkage::OtherMachine)) => {
            Verdict::no("built for another machine than maitred", format!("use a {} build", facts.machine))
        }
        (Chosen::Seccomp, Some(Linkage::Privileged(_))) if facts.uid != 0 => Verdict::no(
            "its file has privileges, which supervision would take away",
            "run maitred as root, or without them",
        ),
        (Chosen::Seccomp, _) => seccomp(facts),
        (Chosen::Inherit, _) => Verdict::yes(
            "with --mode shared or kernel and --bind, if the server reads LISTEN_FDS or one of its kin, or has a --preset",
        ),
        (Chosen::Native, _) => Verdict::yes("if the program speaks maitred's protocol"),
    }
}

fn seccomp(facts: &Facts) -> Verdict {
    let setting = |name: &str| facts.settings.get(name).map(String::as_str);
    let ptrace = || match setting("kernel.yama.ptrace_scope") {
        Some("2" | "3") => "set kernel.yama.ptrace_scope to 1, or grant CAP_SYS_PTRACE".to_owned(),
        _ => "grant CAP_SYS_PTRACE (in a container: --cap-add SYS_PTRACE)".to_owned(),
    };
    let because = |what: &str, refusal: &Refusal| format!("{what}: {}", refusal.text);
    match (&facts.supervise, &facts.memory, &facts.descriptor) {
        (Err(refusal), ..) => {
            let todo = match refusal.errno {
                libc::EBUSY => {
                    "an outer supervisor (of a container, of WSL) has its own: run outside of it, or use --adapter inherit"
                }
                libc::EPERM | libc::EACCES => "allow seccomp(2) in the container's profile",
                _ => "use Linux 5.14 or later with CONFIG_SECCOMP_FILTER",
            };
            Verdict::no(because("no filter can be put before its calls", refusal), todo)
        }
        (Ok(()), Err(refusal), _) => Verdict::no(because("a worker's memory cannot be read", refusal), ptrace()),
        (Ok(()), Ok(()), Err(refusal)) => Verdict::partly(
            because(
                "socket options that a worker sets before it listens are lost, since its sockets cannot be copied",
                refusal,
            ),
            ptrace(),
        ),
        (Ok(()), Ok(()), Ok(())) => {
            Verdict::yes("its bind and listen calls, and in handoff mode accept, are supervised")
        }
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::facts;
    use super::*;

    fn all_is_well() -> Facts {
        Facts {
            kernel: "6.1.0-9-amd64".into(),
            machine: "x86_64".into(),
            uid: 0,
            capabilities: vec!["CAP_BPF"],
            no_new_privs: false,
            settings: [].into(),
            descriptors: 1024,
            needs: vec![],
            shim: Ok(()),
            exact: Ok(()),
            random: Ok(()),
            supervise: Ok(()),
            memory: Ok(()),
            descriptor: Ok(()),
        }
    }

    fn refused(errno: i32) -> Refusal {
        std::io::Error::from_raw_os_error(errno).into()
    }

    fn program(linkage: Linkage) -> Executable {
        Executable { path: "/x".into(), program: "/x".into(), linkage, through: vec![], drops_environment: None }
    }

    fn works(verdicts: &Verdicts, mode: &str, adapter: &str) -> Works {
        verdicts.combinations.iter().find(|c| c.mode == mode && c.adapter == adapter).unwrap().works
    }

    #[test]
    fn with_all_privileges_all_works_but_what_cannot() {
        let verdicts = verdicts(&all_is_well(), Some(&program(Linkage::Dynamic { loader: "/l".into() })));
        let less: Vec<_> = verdicts.combinations.iter().filter(|c| c.works < Works::Yes).collect();
        assert_eq!(less.len(), 1, "{less:?}");
        assert_eq!((&*less[0].mode, less[0].adapter, less[0].works), ("handoff", "inherit", Works::No));
        assert!(verdicts.default.works && verdicts.default.adapter == Some("preload"));
    }

    #[test]
    fn an_ordinary_user_gets_chance_in_the_kernel() {
        let facts = Facts { exact: Err(refused(libc::EPERM)), ..all_is_well() };
        let verdicts = verdicts(&facts, None);
        assert_eq!(works(&verdicts, "kernel", "preload"), Works::Partly);
        assert!(verdicts.modes[2].verdict.how.contains("random"));
    }

    #[test]
    fn a_static_program_needs_supervision() {
        let executable = program(Linkage::Static);
        let good = verdicts(&all_is_well(), Some(&executable));
        assert_eq!((good.default.adapter, good.default.works), (Some("seccomp"), true));
        let confined = Facts { descriptor: Err(refused(libc::EPERM)), ..all_is_well() };
        let confined = verdicts(&confined, Some(&executable));
        assert_eq!((works(&confined, "handoff", "seccomp"), confined.default.works), (Works::Partly, true));
        let outer = Facts { supervise: Err(refused(libc::EBUSY)), ..all_is_well() };
        let outer = verdicts(&outer, Some(&executable));
        assert!(!outer.default.works);
        assert!(outer.adapters[1].verdict.todo.as_ref().unwrap().contains("outer supervisor"));
        assert_eq!(works(&outer, "shared", "inherit"), Works::Yes);
        let old = Facts { kernel: "5.10.0".into(), ..all_is_well() };
        let old = verdicts(&old, Some(&executable));
        assert_eq!((works(&old, "handoff", "seccomp"), works(&old, "kernel", "seccomp")), (Works::No, Works::Yes));
    }

    #[test]
    fn what_every_master_needs_is_named() {
        let need = |tried| facts::Needed { what: "memfd_create(2)", purpose: "live", tried, advice: "allow it" };
        let facts = Facts { needs: vec![need(Ok(())), need(Err(refused(libc::EPERM)))], ..all_is_well() };
        let verdicts = verdicts(&facts, None);
        assert!(!verdicts.default.works && verdicts.modes.iter().all(|mode| mode.verdict.works == Works::No));
        assert!(verdicts.modes[0].verdict.how.starts_with("memfd_create(2) cannot be had"), "{verdicts:?}");
        let facts = Facts { shim: Err(refused(libc::EPERM)), ..all_is_well() };
        assert_eq!(super::verdicts(&facts, None).adapters[0].verdict.works, Works::Partly);
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, expected) in [("5.9.1", (5, 9)), ("6.18.44+", (6, 18)), ("5.14-rc1", (5, 14)), ("", (0, 0))] {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
