//! `POST /api/v1/query`: every kind of question with answers worked out by hand.

use luminate_tests::client::{Client, now, sample};
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

/// An hour ago, at a full minute.
fn base() -> i64 {
    now() / 60_000 * 60_000 - 3_600_000
}

fn aggregate(t: i64, aggregation: &str) -> Value {
    json!({"queryType": "aggregate", "metricName": "m", "aggregation": aggregation,
           "timeRange": {"start": t, "end": t + 600_000}})
}

fn with(mut query: Value, more: Value) -> Value {
    let (Value::Object(own), Value::Object(more)) = (&mut query, more) else { panic!("objects") };
    own.extend(more);
    query
}

fn column(rows: &[Value], name: &str) -> Vec<Value> {
    rows.iter().map(|row| row[name].clone()).collect()
}

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
}

/// Two hosts in two regions, and a series without a region.
fn fleet(client: &Client, t: i64) {
    client.store(&[
        sample("m", t, 1.0, &[("host", "a"), ("region", "eu")]),
        sample("m", t + 10_000, 2.0, &[("host", "a"), ("region", "eu")]),
        sample("m", t + 20_000, 10.0, &[("host", "a"), ("region", "eu")]),
        sample("m", t, 4.0, &[("host", "b"), ("region", "us")]),
        sample("m", t + 70_000, 3.0, &[("host", "b"), ("region", "us")]),
        sample("m", t + 30_000, 7.0, &[("host", "c")]),
        sample("other", t, 1_000.0, &[("host", "a")]),
    ]);
}

#[test]
fn the_nine_aggregations_over_everything_in_range() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    fleet(&client, t);
    // Sorted: 1 2 3 4 7 10. Ranks of percentiles: p · 5.
    for (aggregation, value) in [
        ("avg", 27.0 / 6.0),
        ("sum", 27.0),
        ("count", 6.0),
        ("min", 1.0),
        ("max", 10.0),
        ("p50", 3.5),
        ("p95", 7.0 + 0.75 * 3.0),
        ("p99", 7.0 + 0.95 * 3.0),
        ("integral", 15.0 + 60.0 + 245.0),
    ] {
        let rows = client.rows(&aggregate(t, aggregation));
        assert_eq!(rows.len(), 1, "{aggregation}");
        let found = rows[0]["value"].as_f64().unwrap();
        assert!(close(found, value), "{aggregation}: {found}, not {value}");
        assert_eq!(rows[0]["count"], 6, "{aggregation}");
        assert!(rows[0].get("timestamp").is_none(), "no interval, no time: {}", rows[0]);
    }
}

#[test]
fn groups_come_in_order_with_the_absent_key_first() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    fleet(&client, t);
    let rows = client.rows(&with(aggregate(t, "sum"), json!({"groupBy": ["region"]})));
    assert_eq!(column(&rows, "groupKey"), [json!({}), json!({"region": "eu"}), json!({"region": "us"})]);
    assert_eq!(column(&rows, "value"), [json!(7.0), json!(13.0), json!(7.0)]);
    let rows =
        client.rows(&with(aggregate(t, "max"), json!({"groupBy": ["host", "nothing"], "interval": "1m"})));
    assert_eq!(
        rows,
        [
            json!({"groupKey": {"host": "a"}, "timestamp": t, "value": 10.0, "count": 3}),
            json!({"groupKey": {"host": "b"}, "timestamp": t, "value": 4.0, "count": 1}),
            json!({"groupKey": {"host": "b"}, "timestamp": t + 60_000, "value": 3.0, "count": 1}),
            json!({"groupKey": {"host": "c"}, "timestamp": t, "value": 7.0, "count": 1}),
        ]
    );
}

