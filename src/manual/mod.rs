//! The manual: one source for readers on a code host, for `maitred help TOPIC`, for man pages and for this documentation.

/// A chapter.
#[derive(Debug)]
pub struct Chapter {
    /// Its name, as `maitred help` takes it.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub about: &'static str,
    /// Its Markdown.
    pub text: &'static str,
}

/// A dashboard for Grafana, in JSON.
pub const DASHBOARD: &str = include_str!("monitoring/grafana.json");
/// Alert rules for Prometheus, in YAML.
pub const ALERTS: &str = include_str!("monitoring/alerts.yml");

macro_rules! chapters {
    ($($name:ident: $about:literal,)*) => {
        /// All chapters, in the order in which one would read them.
        pub const CHAPTERS: &[Chapter] = &[
            $(Chapter {
                name: stringify!($name),
                about: $about,
                text: include_str!(concat!(stringify!($name), ".md")),
            },)*
        ];
        $(
            #[doc = include_str!(concat!(stringify!($name), ".md"))]
            pub mod $name {}
        )*
    };
}

chapters! {
    modes: "who gives a connection its worker",
    adapters: "how a server that knows nothing of maitred takes part",
    servers: "servers that were tried",
    compat: "programs with more than one socket",
    policies: "which worker gets the next connection",
    admission: "limits, refusals, slow start",
    lives: "ready, drain, reload, stalls, crashes, upgrade",
    processes: "users, limits, as many workers as are needed, reloads by themselves",
    deploy: "under systemd, in a container, behind a balancer",
    apps: "in the background and together: start, up, list, logs, top; coming from PM2",
    monitoring: "metrics, probes, events and a page to look at",
    signals: "signals and exit codes",
    configuration: "commands, options, the file, addresses",
    status: "what status shows",
    protocol: "what a worker and the master say to each other",
    bench: "measuring your own server",
    results: "figures",
    words: "what the words mean",
    security: "who may do what",
    internals: "how the code is laid out",
}
