use super::*;

fn check(workload: Workload, asked: Options) -> Result<Load, String> {
    load(workload, &asked).map_err(|error| error.to_string())
}

#[test]
fn what_is_not_asked_for_the_workload_supplies() {
    let load = check(Workload::Trickle, Options::default()).unwrap();
    assert_eq!((load.arrival, load.exchanges), (Arrival::Closed { clients: 1 }, 1));
    let load = check(Workload::LongLived, Options::default()).unwrap();
    assert_eq!((load.protocol, load.exchanges), (Protocol::KeepAlive, 2));
    let load = check(Workload::Cheap, Options { rate: Some(100.0), ..Options::default() }).unwrap();
    assert_eq!(load.arrival, Arrival::Open { per_second: 100.0 });
}

#[test]
fn contradictions_are_named() {
    let asked = |asked| check(Workload::Trickle, asked).unwrap_err();
    assert!(asked(Options { concurrency: Some(9), ..Options::default() }).contains("--workload trickle contradict"));
    assert!(asked(Options { rate: Some(9.0), ..Options::default() }).starts_with("--rate"));
    assert!(asked(Options { connections: Some(0), ..Options::default() }).contains("--connections must be"));
    assert!(asked(Options { requests: Some(2), ..Options::default() }).contains("keep-alive"));
    assert!(asked(Options { paths: vec!["x".into()], ..Options::default() }).contains("--path"));
    let costly = check(Workload::Costly, Options { own_server: true, ..Options::default() }).unwrap_err();
    assert!(costly.contains("--path"), "{costly}");
    for rate in [f64::NAN, 0.0, -1.0, 1e-300, f64::INFINITY] {
        assert!(check(Workload::Cheap, Options { rate: Some(rate), ..Options::default() }).is_err(), "{rate}");
    }
    for length in [Duration::ZERO, Duration::MAX] {
        assert!(check(Workload::Cheap, Options { timeout: length, ..Options::default() }).is_err());
        assert!(check(Workload::Cheap, Options { duration: Some(length), ..Options::default() }).is_err());
    }
}

fn plan(clients: usize, subjects: Vec<Subject>, workload: Workload) -> Plan {
    let asked = Options { concurrency: Some(clients), ..Options::default() };
    let load = load(Workload::Cheap, &asked).unwrap();
    let (command, choices, run_options) = (Vec::new(), Vec::new(), Vec::new());
    let (workers, repeat, address, disturb) = (2, 3, None, None);
    Plan { subjects, workload, load, workers, repeat, command, choices, run_options, address, disturb }
}

#[test]
fn too_few_descriptors_are_known_before_the_start() {
    let error = plan(1000, vec![], Workload::Cheap).check(1024).unwrap_err().to_string();
    assert!(error.contains("1000 connections at a time need 1064 descriptors, and 1024 are allowed"), "{error}");
    assert!(plan(960, vec![], Workload::Cheap).check(1024).is_ok());
}

#[test]
fn strangers_cannot_be_disturbed_and_names_are_unique() {
    let target = Subject::Target { name: "handoff".into(), address: ([127, 0, 0, 1], 1).into() };
    let both = vec![Subject::Mode(Mode::Handoff), target.clone()];
    assert!(matches!(plan(1, both, Workload::Cheap).check(1024), Err(PlanError::SameName(_))));
    assert!(plan(1, vec![target], Workload::Crash).check(1024).is_err());
    let variant =
        |name: &str, workers| Subject::Variant { name: name.into(), mode: Mode::Handoff, workers, options: Vec::new() };
    let both = vec![Subject::Mode(Mode::Handoff), variant("handoff", None)];
    assert!(matches!(plan(1, both, Workload::Cheap).check(1024), Err(PlanError::SameName(_))));
    let both = vec![variant("as many", None), variant("nine", Some(9))];
    let plan = plan(1, both, Workload::Crash).check(1024).unwrap();
    assert_eq!([0, 1].map(|index| plan.workers_of(&plan.subjects[index])), [2, 9]);
}

#[test]
fn clients_come_from_many_addresses_on_the_loopback_only() {
    let target = |address: &str| Subject::Target { name: "x".into(), address: address.parse().unwrap() };
    for (address, possible) in [("127.0.0.9:80", true), ("192.0.2.1:80", false), ("[::1]:80", false)] {
        let mut plan = plan(1, vec![target(address)], Workload::Cheap);
        plan.load.sources = Some(100);
        assert_eq!(plan.check(1024).is_ok(), possible, "{address}");
    }
}