#[test]
fn filters_must_all_hold_and_what_does_not_exist_is_empty() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    fleet(&client, t);
    let filtered = |filters: Value| client.rows(&with(aggregate(t, "count"), json!({"filters": filters})));
    assert_eq!(filtered(json!({"region": "eu"}))[0]["count"], 3);
    assert_eq!(filtered(json!({"region": "us", "host": "b"}))[0]["count"], 2);
    assert!(filtered(json!({"region": "us", "host": "a"})).is_empty());
    assert!(filtered(json!({"nothing": "x"})).is_empty());
    assert!(client.rows(&with(aggregate(t, "count"), json!({"metricName": "nothing"}))).is_empty());
}

#[test]
fn one_of_each_list_must_hold_in_every_kind_of_question() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    fleet(&client, t);
    let listed = |more: Value| client.rows(&with(aggregate(t, "sum"), more));
    assert_eq!(listed(json!({"filtersIn": {"host": ["a", "c", "a", "nobody"]}}))[0]["value"], 20.0);
    assert_eq!(listed(json!({"filtersIn": {"host": ["a", "b"], "region": ["us"]}}))[0]["value"], 7.0);
    assert_eq!(
        listed(json!({"filters": {"region": "eu"}, "filtersIn": {"host": ["b", "a"]}}))[0]["count"],
        3
    );
    assert!(listed(json!({"filters": {"region": "eu"}, "filtersIn": {"host": ["b"]}})).is_empty());
    assert!(listed(json!({"filtersIn": {"region": [""]}})).is_empty(), "an absent key equals nothing");
    let many: Vec<String> = (0..999).map(|n| format!("h{n}")).chain(["c".to_owned()]).collect();
    let rows = listed(json!({"filtersIn": {"host": many}, "groupBy": ["host"], "interval": "1m"}));
    assert_eq!(rows, [json!({"groupKey": {"host": "c"}, "timestamp": t, "value": 7.0, "count": 1})]);
    let range = json!({"start": t, "end": t + 600_000});
    let two = json!({"host": ["b", "c"]});
    let raw = json!({"queryType": "range", "metricName": "m", "timeRange": range, "filtersIn": two});
    assert_eq!(column(&client.rows(&raw), "value"), [json!(4.0), json!(7.0), json!(3.0)]);
    let rate = json!({"queryType": "rate", "metricName": "m", "timeRange": range, "filtersIn": two,
                      "groupBy": ["host"], "interval": "10m"});
    assert_eq!(column(&client.rows(&rate), "groupKey"), [json!({"host": "b"})]);
    let plan = client.post("/api/v1/query/explain", &raw).expect(200);
    assert_eq!(plan["series"], 2, "{plan}");
    assert!(plan["steps"][0].as_str().unwrap().contains(r#"host in ["b", "c"]"#), "{plan}");
}

#[test]
fn series_hold_what_rows_say() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    fleet(&client, t);
    let series = |query: Value| client.rows(&with(query, json!({"layout": "series"})));
    assert_eq!(
        series(with(aggregate(t, "max"), json!({"groupBy": ["host"], "interval": "1m"}))),
        [
            json!({"groupKey": {"host": "a"}, "timestamps": [t], "values": [10.0], "counts": [3]}),
            json!({"groupKey": {"host": "b"}, "timestamps": [t, t + 60_000], "values": [4.0, 3.0], "counts": [1, 1]}),
            json!({"groupKey": {"host": "c"}, "timestamps": [t], "values": [7.0], "counts": [1]}),
        ]
    );
    let one = series(aggregate(t, "sum"));
    assert_eq!(one, [json!({"groupKey": {}, "values": [27.0], "counts": [6]})]);
    let range = json!({"start": t, "end": t + 600_000});
    let raw = json!({"queryType": "range", "metricName": "m", "timeRange": range, "limit": 5});
    assert_eq!(
        series(raw.clone()),
        [
            json!({"dimensions": {"host": "a", "region": "eu"},
                   "timestamps": [t, t + 10_000, t + 20_000], "values": [1.0, 2.0, 10.0]}),
            json!({"dimensions": {"host": "b", "region": "us"}, "timestamps": [t], "values": [4.0]}),
            json!({"dimensions": {"host": "c"}, "timestamps": [t + 30_000], "values": [7.0]}),
        ],
        "the first five rows, whatever the layout"
    );
    assert_eq!(
        client.post("/api/v1/query", &with(raw, json!({"layout": "rows"}))).expect(200)["truncated"],
        true
    );
    let rate = json!({"queryType": "rate", "metricName": "m", "timeRange": range, "filters": {"host": "a"},
                      "interval": "10m"});
    let bucket = t.div_euclid(600_000) * 600_000;
    assert_eq!(series(rate), [json!({"groupKey": {}, "timestamps": [bucket], "rates": [9.0 / 600.0]})]);
    let none = with(aggregate(t, "sum"), json!({"metricName": "nothing"}));
    assert!(series(none).is_empty());
}

