//! Passes listening descriptors to programs that have their own way to take them. [`conventions`] are for all
//! programs; a [`Preset`] adds the words or variables that a particular program needs.

use crate::config::preset::Preset;
use crate::wire::address::Address;
use crate::wire::environment::INHERITED;
use std::os::fd::RawFd;

/// A listening descriptor as the worker will see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Its number in the worker.
    pub number: RawFd,
    /// Where it listens.
    pub address: Address,
}

impl Offered {
    /// `host:port` or a path, as servers name addresses.
    fn plain(&self) -> String {
        match &self.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => path.display().to_string(),
            Address::Abstract(name) => format!("@{name}"),
        }
    }

    /// The same as a URL.
    fn url(&self) -> String {
        match &self.address {
            Address::Tcp(address) => format!("tcp://{address}"),
            Address::Unix(_) | Address::Abstract(_) => format!("unix://{}", self.plain()),
        }
    }
}

/// The standard input of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Empty.
    Null,
    /// The first listening socket.
    Listener,
}

/// What a preset adds for a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// Words at the end of the command.
    pub words: Vec<String>,
    /// Environment variables to set.
    pub variables: Vec<(&'static str, String)>,
    /// Environment variables to remove: two ways of taking the same socket conflict.
    pub without: Vec<&'static str>,
    /// Whether the program relies on non-blocking sockets without checking.
    pub nonblocking: bool,
}

impl Preset {
    /// The additions for these descriptors.
    #[must_use]
    pub fn additions(self, offered: &[Offered]) -> Additions {
        let each = |flag: &str, value: &dyn Fn(&Offered) -> String| {
            offered.iter().flat_map(|o| [flag.to_owned(), value(o)]).collect::<Vec<_>>()
        };
        let words = |words| Additions { words, ..Additions::default() };
        let variable = |name, value| Additions { variables: vec![(name, value)], ..Additions::default() };
        match self {
            Preset::Gunicorn => Additions {
                words: each("--bind", &|o| format!("fd://{}", o.number)),
                without: vec!["LISTEN_FDS", "LISTEN_FDNAMES"],
                ..Additions::default()
            },
            Preset::Hypercorn => words(each("--bind", &|o| format!("fd://{}", o.number))),
            Preset::Uvicorn | Preset::Daphne => words(each("--fd", &|o| o.number.to_string())),
            Preset::Puma => words(each("-b", &Offered::url)),
            // It would take the same descriptor twice, and fail when it closes it twice.
            Preset::Unicorn => Additions {
                words: each("-l", &Offered::plain),
                variables: vec![("UNICORN_FD", join(offered, ",", |o| o.number.to_string()))],
                without: vec!["LISTEN_FDS", "LISTEN_FDNAMES"],
                ..Additions::default()
            },
            Preset::Uwsgi => words(each("--http-socket", &|o| format!("fd://{}", o.number))),
            // Each number ends with a semicolon (ngx_add_inherited_sockets in nginx.c). nginx expects to inherit them
            // from an older nginx, which has made them non-blocking.
            Preset::Nginx => Additions {
                variables: vec![("NGINX", join(offered, "", |o| format!("{};", o.number)))],
                nonblocking: true,
                ..Additions::default()
            },
            Preset::PhpFpm => variable("FPM_SOCKETS", join(offered, ",", |o| format!("{}={}", o.plain(), o.number))),
            Preset::Haproxy | Preset::Caddy | Preset::Fastcgi | Preset::Inetd => Additions::default(),
        }
    }

    /// The standard input for this program.
    #[must_use]
    pub fn input(self) -> Input {
        match self {
            Preset::Fastcgi | Preset::Inetd => Input::Listener,
            _ => Input::Null,
        }
    }
}

/// The variables through which programs of any kind find their listening sockets, except `LISTEN_PID`, which is known
/// only in the child: systemd's (`sd_listen_fds(3)`), einhorn's, Server::Starter's, and ours.
#[must_use]
pub fn conventions(offered: &[Offered], slot: u32, generation: u32, master: u32) -> Vec<(String, String)> {
    let Some(first) = offered.first() else { return Vec::new() };
    let numbers = |separator| join(offered, separator, |o| o.number.to_string());
    let mut variables: Vec<(String, String)> = [
        ("LISTEN_FDS", offered.len().to_string()),
        ("LISTEN_FDNAMES", vec!["maitred"; offered.len()].join(":")),
        ("EINHORN_FD_COUNT", offered.len().to_string()),
        ("EINHORN_FDS", numbers(" ")),
        ("EINHORN_MASTER_PID", master.to_string()),
        ("EINHORN_CHILD_INDEX", slot.to_string()),
        ("SERVER_STARTER_PORT", join(offered, ";", |o| format!("{}={}", o.plain(), o.number))),
        ("SERVER_STARTER_GENERATION", generation.to_string()),
        ("MAITRED_FD", first.number.to_string()),
        (INHERITED, numbers(" ")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    variables.extend(offered.iter().enumerate().map(|(i, o)| (format!("EINHORN_FD_{i}"), o.number.to_string())));
    variables
}

fn join(offered: &[Offered], separator: &str, each: impl Fn(&Offered) -> String) -> String {
    offered.iter().map(each).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> [Offered; 2] {
        let offer = |number, address: &str| Offered { number, address: address.parse().unwrap() };
        [offer(3, "tcp:127.0.0.1:80"), offer(4, "unix:/run/a.sock")]
    }

    #[test]
    fn each_preset_says_what_its_program_reads() {
        let text = |preset: Preset| {
            let Additions { words, variables, .. } = preset.additions(&two());
            let variables = variables.iter().map(|(name, value)| format!("{name}={value}"));
            variables.chain(words).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(Preset::Gunicorn), "--bind fd://3 --bind fd://4");
        assert_eq!(text(Preset::Puma), "-b tcp://127.0.0.1:80 -b unix:///run/a.sock");
        assert_eq!(text(Preset::Unicorn), "UNICORN_FD=3,4 -l 127.0.0.1:80 -l /run/a.sock");
        assert_eq!(text(Preset::Nginx), "NGINX=3;4;");
        assert_eq!(text(Preset::PhpFpm), "FPM_SOCKETS=127.0.0.1:80=3,/run/a.sock=4");
        assert_eq!((text(Preset::Inetd), Preset::Inetd.input()), (String::new(), Input::Listener));
    }

    #[test]
    fn all_conventions_name_the_same_sockets() {
        let variables = conventions(&two(), 2, 5, 77);
        let get = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(
            [get("LISTEN_FDS"), get("EINHORN_FD_COUNT"), get("EINHORN_FD_1")],
            [Some("2"), Some("2"), Some("4")]
        );
        assert_eq!(get("SERVER_STARTER_PORT"), Some("127.0.0.1:80=3;/run/a.sock=4"));
        assert_eq!([get("EINHORN_CHILD_INDEX"), get("EINHORN_MASTER_PID")], [Some("2"), Some("77")]);
        assert!(conventions(&[], 0, 0, 0).is_empty());
    }
}
