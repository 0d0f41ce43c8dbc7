//! `POST /api/v2/write` and `/write`: InfluxDB's line protocol, with InfluxDB's own client for Python too.

use std::process::Command;

use luminate_tests::client::now;
use luminate_tests::token;
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

fn raw(metric: &str) -> Value {
    json!({"queryType": "range", "metricName": metric, "timeRange": {"relative": "1h"}})
}

/// What Telegraf sends of a machine, as its serializer writes it.
#[test]
fn what_telegraf_sends_becomes_metrics_of_measurement_and_field() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() / 1_000 * 1_000 - 10_000;
    let body = format!(
        "cpu,cpu=cpu-total,host=web\\ 1 usage_idle=98.5,usage_user=1.25 {t}000000\n\
         disk,device=vda,host=web\\ 1,path=/ free=54775513088i,inodes_free=15728640u {t}000000\n\
         system,host=web\\ 1 load1=0.25,uptime_format=\" 2:14, up\" {t}000000\n"
    );
    let answer = client.send("POST", "/api/v2/write?org=o&bucket=telegraf", &[], body.as_bytes());
    assert_eq!(answer.status, 204, "{}", answer.text());
    for (metric, value, dimensions) in [
        ("cpu_usage_idle", json!(98.5), json!({"cpu": "cpu-total", "host": "web 1"})),
        ("disk_free", json!(54_775_513_088.0), json!({"device": "vda", "host": "web 1", "path": "/"})),
        ("disk_inodes_free", json!(15_728_640.0), json!({"device": "vda", "host": "web 1", "path": "/"})),
        ("system_load1", json!(0.25), json!({"host": "web 1"})),
    ] {
        assert_eq!(
            client.rows(&raw(metric)),
            [json!({"timestamp": t, "value": value, "dimensions": dimensions})],
            "{metric}"
        );
    }
    assert!(client.rows(&raw("system_uptime_format")).is_empty(), "a string is no sample");
}

#[test]
fn the_versions_of_the_interface_mean_the_same_series() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() / 1_000 * 1_000 - 10_000;
    for (path, time) in [
        ("/api/v2/write?precision=ms", t),
        ("/write?db=a&precision=s", t / 1_000 + 1),
        ("/write?precision=u&rp=b", (t + 2_000) * 1_000),
    ] {
        let answer = client.send("POST", path, &[], format!("m,b=2,a=1 f=1 {time}").as_bytes());
        assert_eq!(answer.status, 204, "{path}: {}", answer.text());
    }
    client.store(&[luminate_tests::client::sample("m_f", t + 3_000, 1.0, &[("a", "1"), ("b", "2")])]);
    let times: Vec<Value> = client.rows(&raw("m_f")).iter().map(|row| row["timestamp"].clone()).collect();
    assert_eq!(times, [json!(t), json!(t + 1_000), json!(t + 2_000), json!(t + 3_000)]);
    let counts = client.get("/api/v1/cardinality").expect(200)["cardinality"].take();
    assert_eq!((counts.as_array().map(Vec::len), &counts[0]["series"]), (Some(1), &json!(1)));
    assert_eq!(client.get("/ping").status, 204);
}

#[test]
fn refused_fields_are_told_and_the_others_stored() {
    let worker = Worker::start();
    let client = worker.client();
    let answer = client.send("POST", "/write", &[], b"m f=1,g=nan\nm,a f=2\nm f=3 12\nm h=4");
    assert_eq!(answer.status, 400);
    let told: Value = serde_json::from_str(&answer.text()).expect("JSON");
    assert_eq!((&told["accepted"], &told["rejected"]), (&json!(2), &json!(3)));
    let listed: Vec<_> = told["errors"].as_array().expect("a list").iter().collect();
    let codes: Vec<_> = listed.iter().map(|error| error["code"].as_str().expect("a code")).collect();
    assert_eq!(codes, ["INVALID_VALUE", "INVALID_SAMPLE", "TIMESTAMP_OUT_OF_RANGE"]);
    assert_eq!((client.count("m_f"), client.count("m_h")), (1, 1));
}

#[test]
fn influxdbs_own_client_writes_for_its_tenant() {
    let worker = Setup::new().with_auth().start();
    let python = luminate_tests::python::interpreter();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/it/influx.py");
    let (url, token, time) = (format!("http://{}", worker.address()), token::of("acme"), now() - 5_000);
    let output = Command::new(python).args([script, &url, &token, &time.to_string()]).output();
    let output = output.expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), "everything holds");
    let client = worker.client_of("acme");
    let expected: Vec<Value> = (0..3)
        .map(
            |at| json!({"timestamp": time + at, "value": at as f64 + 0.5, "dimensions": {"host": "a b,c=d"}}),
        )
        .collect();
    assert_eq!(client.rows(&raw("my_disk_used")), expected);
    assert_eq!((client.count("my_disk_whole"), client.count("ok_value")), (3, 1));
    assert!(worker.client_of("other").rows(&raw("my_disk_used")).is_empty());
}
