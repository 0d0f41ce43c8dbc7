//! Bulk import and export: what is moved from one worker to another is the same there, whatever is sent in between.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use luminate_tests::clickhouse::{ClickHouse, OwnDatabase};
use luminate_tests::client::{Client, now, sample};
use luminate_tests::http::{Connection, Response};
use luminate_tests::only_on;
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

const DAY: i64 = 86_400_000;
const IMPORT: &str = "/api/v1/admin/import";
const EXPORT: &str = "/api/v1/admin/export";

#[track_caller]
fn import(client: &Client, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    client.send("POST", &format!("{IMPORT}{query}"), headers, body)
}

/// Imports lines, all of which must be taken.
#[track_caller]
fn stored(client: &Client, text: &str) -> Value {
    let answer = import(client, "", &[], text.as_bytes()).expect(200);
    assert_eq!(answer["rejected"], 0, "{answer}");
    answer
}

#[track_caller]
fn export(client: &Client, query: &str) -> String {
    let answer = client.get(&format!("{EXPORT}{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.text()
}

fn line(metric: &str, values: &[f64], times: &[i64]) -> String {
    let body = json!({"metric": serde_json::from_str::<Value>(metric).expect("JSON"), "values": values, "timestamps": times});
    format!("{body}\n")
}

/// A fleet with a month of samples: a few long series, many short ones, values of every kind.
fn fleet(t: i64) -> String {
    let mut text = String::new();
    let mut random = fastrand::Rng::with_seed(11);
    for host in 0..40 {
        let times: Vec<i64> =
            (0..if host < 3 { 15_000 } else { 30 }).map(|at| t - 28 * DAY + at * 120_000).collect();
        let values: Vec<f64> = times.iter().map(|_| (random.f64() * 1e4).round() / 100.0).collect();
        text += &line(
            &format!(r#"{{"__name__":"cpu","host":"web-{host}","zone":"z{}"}}"#, host % 3),
            &values,
            &times,
        );
    }
    for series in 0..2_000 {
        let name = format!(r#"{{"__name__":"short","id":"{series:05}"}}"#);
        text += &line(&name, &[f64::from(series)], &[t - DAY * (series % 25) as i64]);
    }
    let odd = [0.0, -0.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, -1.5, 0.1 + 0.2, 9_007_199_254_740_993.0];
    let times: Vec<i64> = (0..8).map(|at| t - 20 * DAY + at).collect();
    text += &line(r#"{"__name__":"odd","text":"a \"b\", c\nd=é,{}"}"#, &odd, &times);
    text + &line(r#"{"__name__":"plain"}"#, &[1.0, 2.0], &[t, t + 1])
}

/// Starts a worker with the fleet in it.
fn filled() -> (Worker, String) {
    let worker = Worker::start();
    let text = fleet(now());
    let answer = import(&worker.client(), "", &[], text.as_bytes()).expect(200);
    assert_eq!(answer["accepted"], 3 * 15_000 + 37 * 30 + 2_000 + 8 + 2, "{answer}");
    assert_eq!((&answer["lines"], &answer["complete"]), (&json!(40 + 2_000 + 2), &json!(false)));
    (worker, text)
}

/// Moves everything from one to the other in `format`; what is exported is the same byte for byte.
#[track_caller]
fn moves(from: &Client, to: &Client, format: &str) {
    let first = export(from, &format!("?format={format}"));
    let answer = import(to, &format!("?format={format}"), &[], first.as_bytes()).expect(200);
    if format == "jsonl" {
        assert_eq!(answer["complete"], true, "{answer}");
    }
    let second = export(to, &format!("?format={format}"));
    assert!(first == second, "{format}: {} bytes became {}", first.len(), second.len());
    assert!(first.len() > 1_000_000);
}

#[test]
fn what_is_moved_is_the_same_byte_for_byte_in_either_format() {
    let (mut worker, _) = filled();
    for format in ["jsonl", "csv"] {
        let other = Worker::start();
        moves(&worker.client(), &other.client(), format);
    }
    let before = export(&worker.client(), "");
    let values = before.lines().find(|line| line.contains("\"odd\"")).expect("the odd values").to_owned();
    let read: Value = serde_json::from_str(&values).expect("JSON");
    let second = read["values"][1].as_f64().expect("a number");
    assert!(second == 0.0 && second.is_sign_negative(), "{values}");
    worker.restart();
    assert!(export(&worker.client(), "") == before, "a restart changes nothing");
}

#[test]
fn a_move_over_the_other_backend_and_back_changes_nothing() {
    only_on!(ClickHouse, "two backends at once");
    let (worker, _) = filled();
    let rocksdb = Setup::rocksdb().start();
    moves(&worker.client(), &rocksdb.client(), "jsonl");
    let own = OwnDatabase::new();
    let back = Setup::clickhouse(&ClickHouse::shared().url(), &own.name).start();
    moves(&rocksdb.client(), &back.client(), "csv");
    assert!(export(&worker.client(), "") == export(&back.client(), ""));
}

#[test]
fn an_import_that_is_repeated_changes_nothing_and_the_last_write_wins() {
    let (worker, text) = filled();
    let client = worker.client();
    let before = export(&client, "");
    stored(&client, &text);
    assert!(export(&client, "") == before);
    let t = now() - 10 * DAY;
    let twice = |values: &[f64], times: &[i64]| line(r#"{"__name__":"twice"}"#, values, times);
    let lines = [twice(&[1.0, 2.0], &[t, t]), twice(&[3.0], &[t + 1]), twice(&[4.0], &[t + 1])];
    stored(&client, &lines.concat());
    let expected = twice(&[2.0, 4.0], &[t, t + 1]).replace(".0", "");
    let found = export(&client, "?metric=twice");
    let found: Value = serde_json::from_str(found.lines().next().expect("a line")).expect("JSON");
    assert_eq!(found, serde_json::from_str::<Value>(&expected).expect("JSON"));
}

#[test]
fn age_is_bounded_by_retention_and_queries_see_what_was_imported() {
    let worker = Worker::start();
    let client = worker.client();
    let retention = json!({"default": "90d", "metrics": {"brief": "2d"}});
    assert_eq!(client.put("/api/v1/admin/retention", &retention).status, 200);
    let t = now();
    // 89 days at once: many times what a write accepts, and more days than one insert may touch.
    let times: Vec<i64> = (0..89).map(|day| t - day * DAY - 60_000).rev().collect();
    let values: Vec<f64> = (0..89).map(f64::from).collect();
    let text = line(r#"{"__name__":"m","host":"a"}"#, &values, &times)
        + &line(r#"{"__name__":"brief"}"#, &values, &times)
        + &line(r#"{"__name__":"m"}"#, &[1.0, 2.0], &[t - 91 * DAY, t + 7_200_000]);
    let answer = import(&client, "", &[], text.as_bytes()).expect(207);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(89 + 2), &json!(87 + 2)), "{answer}");
    let errors = answer["errors"].as_array().expect("errors");
    let lines: Vec<_> =
        errors.iter().map(|error| (error["line"].clone(), error["samples"].clone())).collect();
    assert_eq!(lines, [(json!(2), json!(87)), (json!(3), json!(2))]);
    assert!(errors.iter().all(|error| error["code"] == "TIMESTAMP_OUT_OF_RANGE"), "{answer}");
    let query = json!({"queryType": "aggregate", "metricName": "m", "aggregation": "sum", "timeRange": {"start": t - 90 * DAY, "end": t}});
    assert!((client.number(&query) - values.iter().sum::<f64>()).abs() < 1e-6);
    // The way of live samples stays as narrow as it was.
    assert_eq!(client.write(&[sample("m", t - 30 * DAY, 1.0, &[])]).status, 400);
}

#[test]
fn what_is_broken_is_named_by_line_and_harms_nothing_else() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now();
    let good = line(r#"{"__name__":"good"}"#, &[1.0], &[t]);
    let bad = [
        "nonsense\n".to_owned(),
        good[..good.len() / 2].to_owned() + "\n",
        line(r#"{"__name__":"a b"}"#, &[1.0], &[t]),
        line(r#"{"__name__":"m","__x":"y"}"#, &[1.0], &[t]),
        line(r#"{"host":"a"}"#, &[1.0], &[t]),
        format!("{{\"metric\":{{\"__name__\":\"m\"}},\"values\":[\"1\"],\"timestamps\":[{t}]}}\n"),
        format!("{{\"metric\":[],\"values\":[1],\"timestamps\":[{t}]}}\n"),
        "\u{1}\u{2}\n".to_owned(),
        "[".repeat(10_000) + "\n",
    ];
    let text: String = bad.iter().map(|bad| good.clone() + bad).collect();
    let answer = import(&client, "", &[], text.as_bytes()).expect(207);
    assert_eq!(
        (&answer["accepted"], &answer["rejected"]),
        (&json!(bad.len()), &json!(bad.len())),
        "{answer}"
    );
    let errors = answer["errors"].as_array().expect("errors");
    assert!(errors.iter().enumerate().all(|(at, error)| error["line"] == 2 * at + 2), "{answer}");
    // A body that lies about its encoding, or ends within it.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(good.repeat(1_000).as_bytes()).expect("a gzip stream");
    let gzip = gzip.finish().expect("a gzip stream");
    for (encoding, body) in
        [("gzip", &gzip[..gzip.len() / 2]), ("zstd", &gzip[..]), ("gzip", good.as_bytes())]
    {
        let answer = import(&client, "", &[("content-encoding", encoding)], body);
        assert_eq!(answer.refused(400), "INVALID_BODY", "{encoding}");
    }
    assert_eq!(import(&client, "", &[("content-encoding", "gzip")], &gzip).expect(200)["accepted"], 1_000);
    // A line without an end, and a bomb: memory stays where it was.
    let before = worker.rss();
    let bomb =
        zstd::stream::encode_all(std::io::Read::take(std::io::repeat(b'7'), 2 << 30), 1).expect("a bomb");
    let answer = import(&client, "", &[("content-encoding", "zstd")], &bomb);
    assert_eq!(answer.refused(400), "INVALID_BODY");
    let grown = worker.rss().saturating_sub(before);
    assert!(grown < 200 << 20, "{} MB", grown >> 20);
    assert_eq!(client.count("good"), 1);
}

#[test]
fn a_client_that_goes_away_leaves_whole_lines_behind_and_room_for_others() {
    only_on!(RocksDb, "the worker's own places; over ClickHouse they come back as fast as it stores");
    let worker = Worker::start();
    let client = worker.client();
    let t = now();
    for _ in 0..6 {
        let mut connection = Connection::open(worker.address()).expect("the worker listens");
        let head = format!("POST {IMPORT} HTTP/1.1\r\nhost: luminate\r\ncontent-length: 100000000\r\n\r\n");
        // One that is refused hangs up before it has all.
        let _ = connection.send(head.as_bytes());
        let _ = connection.send(line(r#"{"__name__":"m"}"#, &[1.0], &[t]).as_bytes());
        let _ = connection.send(b"{\"metric\":");
    }
    let mut answer = import(&client, "", &[], line(r#"{"__name__":"n"}"#, &[1.0], &[t]).as_bytes());
    // Each of those that went away ends once its line is stored, which takes a busy server its time.
    for _ in 0..900 {
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.refused(429), "RATE_LIMITED");
        thread::sleep(Duration::from_millis(100));
        answer = import(&client, "", &[], line(r#"{"__name__":"n"}"#, &[1.0], &[t]).as_bytes());
    }
    assert_eq!(answer.expect(200)["accepted"], 1);
    assert!(client.count("m") <= 1);
}

#[test]
fn an_export_has_all_that_was_there_before_while_writes_go_on() {
    let (worker, _) = filled();
    let client = worker.client();
    let before = export(&client, "?metric=cpu");
    let stop = Arc::new(AtomicBool::new(false));
    let writing = thread::spawn({
        let (client, stop) = (worker.client(), stop.clone());
        move || {
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                let host = format!("new-{}", at % 50);
                client.store(&[sample("cpu", now(), f64::from(at), &[("host", &host), ("zone", "z0")])]);
                at += 1;
            }
        }
    });
    for _ in 0..3 {
        let during = export(&client, "?metric=cpu");
        let old = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.contains("\"web-")).map(str::to_owned).collect()
        };
        assert!(old(&during) == old(&before));
        let summary: Value = serde_json::from_str(during.lines().last().expect("a summary")).expect("JSON");
        let counted: usize = during
            .lines()
            .filter_map(|line| {
                serde_json::from_str::<Value>(line).expect("JSON")["values"].as_array().map(Vec::len)
            })
            .sum();
        assert_eq!(summary["summary"]["samples"], counted, "{summary}");
    }
    stop.store(true, Ordering::Relaxed);
    writing.join().expect("the writer goes on");
}

#[test]
fn an_export_chooses_metric_time_and_series_and_may_be_compressed() {
    let (worker, _) = filled();
    let client = worker.client();
    let t = now();
    let one = export(&client, "?metric=cpu&filters=%7B%22host%22:%22web-7%22%7D");
    assert_eq!(one.lines().count(), 2, "{one}");
    let summary = |text: &str| -> Value {
        serde_json::from_str::<Value>(text.lines().last().expect("a line")).expect("JSON")["summary"].clone()
    };
    assert_eq!(summary(&one), json!({"metrics": 1, "series": 1, "samples": 30}));
    let week = export(
        &client,
        &format!("?metric=short&start={}&end={}", t - 7 * DAY - 60_000, t - 6 * DAY - 60_000),
    );
    assert_eq!(summary(&week), json!({"metrics": 1, "series": 80, "samples": 80}));
    assert_eq!(
        summary(&export(&client, "?metric=nothing")),
        json!({"metrics": 0, "series": 0, "samples": 0})
    );
    let plain = export(&client, "");
    for encoding in ["gzip", "zstd"] {
        let answer = client.send("GET", EXPORT, &[("accept-encoding", encoding)], &[]);
        assert_eq!(answer.header("content-encoding"), Some(encoding));
        assert!(answer.body.len() < plain.len() / 2);
        let headers = [("content-encoding", encoding)];
        assert_eq!(import(&client, "", &headers, &answer.body).expect(200)["complete"], true);
    }
}

#[test]
fn csv_from_elsewhere_is_mapped() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() / 1_000 * 1_000;
    let mut text = String::from("ticker,ask,bid,when\r\n");
    for at in 0..100 {
        write!(text, "\"GO\"\"OG\",{}.5,{at},{}\r\n", at + 1, t / 1_000 - 40 * at).expect("text");
    }
    let query = "?format=csv&header=true&columns=1:label:ticker,2:metric:ask,3:metric:bid,4:time:unix_s";
    let answer = import(&client, query, &[], text.as_bytes()).expect(200);
    assert_eq!((&answer["accepted"], &answer["lines"]), (&json!(200), &json!(101)), "{answer}");
    let found = export(&client, "?metric=ask&format=csv");
    assert_eq!(found.lines().count(), 101);
    assert!(
        found.lines().all(|line| line.ends_with("\"GO\"\"OG\"") || line.starts_with("__name__")),
        "{found}"
    );
}

#[test]
fn tenants_export_and_import_only_what_is_theirs() {
    let worker = Setup::new().with_auth().start();
    let (one, two) = (worker.client_of("one"), worker.client_of("two"));
    let t = now();
    stored(&one, &line(r#"{"__name__":"m","k":"one"}"#, &[1.0], &[t]));
    stored(&two, &line(r#"{"__name__":"m","k":"two"}"#, &[2.0], &[t]));
    assert!(export(&one, "").contains("\"one\"") && !export(&one, "").contains("\"two\""));
    assert!(export(&two, "?format=csv").contains(",two") && !export(&two, "?format=csv").contains(",one"));
}
