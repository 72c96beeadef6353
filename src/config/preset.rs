//! The values of `--preset`. Their meaning is defined in [`adapt`](crate::adapt::preset).

/// A program that receives its sockets in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Preset {
    /// Adds `--bind fd://3`, and keeps `LISTEN_FDS` from it
    Gunicorn,
    /// Adds `--fd 3`
    Uvicorn,
    /// Adds `--bind fd://3`
    Hypercorn,
    /// Adds `--fd 3`
    Daphne,
    /// Adds `-b tcp://ADDRESS`, for which puma takes the socket in `LISTEN_FDS`
    Puma,
    /// Adds `-l ADDRESS` and sets `UNICORN_FD`
    Unicorn,
    /// Adds `--http-socket fd://3`
    Uwsgi,
    /// Sets `NGINX`; the configuration must have `listen` with the same address
    Nginx,
    /// For `bind fd@${MAITRED_FD}` in the configuration
    Haproxy,
    /// For `bind fd/{$MAITRED_FD}` in the Caddyfile
    Caddy,
    /// Sets `FPM_SOCKETS`; the pool must have `listen` with the same address
    PhpFpm,
    /// The socket is standard input, as FastCGI programs (php-cgi, libfcgi) expect it
    Fastcgi,
    /// The socket is standard input, as inetd's `wait` services expect it
    Inetd,
}
