//! Tenants never see one another, whatever their names and however warm the caches.

use luminate_tests::client::{Client, now, sample};
use luminate_tests::routes::{Route, filled, routes};
use luminate_tests::worker::{Setup, Worker};
use serde_json::{Value, json};

/// Names that are prefixes of one another, differ in case only, or would meet in a careless key.
fn names() -> Vec<String> {
    let mut names: Vec<String> =
        ["a", "aa", "a_", "a-", "A", "a_m", "_", "-", "0", "default", "_tenant_id"].map(str::to_owned).into();
    names.push("a".repeat(63));
    names.push("a".repeat(64));
    names
}

fn question(metric: &str) -> Value {
    json!({"queryType": "aggregate", "metricName": metric, "aggregation": "sum", "timeRange": {"relative": "1h"}})
}

/// Gives every tenant the same series, one metric and one value of its own.
fn inhabit(worker: &Worker) -> Vec<(String, Client)> {
    let t = now() - 1_000;
    let clients: Vec<_> = names().into_iter().map(|name| (name.clone(), worker.client_of(&name))).collect();
    for (at, (_, client)) in clients.iter().enumerate() {
        client.store(&[
            sample("m", t, at as f64 + 1.0, &[("k", "v"), ("own", &format!("secret{at}"))]),
            sample(&format!("metric_of_{at}"), t, 1.0, &[("k", "v")]),
        ]);
    }
    clients
}

fn sees_only_its_own(at: usize, client: &Client) {
    for _ in 0..2 {
        assert_eq!(client.number(&question("m")), at as f64 + 1.0);
        assert_eq!(
            client.get("/api/v1/metrics").expect(200)["metrics"],
            json!(["m", format!("metric_of_{at}")])
        );
        let values = client.get("/api/v1/metrics/m/dimensions/own/values").expect(200);
        assert_eq!((&values["values"], &values["total"]), (&json!([format!("secret{at}")]), &json!(1)));
    }
    let neighbour = if at == 0 { 1 } else { at - 1 };
    assert!(client.rows(&question(&format!("metric_of_{neighbour}"))).is_empty());
    for path in [
        format!("/api/v1/metrics/metric_of_{neighbour}/dimensions"),
        format!("/api/v1/metrics/metric_of_{neighbour}/dimensions/k/values"),
        format!("/api/v1/cardinality?metric=metric_of_{neighbour}"),
        "/api/v1/cardinality?metric=m".to_owned(),
        "/api/v1/cardinality".to_owned(),
        "/api/v1/admin/usage".to_owned(),
        "/api/v1/queries".to_owned(),
    ] {
        let text = client.get(&path).text();
        for other in (0..names().len()).filter(|other| *other != at) {
            assert!(!text.contains(&format!("\"secret{other}\"")), "{path}: {text}");
            assert!(
                !text.contains(&format!("\"metric_of_{other}\"")) || path.contains("metric_of"),
                "{path}: {text}"
            );
        }
    }
    let plan = client.post("/api/v1/query/explain", &question(&format!("metric_of_{neighbour}"))).expect(200);
    assert!(!plan.to_string().contains("\"series\":1"), "{plan}");
}

#[test]
fn a_tenant_sees_only_its_own_before_and_after_a_restart() {
    let mut worker = Setup::new().with_auth().start();
    for (at, (_, client)) in inhabit(&worker).iter().enumerate() {
        sees_only_its_own(at, client);
    }
    worker.restart();
    for (at, name) in names().iter().enumerate() {
        sees_only_its_own(at, &worker.client_of(name));
    }
}

#[test]
fn a_tenant_changes_only_its_own() {
    let worker = Setup::new().with_auth().start();
    let clients = inhabit(&worker);
    let (_, first) = &clients[0];
    assert_eq!(first.delete("/api/v1/admin/metrics/m").expect(200)["samples"], 1);
    assert_eq!(first.delete("/api/v1/admin/metrics/metric_of_1").expect(200)["samples"], 0);
    let short = json!({"default": "1ms", "metrics": {}});
    let shorter = first.put("/api/v1/admin/retention", &short);
    assert!([200, 400].contains(&shorter.status), "{}", shorter.text());
    for (at, (_, client)) in clients.iter().enumerate().skip(1) {
        sees_only_its_own(at, client);
        assert_eq!(client.get("/api/v1/admin/retention").expect(200)["default"], "30d");
    }
}