#[test]
fn rows_out_of_bounds_are_not_in_the_answer() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    client.store(&[
        sample("m", t, 95.0, &[("host", "a")]),
        sample("m", t + 1_000, 20.0, &[("host", "a")]),
        sample("m", t, 91.0, &[("host", "b")]),
        sample("m", t + 1, 90.0, &[("host", "b")]),
    ]);
    let range = json!({"start": t, "end": t + 60_000});
    let raw = json!({"queryType": "range", "metricName": "m", "timeRange": range, "having": {"gt": 90}});
    assert_eq!(column(&client.rows(&raw), "value"), [json!(95.0), json!(91.0)]);
    let busy = |having: Value| {
        client.rows(
            &json!({"queryType": "aggregate", "metricName": "m", "timeRange": range, "aggregation": "avg",
                            "groupBy": ["host"], "having": having}),
        )
    };
    assert_eq!(column(&busy(json!({"gte": 57.5, "lt": 90.5})), "groupKey"), [json!({"host": "a"})]);
    assert_eq!(column(&busy(json!({"gt": 57.5})), "groupKey"), [json!({"host": "b"})]);
    assert!(busy(json!({"gt": 57.5, "lte": 57.5})).is_empty());
    let plan = client.post("/api/v1/query/explain", &raw).expect(200);
    let last = plan["steps"].as_array().unwrap().last().unwrap();
    assert!(last.as_str().unwrap().ends_with("rows whose number is > 90"), "{plan}");
}

#[test]
fn ranges_are_half_open_and_ordered_by_time_then_series() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    client.store(&[
        sample("m", t, 1.0, &[("b", "1")]),
        sample("m", t, 2.0, &[("a", "2")]),
        sample("m", t, 3.0, &[("a", "10")]),
        sample("m", t, 4.0, &[]),
        sample("m", t - 1, 0.0, &[]),
        sample("m", t + 5, 5.0, &[]),
    ]);
    let query = |start: i64, end: i64| json!({"queryType": "range", "metricName": "m", "timeRange": {"start": start, "end": end}});
    let values = |start, end| column(&client.rows(&query(start, end)), "value");
    assert_eq!(values(t, t + 5), [json!(4.0), json!(3.0), json!(2.0), json!(1.0)]);
    assert_eq!(values(t + 5, t + 6), [json!(5.0)]);
    let body = client.query(&with(query(t - 1, t + 6), json!({"limit": 2}))).expect(200);
    assert_eq!(column(body["results"].as_array().unwrap(), "value"), [json!(0.0), json!(4.0)]);
    assert_eq!(body["truncated"], true);
    let body = client.query(&with(query(t - 1, t + 6), json!({"limit": 6}))).expect(200);
    assert_eq!((&body["truncated"], &body["seriesMatched"]), (&json!(false), &json!(4)));
    assert_eq!(body["queryType"], "range");
    assert!(body["executionTimeMs"].is_number() && body["pointsScanned"].is_number(), "{body}");
}

