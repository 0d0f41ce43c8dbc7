//! Measures the operator on a control plane of its own: how long many resources take from nothing to applied, what
//! memory it takes for them, how soon a deleted child is back, and what it writes when nothing changes.
//!
//! `measure-operator [RESOURCES] [SECONDS]`: 1000 resources, watched for 60 seconds once they are settled.
//!
//! Until all is applied, what makes pods of it is held up: controllers, scheduler and simulated nodes of so many pods
//! would take most of a small machine, and elsewhere aren't beside the operator. `HOLD=no` lets them work at once.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use luminate_cluster::{Cluster, Installation, Namespace, Operator, until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How many ask the API server at once.
const CLIENTS: usize = 8;
/// What works on what was applied.
const OTHERS: [&str; 4] = ["kube-controller-manager", "kube-scheduler", "kwok", "metrics-server"];
/// How many children are deleted, one after the other.
const DELETED: usize = 20;

fn main() {
    let number =
        |at: usize, usual| std::env::args().nth(at).map_or(usual, |given| given.parse().expect("a number"));
    let (resources, seconds) = (number(1, 1_000), number(2, 60));
    let cluster = Cluster::start();
    let installation = Installation::everywhere(&cluster);
    let operator = installation.operator().start();
    until("it leads", || operator.leads());
    thread::sleep(Duration::from_secs(5));
    println!("RSS idle: {:.1} MiB", rss(&operator, "VmRSS:"));

    let namespace = cluster.namespace();
    let hold = std::env::var_os("HOLD").is_none_or(|set| set != "no");
    let others = |signal| OTHERS.iter().filter(|_| hold).for_each(|part| cluster.signal(part, signal));
    others(Signal::SIGSTOP);
    // To ask for all of them now and then would cost much of what is being measured.
    let seen = namespace.watch("luminate");
    let began = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let namespace = &namespace;
            scope.spawn(move || (client..resources).step_by(CLIENTS).for_each(|at| make(namespace, at)));
        }
    });
    println!(
        "{resources} resources, half of each backend, made after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    patiently("all are applied", || seen.count(is_applied) == resources);
    println!("all are applied after {:.1} s", began.elapsed().as_secs_f64());
    others(Signal::SIGCONT);
    println!("RSS then: {:.1} MiB, at most {:.1} MiB", rss(&operator, "VmRSS:"), rss(&operator, "VmHWM:"));
    patiently("all are ready", || seen.count(is_ready) == resources);
    println!("all are ready after {:.1} s", began.elapsed().as_secs_f64());
    println!("writes: {}", writes(&operator));

    let mut delays: Vec<u128> = (0..DELETED.min(resources)).map(|at| back_after(&namespace, at)).collect();
    delays.sort_unstable();
    println!(
        "a deleted Service is back after {} ms, at most {} ms",
        delays[delays.len() / 2],
        delays[delays.len() - 1]
    );

    settle(&operator);
    let before = writes(&operator);
    thread::sleep(Duration::from_secs(seconds as u64));
    println!("writes in {seconds} s when settled: {}", writes(&operator) - before);
    println!("RSS settled: {:.1} MiB", rss(&operator, "VmRSS:"));
    operator.stop();
}

fn make(namespace: &Namespace<'_>, at: usize) {
    let spec = match at % 2 {
        0 => "{backend: RocksDB}".to_owned(),
        _ => "{backend: ClickHouse, clickhouse: {endpoints: ['http://clickhouse:8123'], autoscaling: {minReplicas: 1}}}"
            .to_owned(),
    };
    let manifest = format!(
        "{{apiVersion: luminate.dev/v1alpha1, kind: Luminate, metadata: {{name: r{at}}}, spec: {spec}}}"
    );
    namespace.create("luminate", &manifest).unwrap_or_else(|refusal| panic!("{refusal}"));
}

/// Whether the status speaks of the newest generation: all of the resource's objects have been applied then.
fn is_applied(resource: &Value) -> bool {
    resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
}

fn is_ready(resource: &Value) -> bool {
    resource["status"]["readyReplicas"] == 1
}

/// Milliseconds from a Service's deletion until there is one again.
fn back_after(namespace: &Namespace<'_>, at: usize) -> u128 {
    let name = format!("r{at}");
    let gone = namespace.get("service", &name).expect("it was applied")["metadata"]["uid"].clone();
    namespace.delete("service", &name);
    let began = Instant::now();
    until("it is back", || {
        namespace.get("service", &name).is_some_and(|service| service["metadata"]["uid"] != gone)
    });
    began.elapsed().as_millis()
}

fn settle(operator: &Operator) {
    let mut last = writes(operator);
    patiently("nothing is written for five seconds", || {
        thread::sleep(Duration::from_secs(5));
        let now = writes(operator);
        std::mem::replace(&mut last, now) == now
    });
}

/// Looks once a second, for an hour.
fn patiently(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(3_600), "still not: {what}");
        thread::sleep(Duration::from_secs(1));
    }
}

fn writes(operator: &Operator) -> f64 {
    operator.metric("luminate_operator_writes_total", &[])
}

/// What the kernel says of its memory, in MiB.
fn rss(operator: &Operator, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", operator.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
    let kilobytes = line.split_whitespace().nth(1).and_then(|value| value.parse::<f64>().ok());
    kilobytes.expect("a number") / 1_024.0
}