#[test]
fn the_page_of_figures_names_no_tenant_metric_or_value() {
    let worker = Setup::new().with_auth().start();
    worker.client_of("canary-tenant").store(&[sample(
        "canary_metric",
        now(),
        1.0,
        &[("canary_key", "canary_value")],
    )]);
    let _ = worker.client_of("canary-tenant").get("/api/v1/metrics/canary_path/dimensions");
    let page = worker.client().get("/metrics").text();
    assert!(page.contains("luminate_"), "{page}");
    assert!(!page.contains("canary"), "{page}");
    for path in ["/api/v1/health", "/api/v1/openapi.json"] {
        assert!(!worker.client().get(path).text().contains("canary"), "{path}");
    }
}

#[test]
fn hostile_names_in_paths_reach_nothing() {
    let worker = Setup::new().with_auth().start();
    inhabit(&worker);
    let client = worker.client_of("a");
    for name in [
        "..",
        "%2e%2e",
        "..%2f..%2f",
        "%00",
        "m%00",
        "a%2fm",
        "%ff",
        "m;aa",
        "*",
        "m'--",
        "%",
        &"m".repeat(10_000),
    ] {
        for path in [
            format!("/api/v1/metrics/{name}/dimensions"),
            format!("/api/v1/metrics/m/dimensions/{name}/values"),
            format!("/api/v1/metrics?prefix={name}"),
            format!("/api/v1/metrics?cursor={name}"),
            format!("/api/v1/cardinality?metric={name}"),
            format!("/api/v1/queries/{name}"),
        ] {
            let answer = client.get(&path);
            assert!(answer.status < 500, "{path}: {}", answer.text());
            assert!(!answer.text().contains("secret"), "{path}: {}", answer.text());
        }
        assert!(client.delete(&format!("/api/v1/admin/metrics/{name}")).status < 500);
    }
    assert_eq!(client.number(&question("m")), 1.0);
}

/// Bodies and parameters that make a route say as much as it can of `metric`.
fn talkative(metric: &str) -> Vec<(String, Value)> {
    let range = json!({"start": now() - 3_600_000, "end": now() + 1_000});
    let ask =
        |kind: &str| json!({"queryType": kind, "metricName": metric, "timeRange": range, "groupBy": ["own"]});
    let mut aggregate = ask("aggregate");
    aggregate["aggregation"] = json!("max");
    let mut raw = ask("range");
    raw.as_object_mut().expect("an object").remove("groupBy");
    let mut all = vec![(String::new(), Value::Null), (String::new(), raw), (String::new(), aggregate)];
    all.push((String::new(), ask("rate")));
    all.push((String::new(), json!({"metrics": [{"name": metric, "value": "canary"}]})));
    for query in
        ["?limit=1000", "?prefix=metric_of", "?prefix=secret", "?metric=m", "?dryRun=true", "?limit=0"]
    {
        all.push((query.to_owned(), Value::Null));
    }
    all.push((format!("?metric={metric}"), Value::Null));
    all
}

#[test]
fn no_route_says_anything_of_another_tenant() {
    let worker = Setup::new().with_auth().start();
    let clients = inhabit(&worker);
    let (first, other) = (0, clients.len() - 1);
    let client = &clients[first].1;
    // What the other one has, in its caches too.
    sees_only_its_own(other, &clients[other].1);
    let [secret, metric] = [format!("secret{other}"), format!("metric_of_{other}")];
    let mut asked = 0;
    for Route { method, path, .. } in routes(&worker) {
        for part in
            [metric.as_str(), "m", "own", &secret, &clients[other].0, "%2e%2e", "..%2fa", "a%00", "%ff"]
        {
            for (query, body) in talkative(&metric) {
                let (target, body) = (filled(&path, part) + &query, body.to_string());
                let sent = if body == "null" { "" } else { &body };
                let headers = [("content-type", "application/json")];
                let answer = client.send(&method, &target, &headers, sent.as_bytes());
                asked += 1;
                assert!(answer.status < 500, "{method} {target} {sent}: {}", answer.text());
                let said = format!("{} {:?}", answer.text(), answer.headers);
                // A name may come back to whoever sent it, but not with anything about it.
                for told in [&secret, &metric] {
                    let sends_it = target.contains(told) || sent.contains(told);
                    let told = format!("\"{told}\"");
                    assert!(sends_it || !said.contains(&told), "{method} {target} {sent}: {said}");
                }
                // Parts without braces make the same path each time.
                if !path.contains('{') && part != metric {
                    break;
                }
            }
        }
    }
    assert!(asked > 500, "{asked} requests");
    // Nor did it change anything.
    sees_only_its_own(other, &clients[other].1);
    assert_eq!(clients[other].1.get("/api/v1/admin/retention").expect(200)["default"], "30d");
    assert!(!worker.log().contains("panicked"));
}