#[test]
fn a_rate_is_the_sum_of_measured_steps_without_extrapolation() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    let mut samples = Vec::new();
    // A carry-in, a step, a reset, a step; and a second series that begins inside the range.
    for (seconds, value) in [(-5, 10.0), (5, 15.0), (15, 3.0), (25, 9.0)] {
        samples.push(sample("m", t + seconds * 1_000, value, &[("host", "a")]));
    }
    for (seconds, value) in [(1, 100.0), (9, 104.0), (31, 110.0)] {
        samples.push(sample("m", t + seconds * 1_000, value, &[("host", "b")]));
    }
    client.store(&samples);
    let query = json!({"queryType": "rate", "metricName": "m", "interval": "10s",
                       "timeRange": {"start": t, "end": t + 40_000}});
    let rows = client.rows(&query);
    let expected = [(t, 0.9), (t + 10_000, 0.3), (t + 20_000, 0.6), (t + 30_000, 0.6)];
    assert_eq!(column(&rows, "timestamp"), expected.map(|(time, _)| json!(time)));
    for (row, (_, rate)) in rows.iter().zip(expected) {
        assert!(close(row["rate"].as_f64().unwrap(), rate), "{row}, not {rate}");
    }
    let rows = client.rows(&with(query.clone(), json!({"groupBy": ["host"]})));
    let hosts = column(&rows, "groupKey");
    assert_eq!(hosts.iter().filter(|key| **key == json!({"host": "a"})).count(), 3);
    assert_eq!(
        hosts.iter().filter(|key| **key == json!({"host": "b"})).count(),
        2,
        "no row without a step's end"
    );
    let rows = client.rows(&with(query, json!({"interval": "1m"})));
    assert!(close(rows[0]["rate"].as_f64().unwrap(), 24.0 / 60.0), "divided by the whole interval: {rows:?}");
}

#[test]
fn an_integral_is_split_at_the_edges_of_buckets() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    client.store(&[sample("m", t, 2.0, &[]), sample("m", t + 10_000, 4.0, &[])]);
    let query = with(aggregate(t, "integral"), json!({"interval": "5s"}));
    assert_eq!(
        client.rows(&query),
        [
            json!({"groupKey": {}, "timestamp": t, "value": 12.5, "count": 1}),
            json!({"groupKey": {}, "timestamp": t + 5_000, "value": 17.5, "count": 0}),
            json!({"groupKey": {}, "timestamp": t + 10_000, "value": 0.0, "count": 1}),
        ]
    );
    let rows = client.rows(&with(query, json!({"maxGap": "5s"})));
    assert_eq!(column(&rows, "timestamp"), [json!(t), json!(t + 10_000)]);
    assert_eq!(column(&rows, "value"), [json!(0.0), json!(0.0)]);
}

#[test]
fn a_result_that_overflows_is_null() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    client.store(&[sample("m", t, 1.7e308, &[]), sample("m", t + 1, 1.7e308, &[])]);
    assert_eq!(client.rows(&aggregate(t, "sum"))[0]["value"], Value::Null);
    assert_eq!(client.rows(&aggregate(t, "max"))[0]["value"], 1.7e308);
}

#[test]
fn relative_ranges_end_now() {
    let worker = Worker::start();
    let client = worker.client();
    client.store(&[
        sample("m", now() - 90_000, 1.0, &[]),
        sample("m", now(), 2.0, &[]),
        sample("m", now() + 1_800_000, 4.0, &[]),
    ]);
    let sum = |relative: &str| {
        client.number(&json!({"queryType": "aggregate", "metricName": "m", "aggregation": "sum",
                              "timeRange": {"relative": relative}}))
    };
    assert!(close(sum("60s"), 2.0));
    assert!(close(sum("15m"), 3.0));
    assert!(close(sum("90d"), 3.0));
}

