//! What the benchmark sends, in every protocol: the same samples of the same series.

use luminate_tests::bench::data::{METRICS, Shape};
use luminate_tests::bench::encode::{Encoder, Protocol};
use luminate_tests::bench::engine::Kind;
use luminate_tests::bench::fleet::{Fleet, STEP};
use luminate_tests::client::now;
use luminate_tests::worker::Worker;
use serde_json::{Value, json};

const PROTOCOLS: [Protocol; 5] =
    [Protocol::RemoteWrite, Protocol::LineWide, Protocol::LineNarrow, Protocol::Text, Protocol::Json];

#[test]
fn every_protocol_that_is_measured_stores_the_same_samples() {
    let worker = Worker::start();
    let client = worker.client();
    let rounds = Fleet::new(200, Shape::Entropy, now() - 6 * STEP, 1).rounds(4);
    let raw = json!({"queryType": "range", "metricName": METRICS[3], "timeRange": {"relative": "1h"}});
    let mut first: Option<Vec<Value>> = None;
    for protocol in PROTOCOLS {
        let endpoint = Kind::Luminate.endpoint(protocol).expect("it is measured");
        for body in Encoder::with_batch(protocol, 300).encode(&rounds) {
            let answer = client.send("POST", endpoint.path, endpoint.headers, &body.bytes);
            assert!([200, 204].contains(&answer.status), "{protocol:?}: {}", answer.text());
        }
        let rows = client.rows(&raw);
        assert_eq!(rows.len(), 80, "{protocol:?}");
        assert_eq!(&rows, first.get_or_insert_with(|| rows.clone()), "{protocol:?}");
        let series = client.get("/api/v1/cardinality").expect(200)["cardinality"].take();
        let series: Vec<u64> = series
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|metric| metric["series"].as_u64())
            .collect();
        assert_eq!(series, [20; 10], "{protocol:?} makes no series of its own");
    }
}