/// The control of what is checked everywhere: whoever's it is does see it.
#[test]
fn a_tenant_sees_what_the_others_must_not() {
    let worker = Setup::new().with_auth().start();
    let clients = inhabit(&worker);
    let client = &clients[clients.len() - 1].1;
    let metric = format!("metric_of_{}", clients.len() - 1);
    let mut seen = 0;
    for Route { method, path, .. } in routes(&worker).into_iter().filter(|route| route.method == "GET") {
        for (query, _) in talkative(&metric) {
            let said = client.send(
                &method,
                &(filled(&path, "m").replace("/dimensions/m", "/dimensions/own") + &query),
                &[],
                &[],
            );
            seen += usize::from(said.text().contains(&metric) || said.text().contains("\"secret"));
        }
    }
    assert!(seen >= 3, "{seen} answers tell a tenant of its own");
}

#[test]
fn tenants_whose_names_could_be_paths_are_not_tenants() {
    let worker = Setup::new().with_auth().start();
    let clients = inhabit(&worker);
    let path = "/api/v1/metrics";
    for name in [
        "../a",
        "a/../aa",
        "..",
        ".",
        "%2e%2e",
        "a%2e",
        "a%00",
        "a\u{0}",
        "\u{0}",
        "a\u{0}a",
        "a/m",
        "a.m",
        "a m",
        "a\n",
        "a\u{202e}",
        "ａ",
        "а",
        "a'",
        "a\"",
        "a;",
        "a*",
        "",
        " ",
    ] {
        let answer = worker.client_of(name).get(path);
        assert_eq!(answer.refused(401), "UNAUTHENTICATED", "{name:?}");
        assert!(!answer.text().contains("metric_of"), "{name:?}");
    }
    assert_eq!(clients[0].1.get(path).status, 200);
}

#[test]
fn cursors_and_queries_of_another_tenant_lead_nowhere() {
    let worker = Setup::new().with_auth().start();
    let clients = inhabit(&worker);
    let (one, two) = (&clients[0].1, &clients[1].1);
    // 1. A cursor is a place in a listing, whoever's it is.
    let page = one.get("/api/v1/metrics?limit=1").expect(200);
    let cursor = page["nextCursor"].as_str().expect("there are two metrics");
    let of_two = two.get(&format!("/api/v1/metrics?cursor={cursor}")).expect(200);
    assert_eq!(of_two["metrics"], json!(["metric_of_1"]));
    let counted = one.get("/api/v1/cardinality?limit=1").expect(200);
    let cursor = counted["nextCursor"].as_str().expect("there are two metrics");
    let of_two = two.get(&format!("/api/v1/cardinality?cursor={cursor}"));
    assert!(of_two.status < 500 && !of_two.text().contains("metric_of_0"), "{}", of_two.text());
    // 2. A query is listed and cancelled by its tenant; its id begins with the tenant's name, which is no key.
    for id in ["a-0000000000000000", "aa-0000000000000000", "a-", "%2e%2e", "*", "a-%25"] {
        assert_eq!(two.delete(&format!("/api/v1/queries/{id}")).refused(404), "NOT_FOUND", "{id}");
    }
    assert_eq!(two.get("/api/v1/queries").expect(200)["queries"], json!([]));
}