#[test]
fn ndjson_streams_a_row_a_line_and_ends_with_the_summary() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    let samples: Vec<Value> = (0..3_000).map(|n| sample("m", t + n, 1.0, &[])).collect();
    client.store(&samples);
    let query = json!({"queryType": "range", "metricName": "m", "limit": 2_500,
                       "timeRange": {"start": t, "end": t + 3_000}});
    let headers = [("content-type", "application/json"), ("accept", "application/x-ndjson")];
    let answer = client.send("POST", "/api/v1/query", &headers, query.to_string().as_bytes());
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("application/x-ndjson"));
    let text = answer.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2_501);
    assert_eq!(lines[7]["timestamp"], t + 7);
    assert_eq!(lines[2_500]["summary"]["truncated"], true, "{}", lines[2_500]);
}

#[test]
fn explain_executes_nothing_and_estimates() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    fleet(&client, t);
    let plan = client.post("/api/v1/query/explain", &aggregate(t, "p95")).expect(200);
    let text = plan.to_string();
    assert!(text.contains("series") && text.contains("samples") && text.contains("bytes"), "{text}");
    assert!(plan.get("results").is_none());
    assert!(!client.post("/api/v1/query/explain", &json!({"queryType": "guess"})).refused(400).is_empty());
}

#[test]
fn malformed_questions_are_400_and_name_the_field() {
    let worker = Worker::start();
    let (client, t) = (worker.client(), base());
    fleet(&client, t);
    let good = aggregate(t, "sum");
    let keys: Vec<String> = (0..11).map(|n| format!("k{n}")).collect();
    let without = |field: &str| {
        let mut query = good.clone();
        query.as_object_mut().unwrap().remove(field);
        query
    };
    for (query, field) in [
        (without("queryType"), "queryType"),
        (without("metricName"), "metricName"),
        (without("timeRange"), "timeRange"),
        (without("aggregation"), "aggregation"),
        (with(good.clone(), json!({"queryType": "guess"})), "queryType"),
        (with(good.clone(), json!({"aggregation": "p42"})), "aggregation"),
        (with(good.clone(), json!({"metricName": "bad-name"})), "metricName"),
        (with(good.clone(), json!({"metricName": 7})), "metricName"),
        (with(good.clone(), json!({"group_by": ["host"]})), "group_by"),
        (with(good.clone(), json!({"groupBy": ["bad-key"]})), "groupBy"),
        (with(good.clone(), json!({"groupBy": keys})), "groupBy"),
        (with(good.clone(), json!({"groupBy": "host"})), "groupBy"),
        (with(good.clone(), json!({"filters": {"host": ["a", "b"]}})), "filters"),
        (with(good.clone(), json!({"filters": {"host": {"ne": "a"}}})), "filters"),
        (with(good.clone(), json!({"filters": {"bad-key": "a"}})), "filters"),
        (with(good.clone(), json!({"filters": {"_tenant_id": "a"}})), "filters"),
        (with(good.clone(), json!({"filters": ["host"]})), "filters"),
        (with(good.clone(), json!({"filtersIn": ["host"]})), "filtersIn"),
        (with(good.clone(), json!({"filtersIn": {"host": "a"}})), "filtersIn.host"),
        (with(good.clone(), json!({"filtersIn": {"host": []}})), "filtersIn.host"),
        (with(good.clone(), json!({"filtersIn": {"host": ["a", 7]}})), "filtersIn.host[1]"),
        (with(good.clone(), json!({"filtersIn": {"host": vec!["a"; 1_001]}})), "filtersIn"),
        (with(good.clone(), json!({"filtersIn": {"bad-key": ["a"]}})), "filtersIn.bad-key"),
        (
            with(good.clone(), json!({"filters": {"host": "a"}, "filtersIn": {"host": ["a"]}})),
            "filtersIn.host",
        ),
        (with(good.clone(), json!({"having": 90})), "having"),
        (with(good.clone(), json!({"having": {}})), "having"),
        (with(good.clone(), json!({"having": {"gt": "90"}})), "having.gt"),
        (with(good.clone(), json!({"having": {"eq": 90}})), "having.eq"),
        (with(good.clone(), json!({"interval": "0s"})), "interval"),
        (with(good.clone(), json!({"interval": "soon"})), "interval"),
        (with(good.clone(), json!({"interval": 60})), "interval"),
        (with(good.clone(), json!({"limit": 0})), "limit"),
        (with(good.clone(), json!({"limit": 10_001})), "limit"),
        (with(good.clone(), json!({"limit": -1})), "limit"),
        (with(good.clone(), json!({"timeout": "fast"})), "timeout"),
        (with(good.clone(), json!({"timeRange": {"start": t, "end": t - 1}})), "timeRange"),
        (with(good.clone(), json!({"timeRange": {"start": t, "end": t}})), "timeRange"),
        (with(good.clone(), json!({"timeRange": {"start": t - 91 * 86_400_000, "end": t}})), "timeRange"),
        (with(good.clone(), json!({"timeRange": {"relative": "91d"}})), "timeRange"),
        (with(good.clone(), json!({"timeRange": {"relative": "5y"}})), "timeRange"),
        (with(good.clone(), json!({"timeRange": {"relative": "-5m"}})), "timeRange"),
        (with(good.clone(), json!({"timeRange": {"start": t}})), "timeRange"),
        (with(good.clone(), json!({"timeRange": {"relative": "1h", "start": t, "end": t + 1}})), "timeRange"),
        (with(good.clone(), json!({"timeRange": "1h"})), "timeRange"),
        (with(good.clone(), json!({"timeRange": {"start": 1.5, "end": t}})), "timeRange"),
    ] {
        let answer = client.query(&query);
        assert!(!answer.refused(400).is_empty(), "{query}");
        assert!(answer.text().contains(field), "{query}: {} doesn't name {field}", answer.text());
    }
    for body in ["", "{", "[]", "7", "null", "{\"queryType\": \"range\"} x"] {
        let headers = [("content-type", "application/json")];
        assert!(!client.send("POST", "/api/v1/query", &headers, body.as_bytes()).refused(400).is_empty());
    }
}

