//! Programs that go into the background by themselves, and the option that keeps each in the foreground: the first
//! process of a worker is the worker, and one that ends at once does not serve.

use std::ffi::OsString;
use std::path::Path;

/// Programs by name, and the option that keeps them in the foreground.
const FOREGROUND: [(&str, &str); 14] = [
    ("nginx", "start it with -g 'daemon off;'"),
    ("openresty", "start it with -g 'daemon off;'"),
    ("angie", "start it with -g 'daemon off;'"),
    ("memcached", "leave out -d"),
    ("redis-server", "start it with --daemonize no"),
    ("valkey-server", "start it with --daemonize no"),
    ("keydb-server", "start it with --daemonize no"),
    ("apache2", "start it with -DFOREGROUND"),
    ("apache2ctl", "start it with -DFOREGROUND"),
    ("apachectl", "start it with -DFOREGROUND"),
    ("httpd", "start it with -DFOREGROUND"),
    ("php-fpm", "start it with --nodaemonize (-F)"),
    ("haproxy", "leave out -D and the word `daemon` in its configuration, or use -W or -db"),
    ("lighttpd", "start it with -D"),
];

/// Advice for any other program.
const GENERIC: &str = "start it with the option that keeps it in the foreground; many have --foreground, \
                       --no-daemon or -D";

/// Whether a program of this name goes into the background by itself, or can be told to.
#[must_use]
pub fn is_known(name: &str) -> bool {
    FOREGROUND.iter().any(|(program, _)| *program == name)
}

/// Advice on how to keep this command in the foreground. The program may come after a wrapper, so every word that
/// names a known program counts.
#[must_use]
pub fn advice(command: &[OsString]) -> String {
    let words = command.iter().flat_map(|word| word.to_str()).flat_map(str::split_ascii_whitespace);
    let known = words.filter_map(|word| {
        let file = Path::new(word).file_name()?.to_str()?;
        // Some have a version in their name (php-fpm8.2).
        let name = file.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        FOREGROUND.iter().find(|(program, _)| *program == file || *program == name)
    });
    match known.into_iter().next() {
        Some((program, advice)) => format!("{program}: {advice}"),
        None => GENERIC.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, begins: &str) {
        let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        assert!(advice(&words).starts_with(begins), "{command}: {}", advice(&words));
    }

    #[test]
    fn known_programs_are_known_behind_wrappers_and_with_versions() {
        check("/usr/sbin/nginx -c x.conf", "nginx: start it with -g 'daemon off;'");
        check("php-fpm8.2 -y fpm.conf", "php-fpm: start it with --nodaemonize");
        check("env A=1 redis-server --daemonize yes", "redis-server: start it with --daemonize no");
        check("memcached -d", "memcached: leave out -d");
        check("./own-server", "start it with the option that keeps it in the foreground");
    }
}
