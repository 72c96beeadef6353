//! Every option of `run`: its name, its form in a file, whether a reload may change it, and where it acts.

use super::{Config, Named};

/// The form of an option's value in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFile {
    /// A string or a number.
    Value,
    /// The same, or a list of these: the option may be given several times.
    Values,
    /// The same, of paths that are relative to the file's directory.
    Paths,
    /// A list that forms one value.
    List,
    /// `true` or `false`: the option takes no value.
    Switch,
    /// How often the option is given.
    Count,
    /// `true`, or a value, which may be left out.
    SwitchOrValue,
    /// A table of its own.
    Table,
    /// Not allowed: the option says how the file is read, or how the program logs before that.
    Not,
}

/// What a reload does with a different value.
#[derive(Clone, Copy)]
pub enum Reload {
    /// The new generation of workers gets it.
    Changes,
    /// The old value stays as long as the master runs.
    Stays {
        /// Whether both configurations have the same value.
        same: fn(&Config, &Config) -> bool,
        /// Takes the value from the second.
        keep: fn(&mut Config, &Config),
    },
    /// It is not part of the configuration.
    OfTheProgram,
}

/// Where an option acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acts {
    /// The addresses and the path of a connection.
    Front,
    /// How a worker is started.
    Workers,
    /// What happens to workers, and when.
    Lifecycle,
    /// Which workers run.
    Fleet,
    /// The control socket.
    Control,
    /// The log, and the file.
    Program,
}

/// One option.
pub struct RunOption {
    /// Its long name, which is also its key in a file.
    pub name: &'static str,
    /// The form of its value there.
    pub in_file: InFile,
    /// What a reload does with a different value.
    pub reload: Reload,
    /// Where it acts.
    pub acts: Acts,
}

/// An option whose value stays as long as the master runs, given by its field.
macro_rules! stays {
    ($($field:ident).+) => {
        Reload::Stays {
            same: |new, old| new.$($field).+ == old.$($field).+,
            keep: |new, old| new.$($field).+ = old.$($field).+.clone(),
        }
    };
}

const fn option(name: &'static str, in_file: InFile, reload: Reload, acts: Acts) -> RunOption {
    RunOption { name, in_file, reload, acts }
}