#[test]
fn a_query_past_its_time_stops_with_504() {
    let worker = Setup::new().with("ingest.max_batch", 10_000).start();
    let (client, t) = (worker.client(), base());
    for round in 0..20 {
        let samples: Vec<Value> = (0..10_000)
            .map(|n| sample("m", t + round * 10_000 + n, n as f64, &[("n", &(n % 100).to_string())]))
            .collect();
        client.store(&samples);
    }
    let query = with(aggregate(t, "p99"), json!({"groupBy": ["n"], "interval": "1s", "timeout": "1ms"}));
    let answer = client.query(&query);
    assert_eq!(answer.refused(504), "QUERY_TIMEOUT");
    assert_eq!(client.number(&aggregate(t, "count")) as u64, 200_000);
}

#[test]
fn a_query_over_its_budget_says_which() {
    let worker = Setup::new().with("query_limits.max_scanned_samples", 1_000).start();
    let (client, t) = (worker.client(), base());
    let samples: Vec<Value> = (0..2_000).map(|n| sample("m", t + n, 1.0, &[])).collect();
    client.store(&samples);
    let answer = client.query(&aggregate(t, "p50"));
    assert!((400..500).contains(&answer.status), "{}", answer.text());
    assert!(answer.text().contains("1000"), "{}", answer.text());
}

#[test]
fn no_query_runs_when_none_was_asked() {
    let worker = Worker::start();
    let client = worker.client();
    assert_eq!(client.get("/api/v1/queries").expect(200)["queries"], json!([]));
    assert!(!client.delete("/api/v1/queries/none").refused(404).is_empty());
}
