//! Load from inside a cluster: writes and asks steadily through a Service, counts what fails, and looks for every
//! sample that was acknowledged.
//!
//! Nothing is tried again: whatever isn't answered with 200 has failed. Half of the writers keep their connection,
//! the other half connect anew for each request, as clients of both kinds do. Pages, for who watches it:
//! `GET /counters`; `GET /found`, the counts with the number of samples in the store; `GET /stop`, which ends the
//! load first.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// No answer for so long is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many failures are told word by word.
const TOLD: usize = 20;
const METRIC: &str = "e2e";
/// Stands in a body until it is sent.
const NO_TIME: &str = "\"timestamp\":0";

/// Writes and asks steadily through a Service, and looks for every acknowledged sample.
#[derive(Debug, Parser)]
struct Options {
    /// The API: scheme, host and port
    #[arg(long)]
    url: String,
    /// The token that requests carry
    #[arg(long, env = "LUMINATE_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// What tells this load's samples from those of others
    #[arg(long)]
    run: String,
    /// How many write at once
    #[arg(long, default_value_t = 4)]
    writers: usize,
    /// Milliseconds between the writes of one of them
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Samples of a write, each of another series
    #[arg(long, default_value_t = 20)]
    samples: usize,
    /// Milliseconds between questions; 0 asks none
    #[arg(long, default_value_t = 500)]
    ask_every: u64,
    /// Where the pages are
    #[arg(long, default_value = "0.0.0.0:8090")]
    listen: SocketAddr,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    failed: AtomicU64,
    acked: AtomicU64,
    asked: AtomicU64,
    questions_failed: AtomicU64,
    slowest_ms: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Counters {
    fn fail(&self, counter: &AtomicU64, said: &str) {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut told = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD {
            told.push(format!("{}: {said}", now_ms()));
        }
    }

    fn page(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "sent": count(&self.sent),
            "failed": count(&self.failed),
            "acked": count(&self.acked),
            "asked": count(&self.asked),
            "questionsFailed": count(&self.questions_failed),
            "slowestMs": count(&self.slowest_ms),
            "failures": *self.failures.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }
}

#[derive(Debug)]
struct Load {
    options: Options,
    counters: Counters,
    began: u64,
    stopping: AtomicBool,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

type Http = Client<HttpConnector, Full<Bytes>>;

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let listener = TcpListener::bind(options.listen).await.expect("the address is free");
    let load = Arc::new(Load {
        options,
        counters: Counters::default(),
        // A clock may be set back a little while a pod moves.
        began: now_ms() - 60_000,
        stopping: AtomicBool::new(false),
        tasks: tokio::sync::Mutex::default(),
    });
    start(&load).await;
    loop {
        let (stream, _) = listener.accept().await.expect("it listens");
        let load = Arc::clone(&load);
        let service = service_fn(move |request| answer(Arc::clone(&load), request));
        tokio::spawn(async move {
            // Whoever hangs up asks again.
            let _ended = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn start(load: &Arc<Load>) {
    let mut tasks = load.tasks.lock().await;
    for writer in 0..load.options.writers {
        tasks.spawn(write(Arc::clone(load), writer));
    }
    if load.options.ask_every > 0 {
        tasks.spawn(ask(Arc::clone(load)));
    }
}

async fn answer(load: Arc<Load>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = match request.uri().path() {
        "/counters" => load.counters.page(),
        "/found" => load.found().await,
        "/stop" => {
            load.stopping.store(true, Ordering::Relaxed);
            while load.tasks.lock().await.join_next().await.is_some() {}
            load.found().await
        }
        _ => Value::Null,
    };
    let mut response = Response::new(Full::new(Bytes::from(page.to_string())));
    if page.is_null() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}

fn client(keeps: bool) -> Http {
    let idle = if keeps { usize::MAX } else { 0 };
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(idle).build_http()
}

fn now_ms() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(passed.as_millis()).expect("before the end of time")
}

fn time(at: u64) -> String {
    format!("\"timestamp\":{at}")
}

async fn write(load: Arc<Load>, writer: usize) {
    let http = client(writer.is_multiple_of(2));
    let mut ticks = interval(Duration::from_millis(load.options.every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (template, mut last) = (load.batch(writer), 0);
    while !load.stopping.load(Ordering::Relaxed) {
        ticks.tick().await;
        // No two samples of a series are of one millisecond: each is counted.
        last = now_ms().max(last + 1);
        let expected = load.options.samples as u64;
        load.counters.sent.fetch_add(1, Ordering::Relaxed);
        let answer = load.send(&http, "/api/v1/write", template.replace(NO_TIME, &time(last))).await;
        match answer {
            Ok(answer) if answer["accepted"] == expected => {
                load.counters.acked.fetch_add(expected, Ordering::Relaxed);
            }
            Ok(answer) => load.counters.fail(&load.counters.failed, &answer.to_string()),
            Err(said) => load.counters.fail(&load.counters.failed, &said),
        }
    }
}

async fn ask(load: Arc<Load>) {
    let http = client(true);
    let mut ticks = interval(Duration::from_millis(load.options.ask_every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !load.stopping.load(Ordering::Relaxed) {
        ticks.tick().await;
        load.counters.asked.fetch_add(1, Ordering::Relaxed);
        let question = load.question(json!({ "relative": "1m" }));
        if let Err(said) = load.send(&http, "/api/v1/query", question.to_string()).await {
            load.counters.fail(&load.counters.questions_failed, &said);
        }
    }
}

impl Load {
    /// A request's body but for the time of its samples: building it anew would cost more than what it measures.
    fn batch(&self, writer: usize) -> String {
        let sample = |series: usize| {
            let dimensions = json!({ "run": self.options.run, "writer": writer.to_string(), "series": series.to_string() });
            json!({ "name": METRIC, "timestamp": 0, "value": series, "dimensions": dimensions })
        };
        json!({ "metrics": (0..self.options.samples).map(sample).collect::<Vec<_>>() }).to_string()
    }

    fn question(&self, range: Value) -> Value {
        json!({
            "queryType": "aggregate",
            "metricName": METRIC,
            "timeRange": range,
            "filters": { "run": self.options.run },
            "aggregation": "count",
        })
    }

    /// The counts, and how many samples of this load the store has. While it writes that is behind by what is
    /// under way.
    async fn found(&self) -> Value {
        let mut page = self.counters.page();
        let question = self.question(json!({ "start": self.began, "end": now_ms() + 60_000 }));
        // Not a part of the load: here only the answer counts.
        for _ in 0..30 {
            match self.send(&client(false), "/api/v1/query", question.to_string()).await {
                Ok(answer) => {
                    page["found"] =
                        answer["results"][0]["value"].as_f64().map_or(json!(0), |value| json!(value as u64));
                    return page;
                }
                Err(said) => page["found"] = json!(said),
            }
            sleep(Duration::from_secs(1)).await;
        }
        page
    }

    async fn send(&self, http: &Http, path: &str, body: String) -> Result<Value, String> {
        let began = std::time::Instant::now();
        let request = Request::post(format!("{}{path}", self.options.url))
            .header(AUTHORIZATION, format!("Bearer {}", self.options.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answered = timeout(PATIENCE, exchange(http, request)).await;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.counters.slowest_ms.fetch_max(took, Ordering::Relaxed);
        let (status, body) = answered.map_err(|_| format!("{path}: no answer for {PATIENCE:?}"))??;
        if status != StatusCode::OK {
            return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"))
    }
}

async fn exchange(http: &Http, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
    let said = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    };
    let response = http.request(request).await.map_err(|error| said(&error))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| said(&error))?;
    Ok((status, body.to_bytes()))
}