/// All options, in the order of the help.
pub const OPTIONS: &[RunOption] = &[
    option("workers", InFile::Value, Reload::Changes, Acts::Fleet),
    option("policy", InFile::Value, stays!(policy), Acts::Front),
    option("weights", InFile::List, stays!(weights), Acts::Front),
    option("adapter", InFile::Value, Reload::Changes, Acts::Workers),
    option("preset", InFile::Value, Reload::Changes, Acts::Workers),
    option("depth", InFile::Value, stays!(depth), Acts::Front),
    option("env", InFile::Table, Reload::Changes, Acts::Workers),
    option("cwd", InFile::Value, Reload::Changes, Acts::Workers),
    option("stop-signal", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("config", InFile::Not, Reload::OfTheProgram, Acts::Program),
    option("app", InFile::Not, Reload::OfTheProgram, Acts::Program),
    option("profile", InFile::Not, Reload::OfTheProgram, Acts::Program),
    option(ENV_FILE, InFile::Paths, Reload::Changes, Acts::Workers),
    option("bind", InFile::Values, stays!(bind), Acts::Front),
    option("private", InFile::Values, Reload::Changes, Acts::Front),
    option("share-port-zero", InFile::Switch, Reload::Changes, Acts::Front),
    option("mode", InFile::Value, stays!(mode), Acts::Front),
    option(
        "name",
        InFile::Value,
        Reload::Stays {
            // A command's name that was taken was replaced by another one.
            same: |new, old| new.named == Named::ByCommand || new.name == old.name,
            keep: |new, old| (new.name, new.named) = (old.name.clone(), old.named),
        },
        Acts::Control,
    ),
    option(
        "control",
        InFile::Value,
        Reload::Stays {
            // It depends on the name.
            same: |_, _| true,
            keep: |new, old| new.control = old.control.clone(),
        },
        Acts::Control,
    ),
    option("control-mode", InFile::Value, stays!(access.mode), Acts::Control),
    option("control-group", InFile::Value, stays!(access.group), Acts::Control),
    option("pid-file", InFile::Value, stays!(pid_file), Acts::Program),
    option("grace", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("prefix", InFile::Value, stays!(prefix), Acts::Workers),
    option("worker-log", InFile::Value, stays!(worker_log), Acts::Workers),
    option("log-format", InFile::Value, Reload::OfTheProgram, Acts::Program),
    option("verbose", InFile::Count, Reload::OfTheProgram, Acts::Program),
    option("quiet", InFile::Count, Reload::OfTheProgram, Acts::Program),
    option("log-file", InFile::Value, Reload::OfTheProgram, Acts::Program),
    option("out-file", InFile::Value, Reload::OfTheProgram, Acts::Program),
    option("err-file", InFile::Value, Reload::OfTheProgram, Acts::Program),
    option("merge-logs", InFile::Switch, Reload::OfTheProgram, Acts::Program),
    option("log-max-size", InFile::Value, Reload::OfTheProgram, Acts::Program),
    option("log-max-age", InFile::Value, Reload::OfTheProgram, Acts::Program),
    option("log-keep", InFile::Value, Reload::OfTheProgram, Acts::Program),
    option("log-compress", InFile::Switch, Reload::OfTheProgram, Acts::Program),
    option("log-buffer", InFile::Value, Reload::OfTheProgram, Acts::Program),
    option("max-open", InFile::Value, stays!(admission.max_open), Acts::Front),
    option("max-open-per-worker", InFile::Value, stays!(admission.max_open_per_worker), Acts::Front),
    option("when-full", InFile::Value, stays!(admission.when_full), Acts::Front),
    option("max-wait", InFile::Value, stays!(admission.max_wait), Acts::Front),
    option("max-open-per-source", InFile::Value, stays!(admission.max_open_per_source), Acts::Front),
    option("max-rate-per-source", InFile::Value, stays!(admission.max_rate_per_source), Acts::Front),
    option("source-prefix", InFile::Value, stays!(admission.source_prefix), Acts::Front),
    option("slow-start", InFile::Value, stays!(admission.slow_start), Acts::Front),
    option("defer", InFile::SwitchOrValue, stays!(admission.defer), Acts::Front),
    option("ready", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("boot-timeout", InFile::Value, Reload::Changes, Acts::Fleet),
    option("min-ready", InFile::Value, Reload::Changes, Acts::Fleet),
    option("max-surge", InFile::Value, Reload::Changes, Acts::Fleet),
    option("max-unavailable", InFile::Value, Reload::Changes, Acts::Fleet),
    option("scale-down-after", InFile::Value, Reload::Changes, Acts::Fleet),
    option("watch", InFile::Paths, stays!(triggers.watch), Acts::Program),
    option("watch-ignore", InFile::Values, stays!(triggers.ignore), Acts::Program),
    option("watch-delay", InFile::Value, stays!(triggers.delay), Acts::Program),
    option("restart-cron", InFile::Values, stays!(triggers.times), Acts::Program),
    option("stall", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("stall-kill", InFile::Value, Reload::Changes, Acts::Fleet),
    option("probe", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("probe-interval", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("probe-timeout", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("probe-rise", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("probe-fall", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("heartbeat", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("watchdog", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("max-connections", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("max-age", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("max-rss", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("max-restarts", InFile::Value, Reload::Changes, Acts::Fleet),
    option("restart-window", InFile::Value, Reload::Changes, Acts::Fleet),
    option("exit-codes", InFile::List, Reload::Changes, Acts::Fleet),
    option("stop-delay", InFile::Value, Reload::Changes, Acts::Fleet),
    option("kill-mode", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("idle-after", InFile::Value, Reload::Changes, Acts::Lifecycle),
    option("stop-first", InFile::SwitchOrValue, Reload::Changes, Acts::Lifecycle),
    option("leave-children", InFile::Switch, stays!(life.detached), Acts::Lifecycle),
    option("user", InFile::Value, Reload::Changes, Acts::Workers),
    option("group", InFile::Value, Reload::Changes, Acts::Workers),
    option("umask", InFile::Value, Reload::Changes, Acts::Workers),
    option("rlimit", InFile::Values, Reload::Changes, Acts::Workers),
    option("nice", InFile::Value, Reload::Changes, Acts::Workers),
    option("cpu-affinity", InFile::Value, Reload::Changes, Acts::Workers),
    option("oom-score-adjust", InFile::Value, Reload::Changes, Acts::Workers),
    option("chroot", InFile::Value, Reload::Changes, Acts::Workers),
    option("no-new-privileges", InFile::Switch, Reload::Changes, Acts::Workers),
    option("admin", InFile::Values, stays!(admin.addresses), Acts::Program),
    option("admin-token-file", InFile::Value, stays!(admin.token_file), Acts::Program),
    option("on-event", InFile::Value, stays!(admin.on_event), Acts::Program),
];

/// The option that names files of variables.
pub const ENV_FILE: &str = "env-file";

/// The option with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static RunOption> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// How alike two words are that differ by a slip of the finger (Jaro's similarity, 0 to 1).
const ALIKE: f64 = 0.8;

/// The name that was probably meant by `word`, if one is close to it.
#[must_use]
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let alike = names.map(|name| (strsim::jaro(word, name), name)).filter(|(alike, _)| *alike >= ALIKE);
    alike.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_known_and_another_word_is_not() {
        let near = |word| nearest(word, OPTIONS.iter().map(|option| option.name));
        assert_eq!(near("workrs"), Some("workers"));
        assert_eq!(near("polcy"), Some("policy"));
        assert_eq!(near("max_open_per_source"), Some("max-open-per-source"));
        assert_eq!(near("instances"), None);
    }
}
