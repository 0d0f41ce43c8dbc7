//! Deleting, retention, usage.

use luminate_tests::client::{Client, now, sample};
use luminate_tests::worker::Worker;
use serde_json::json;

const DAY: i64 = 86_400_000;

fn days_of(client: &Client, metric: &str) {
    for day in 0..6 {
        let t = now() - day * DAY - 1_000;
        client.store(&[
            sample(metric, t, 1.0, &[("day", &day.to_string())]),
            sample(metric, t + 1, 1.0, &[("host", "a")]),
        ]);
    }
}

#[test]
fn a_delete_is_done_when_it_answers_and_survives_a_restart() {
    let mut worker = Worker::start();
    let client = worker.client();
    days_of(&client, "doomed");
    days_of(&client, "kept");
    let before = now() - 3 * DAY + DAY / 2;
    let dry = client.delete(&format!("/api/v1/admin/metrics/doomed?before={before}&dryRun=true")).expect(200);
    assert_eq!(client.count("doomed"), 12, "a dry run deletes nothing: {dry}");
    let done = client.delete(&format!("/api/v1/admin/metrics/doomed?before={before}")).expect(200);
    assert_eq!(dry["samples"], 6, "{dry}");
    assert_eq!(done["samples"], 6, "{done}");
    assert_eq!((client.count("doomed"), client.count("kept")), (6, 12));
    // What was deleted may come again.
    client.store(&[sample("doomed", now() - 5 * DAY, 1.0, &[])]);
    assert_eq!(client.count("doomed"), 7);
    worker.restart();
    let client = worker.client();
    assert_eq!((client.count("doomed"), client.count("kept")), (7, 12));
    assert_eq!(client.delete("/api/v1/admin/metrics/doomed").expect(200)["samples"], 7);
    assert_eq!(client.count("doomed"), 0);
    assert_eq!(client.get("/api/v1/metrics").expect(200)["metrics"], json!(["kept"]));
}

#[test]
fn deletes_of_nothing_count_nothing_and_nonsense_is_refused() {
    let worker = Worker::start();
    let client = worker.client();
    assert_eq!(client.delete("/api/v1/admin/metrics/nothing").expect(200)["samples"], 0);
    for path in [
        "/api/v1/admin/metrics/bad-name",
        "/api/v1/admin/metrics/m?before=yesterday",
        "/api/v1/admin/metrics/m?before=1.5",
        "/api/v1/admin/metrics/m?dryRun=perhaps",
        "/api/v1/admin/metrics/m?befor=5",
    ] {
        assert!(!client.delete(path).refused(400).is_empty(), "{path}");
    }
}

#[test]
fn retention_holds_at_once_and_exactly() {
    let mut worker = Worker::start();
    let client = worker.client();
    assert_eq!(client.get("/api/v1/admin/retention").expect(200), json!({"default": "30d", "metrics": {}}));
    days_of(&client, "short");
    days_of(&client, "long");
    let wanted = json!({"default": "30d", "metrics": {"short": "2d"}});
    assert_eq!(client.put("/api/v1/admin/retention", &wanted).status, 200);
    assert_eq!((client.count("short"), client.count("long")), (4, 12));
    worker.restart();
    let client = worker.client();
    assert_eq!(client.get("/api/v1/admin/retention").expect(200), wanted);
    assert_eq!((client.count("short"), client.count("long")), (4, 12));
    for bad in [
        json!({"default": "soon", "metrics": {}}),
        json!({"default": "0s", "metrics": {}}),
        json!({"default": 30}),
        json!({"default": "30d", "metrics": {"bad-name": "1d"}}),
        json!({"default": "30d", "metrics": {"m": "-1d"}}),
        json!({"default": "30d", "metricz": {}}),
    ] {
        assert!(!client.put("/api/v1/admin/retention", &bad).refused(400).is_empty(), "{bad}");
    }
    assert_eq!(client.get("/api/v1/admin/retention").expect(200), wanted, "a refused change changes nothing");
}

#[test]
fn usage_counts_what_is_held() {
    let worker = Worker::start();
    let client = worker.client();
    days_of(&client, "m");
    let text = client.get("/api/v1/admin/usage").expect(200).to_string();
    assert!(
        text.contains("\"series\"") && text.contains("\"samples\"") && text.contains("\"bytes\""),
        "{text}"
    );
    assert!(text.contains("12") && text.contains('7'), "12 samples in 7 series: {text}");
}
