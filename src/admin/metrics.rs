//! The metrics, in the words of Prometheus (`prometheus.io/docs/practices/naming`): base units, `_total` for what only
//! grows. Their names and labels are an interface: a test compares them with a list. There are as many as there are
//! apps, slots and addresses, and for each of these a fixed number.

use super::apps::Shown;
use crate::control::status::{READY, Status, Worker};
use crate::core::histogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The states of a slot.
const STATES: [&str; 6] = ["starting", READY, "draining", "stalled", "backoff", "stopped"];

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// Prometheus's older format, for everybody else.
    Text,
}

impl Format {
    /// What the client takes.
    #[must_use]
    pub fn accepted(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Text }
    }

    /// The type of the content.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the admin side counts of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnCounts {
    /// Clients that were sent away because too many were there.
    pub dismissed: u64,
    /// Requests that were refused: a wrong token, another host or origin.
    pub refused: u64,
}

/// The metrics of these apps.
///
/// # Errors
/// Never: writing to a string cannot fail.
pub fn metrics(apps: Vec<Shown>, own: OwnCounts, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { apps, own }));
    let mut written = String::new();
    match format {
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
        Format::Text => prometheus_text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

#[derive(Debug)]
struct Scrape {
    apps: Vec<Shown>,
    own: OwnCounts,
}

/// Labels: names and values.
type Labels = Vec<(&'static str, String)>;

/// Values of a metric, each with its labels.
type Values<T> = Vec<(Labels, T)>;

impl Scrape {
    /// The status of each app that tells one now.
    fn told(&self) -> impl Iterator<Item = (&Shown, &Status)> {
        let fresh = |app: &&Shown| app.error.is_none();
        self.apps.iter().filter(fresh).filter_map(|app| Some((app, &*app.status.as_ref()?.0)))
    }

    fn of_apps<T>(&self, value: impl Fn(&Status) -> T) -> Values<T> {
        self.told().map(|(app, status)| (vec![("app", app.name.clone())], value(status))).collect()
    }

    fn some_of_apps<T>(&self, values: impl Fn(&Status) -> Vec<(Labels, T)>) -> Values<T> {
        let with_app = |app: &Shown, labels: Labels| [vec![("app", app.name.clone())], labels].concat();
        let each = |(app, status)| {
            let values: Vec<_> = values(status);
            values.into_iter().map(move |(labels, value)| (with_app(app, labels), value)).collect::<Vec<_>>()
        };
        self.told().flat_map(each).collect()
    }

    fn of_slots<T>(&self, value: impl Fn(&Worker) -> T) -> Values<T> {
        self.some_of_apps(|status| {
            status.workers.iter().map(|worker| (vec![("slot", worker.slot.to_string())], value(worker))).collect()
        })
    }

    fn by(&self, label: &'static str, counts: impl Fn(&Status) -> Vec<(String, u64)>) -> Values<u64> {
        self.some_of_apps(|status| {
            counts(status).into_iter().map(|(reason, count)| (vec![(label, reason)], count)).collect()
        })
    }
}

/// Writes metrics one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn metric<T>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        kind: MetricType,
        values: Values<T>,
        write: impl Fn(&mut MetricEncoder<'_>, T) -> fmt::Result,
    ) -> fmt::Result {
        if values.is_empty() {
            return Ok(());
        }
        let name = format!("maitred_{name}");
        let mut encoder = self.0.encode_descriptor(&name, help, unit.as_ref(), kind)?;
        for (labels, value) in values {
            write(&mut encoder.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, values: Values<u64>) -> fmt::Result {
        self.metric((name, None), help, MetricType::Counter, values, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    fn seconds_counter(&mut self, name: &str, help: &str, values: Values<f64>) -> fmt::Result {
        self.metric((name, Some(Unit::Seconds)), help, MetricType::Counter, values, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    fn gauge(&mut self, name: &str, help: &str, values: Values<f64>) -> fmt::Result {
        self.metric((name, None), help, MetricType::Gauge, values, |encoder, value| encoder.encode_gauge(&value))
    }

    fn gauge_in(&mut self, name: &str, unit: Unit, help: &str, values: Values<f64>) -> fmt::Result {
        self.metric((name, Some(unit)), help, MetricType::Gauge, values, |encoder, value| encoder.encode_gauge(&value))
    }

    fn histogram(&mut self, name: &str, help: &str, values: Values<Histogram>) -> fmt::Result {
        let unit = Some(Unit::Seconds);
        self.metric((name, unit), help, MetricType::Histogram, values, |encoder, value| {
            let bounds = value.bounds_s.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(value.counts.iter().copied()).collect();
            encoder.encode_histogram::<NoLabelSet>(value.sum_s, value.counts.iter().sum(), &buckets, None)
        })
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut write = Writer(encoder);
        self.masters(&mut write)?;
        self.connections(&mut write)?;
        self.workers(&mut write)?;
        self.happenings(&mut write)?;
        let here = |count| vec![(Vec::new(), count)];
        write.counter(
            "admin_clients_dismissed",
            "Clients sent away because too many were connected",
            here(self.own.dismissed),
        )?;
        write.counter(
            "admin_requests_refused",
            "Requests refused by their token, host or origin",
            here(self.own.refused),
        )
    }
}

/// A number that is exact up to 2^53, as all of Prometheus's are.
fn float(number: u64) -> f64 {
    number as f64
}

impl Scrape {
    fn masters(&self, write: &mut Writer<'_>) -> fmt::Result {
        let up = |app: &Shown| f64::from(u8::from(app.error.is_none()));
        let ups = self.apps.iter().map(|app| (vec![("app", app.name.clone())], up(app))).collect();
        write.gauge("up", "Whether the master answers", ups)?;
        let about = self.some_of_apps(|status| {
            let words = [("version", &status.version), ("mode", &status.mode), ("policy", &status.policy)];
            vec![(words.into_iter().map(|(name, value)| (name, value.clone())).collect(), 1.0)]
        });
        write.gauge("build_info", "Version, mode and policy; always 1", about)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let start = self.of_apps(|status| now - status.uptime_s);
        write.gauge_in("start_time", Unit::Seconds, "When the master started, since the epoch", start)?;
        write.gauge("stopping", "Whether it stops", self.of_apps(|status| f64::from(u8::from(status.stopping))))?;
        write.gauge(
            "generation",
            "The last generation that served in every slot",
            self.of_apps(|status| f64::from(status.generation)),
        )?;
        write.gauge(
            "reloading",
            "Whether a reload is under way",
            self.of_apps(|status| f64::from(u8::from(status.reloading.is_some()))),
        )?;
        write.counter(
            "upgrades",
            "How often the master's binary was replaced",
            self.of_apps(|status| status.upgrades.into()),
        )?;
        write.seconds_counter(
            "master_cpu",
            "Processor time of the master",
            self.of_apps(|status| status.master.cpu_s),
        )?;
        write.gauge_in(
            "master_resident_memory",
            Unit::Bytes,
            "Resident memory of the master",
            self.of_apps(|status| float(status.master.rss_bytes)),
        )?;
        write.counter(
            "log_lines_left_out",
            "Lines of the log that workers provoked and that were left out",
            self.of_apps(|status| status.log_left_out),
        )?;
        write.counter("log_lines_lost", "Lines that could not be written", self.of_apps(|status| status.lines_lost))
    }

    fn connections(&self, write: &mut Writer<'_>) -> fmt::Result {
        let at = |value: fn(&crate::control::status::Listener) -> u64| {
            self.some_of_apps(|status| {
                let listeners = status.listeners.iter();
                listeners.map(|listener| (vec![("address", listener.address.clone())], value(listener))).collect()
            })
        };
        write.counter(
            "connections_accepted",
            "Connections accepted at an address",
            at(|listener| listener.accepted),
        )?;
        let queued =
            at(|listener| listener.queued.into()).into_iter().map(|(labels, count)| (labels, float(count))).collect();
        write.gauge("connections_queued", "Connections that wait in the kernel's accept queue", queued)?;
        write.counter("connections_handed", "Connections handed to a slot", self.of_slots(|worker| worker.handed))?;
        write.counter(
            "connections_taken",
            "Connections that a slot's workers received",
            self.of_slots(|worker| worker.taken),
        )?;
        write.counter(
            "connections_returned",
            "Connections that a slot's workers sent back",
            self.of_slots(|worker| worker.returned),
        )?;
        write.counter(
            "connections_rescued",
            "Connections taken back from a slot's workers",
            self.of_slots(|worker| worker.rescued),
        )?;
        write.counter(
            "connections_truncated",
            "Connections lost in a worker without a free descriptor",
            self.of_slots(|worker| worker.truncated),
        )?;
        let refused = self.by("reason", |status| {
            let refused = &status.admission;
            let reasons = [
                ("full", refused.refused_full),
                ("waited", refused.refused_waited),
                ("source-open", refused.refused_source_open),
                ("source-rate", refused.refused_source_rate),
                ("returned", refused.refused_returned),
            ];
            reasons.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
        });
        write.counter("connections_refused", "Connections turned away, by the reason", refused)?;
        write.counter(
            "connections_lost",
            "Connections that no worker could get; must stay 0",
            self.of_apps(|status| status.totals.lost),
        )?;
        write.gauge(
            "connections_held",
            "Connections that the master holds until a worker can have them",
            self.of_apps(|status| float(status.totals.held)),
        )?;
        write.gauge(
            "admission_full",
            "Whether a limit admits no connection now",
            self.of_apps(|status| f64::from(u8::from(status.admission.full))),
        )?;
        let waits = self.told().filter(|(_, status)| !status.counts.front_wait.counts.is_empty());
        let waits =
            waits.map(|(app, status)| (vec![("app", app.name.clone())], status.counts.front_wait.clone())).collect();
        write.histogram(
            "front_wait",
            "How long connections wait between accept and the queue of a worker; one of 64 is timed",
            waits,
        )?;
        write.gauge(
            "fairness_jain_ratio",
            "Jain's index of the connections of each slot; 1 is even",
            self.of_apps(|status| status.fairness.jain),
        )?;
        write.gauge(
            "fairness_max_over_mean_ratio",
            "The connections of the slot with the most over the mean; 1 is even",
            self.of_apps(|status| status.fairness.max_over_mean),
        )
    }

    fn workers(&self, write: &mut Writer<'_>) -> fmt::Result {
        write.gauge("workers", "Slots", self.of_apps(|status| status.workers.len() as f64))?;
        write.gauge("workers_ready", "Slots whose worker serves", self.of_apps(|status| status.ready() as f64))?;
        let states = self.some_of_apps(|status| {
            let of = |worker: &Worker| {
                let (slot, state) = (worker.slot.to_string(), worker.state.clone());
                STATES.map(|name| {
                    (vec![("slot", slot.clone()), ("state", name.to_owned())], f64::from(u8::from(state == name)))
                })
            };
            status.workers.iter().flat_map(of).collect()
        });
        write.gauge("worker_state", "1 for the state that a slot is in", states)?;
        write.gauge(
            "worker_generation",
            "The generation of a slot's worker",
            self.of_slots(|worker| f64::from(worker.generation)),
        )?;
        write.gauge(
            "worker_connections_open",
            "Connections that a slot's worker has open",
            self.of_slots(|worker| float(worker.open)),
        )?;
        write.gauge(
            "worker_connections_waiting",
            "Connections that a slot's worker has not taken",
            self.of_slots(|worker| float(worker.queued)),
        )?;
        write.seconds_counter(
            "worker_cpu",
            "Processor time of a slot's living processes",
            self.of_slots(|worker| worker.cpu_s),
        )?;
        write.gauge_in(
            "worker_resident_memory",
            Unit::Bytes,
            "Resident memory of a slot's processes",
            self.of_slots(|worker| float(worker.rss_bytes)),
        )
    }

    fn happenings(&self, write: &mut Writer<'_>) -> fmt::Result {
        let pairs = |counts: &std::collections::BTreeMap<String, u64>| counts.clone().into_iter().collect::<Vec<_>>();
        write.counter(
            "worker_restarts",
            "Workers that took the place of another, by the reason",
            self.by("reason", |status| pairs(&status.counts.restarts)),
        )?;
        write.counter(
            "worker_exits",
            "Workers that ended, by the reason",
            self.by("reason", |status| pairs(&status.counts.exits)),
        )?;
        write.counter(
            "worker_stalls",
            "Signs that a worker does not work, by the sign",
            self.by("sign", |status| pairs(&status.counts.stalls)),
        )?;
        let reloads = self.some_of_apps(|status| {
            let results = [("done", &status.counts.reloads_done), ("given-up", &status.counts.reloads_given_up)];
            let told = results.into_iter().filter(|(_, times)| !times.counts.is_empty());
            told.map(|(result, times)| (vec![("result", result.to_owned())], times.clone())).collect()
        });
        write.histogram("reload_duration", "How long reloads took, by their result", reloads)?;
        write.counter("events", "Events, as `maitred events` tells them", self.of_apps(|status| status.counts.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::time::Duration;

    /// An app in which everything happened that is counted.
    fn sample() -> Shown {
        let mut status: Status = serde_json::from_str(include_str!("metrics/sample.json")).unwrap();
        let once = |reason: &str| BTreeMap::from([(reason.to_owned(), 1)]);
        (status.counts.restarts, status.counts.exits) = (once("signal"), once("exit"));
        status.counts.stalls = once("untaken");
        for times in
            [&mut status.counts.reloads_done, &mut status.counts.reloads_given_up, &mut status.counts.front_wait]
        {
            *times = Histogram::new(&[1.0]);
            times.count(Duration::from_millis(500));
            times.count(Duration::from_secs(2));
        }
        Shown { name: "shop".to_owned(), status: Some((Arc::new(status), Duration::ZERO)), error: None }
    }

    fn written(apps: Vec<Shown>, format: Format) -> String {
        metrics(apps, OwnCounts::default(), format).unwrap()
    }

    #[test]
    fn names_labels_and_types_are_those_of_the_list() {
        let text = written(vec![sample()], Format::Text);
        let mut found = BTreeSet::new();
        let mut kind = "";
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                kind = typed.split_once(' ').unwrap().1;
            } else if !line.starts_with('#') {
                let (series, _) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let names: Vec<&str> = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).collect();
                found.insert(format!("{name}{{{}}} {kind}", names.join(",")));
            }
        }
        let found: String = found.into_iter().map(|line| line + "\n").collect();
        // Programs rely on them: a line may be added, and none may go.
        assert_eq!(found, include_str!("metrics/names.txt"), "{found}");
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound_in_both_formats() {
        for format in [Format::Text, Format::OpenMetrics] {
            let text = written(vec![sample()], format);
            let buckets: Vec<&str> =
                text.lines().filter(|line| line.starts_with("maitred_front_wait_seconds_bucket")).collect();
            assert!(
                matches!(buckets[..], [one, all] if one.ends_with("} 1") && all.contains("+Inf") && all.ends_with("} 2")),
                "{buckets:?}"
            );
            assert!(text.contains("maitred_front_wait_seconds_sum{app=\"shop\"} 2.5\n"));
        }
        assert!(written(Vec::new(), Format::OpenMetrics).ends_with("# EOF\n"));
    }

    #[test]
    fn an_app_that_does_not_answer_has_no_metric_but_that() {
        let silent = Shown { error: Some("it hangs".to_owned()), ..sample() };
        let text = written(vec![silent, Shown { name: "api".to_owned(), ..sample() }], Format::Text);
        let of_shop: Vec<&str> = text.lines().filter(|line| line.contains("app=\"shop\"")).collect();
        assert_eq!(of_shop, ["maitred_up{app=\"shop\"} 0.0"]);
        assert!(text.contains("maitred_workers{app=\"api\"}"));
    }
}
