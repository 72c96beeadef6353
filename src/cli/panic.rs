//! What happens at an internal error: one line that gives the place, and an orderly end.

use super::{FAILED, logging, say};
use crate::aside;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a panic ends the process, whichever thread or task it happens in.
static ENDS: AtomicBool = AtomicBool::new(false);

/// From now on a panic is reported in one line. A backtrace follows if `RUST_BACKTRACE` asks for it.
pub fn one_line() {
    std::panic::set_hook(Box::new(panicked));
}

/// From now on a panic also ends the process: a master that has lost one of its tasks must not continue without it.
/// Its guard kills the remaining workers, and the next master replaces a socket file that is left over.
pub fn end_at_once() {
    ENDS.store(true, Relaxed);
}

fn panicked(info: &PanicHookInfo<'_>) {
    let (what, at) = (reason(info), place(info));
    if aside::is_contained() {
        tracing::error!(at, what, "internal error in something asked aside; please report it");
        return;
    }
    let ends = ENDS.load(Relaxed);
    let then = if ends { "the workers are ended; " } else { "" };
    if ends {
        logging::flush();
    }
    let backtrace = Backtrace::capture();
    let trace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    say::complain(&format_args!("internal error at {at}: {what}; {then}please report this{trace}"));
    if ends {
        std::process::exit(i32::from(FAILED));
    }
}

fn reason<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|text| &**text));
    text.unwrap_or("no reason given")
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map_or_else(|| "an unknown place".to_owned(), |at| format!("{}:{}", at.file(), at.line()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Set for the process that should panic.
    const CHILD: &str = "MAITRED_TEST_PANICS";

    /// Runs one test of this program in a process of its own; returns its exit code and standard error.
    fn run(test: &str) -> (Option<i32>, String) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").env_remove("RUST_BACKTRACE");
        let ended = child.output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    }

    #[test]
    fn a_panic_in_a_task_ends_the_master_with_one_line() {
        if std::env::var_os(CHILD).is_some() {
            super::one_line();
            super::end_at_once();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let _ = tokio::task::spawn_local(async { panic!("broken\u{1b}[31m") }).await;
            });
            return;
        }
        let (code, said) = run("cli::panic::tests::a_panic_in_a_task_ends_the_master_with_one_line");
        assert_eq!(code, Some(1), "{said}");
        let (before, after) = said.split_once("panic.rs:").expect("the place is named");
        assert_eq!(before, "maitred: internal error at src/cli/");
        assert!(after.ends_with(": broken\\x1b[31m; the workers are ended; please report this\n"), "{said}");
    }
}
