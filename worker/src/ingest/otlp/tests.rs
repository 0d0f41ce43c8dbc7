//! Messages as prost encodes them, decoded to rows.

use luminate_crds::worker_config::Otlp;
use prost::Message;

use super::super::testing::{KnownSeries, NOW, errors, rows, rules};
use super::testing::*;
use super::{Code, Decoded, OtlpError, Rules, decode, json};

fn read(request: &Request, change: impl FnOnce(&mut Otlp)) -> Result<Decoded, OtlpError> {
    let mut mapping = Otlp::default();
    change(&mut mapping);
    decode(&request.encode_to_vec(), &mapping, &rules(), &KnownSeries::none())
}

fn decoded(metrics: Vec<Metric>) -> Decoded {
    read(&request(&[], metrics), |_| ()).unwrap()
}

fn sum(temporality: i32, monotonic: bool) -> Data {
    Data::Sum(Numbers { data_points: vec![number(&[], NOW, 3.0)], temporality, monotonic })
}

#[test]
fn numbers_become_samples_with_their_attributes() {
    let mut whole = number(&[], NOW + 1, 0.0);
    whole.value = Some(NumberValue::AsInt(-7));
    let point = number(&[("http.route", "/a b"), ("empty", "")], NOW, 1.5);
    let decoded = decoded(vec![gauge("queue.depth", vec![point, whole])]);
    assert_eq!(rows(&decoded), ["queue_depth{http_route=/a b} 0 1.5", "queue_depth{} 1 -7"]);
    assert_eq!((decoded.rejections.total(), decoded.dropped), (0, 0));
}

#[test]
fn sums_are_named_for_what_they_mean() {
    for (data, expected) in [
        (sum(CUMULATIVE, true), "io_bytes_total{} 0 3"),
        (sum(CUMULATIVE, false), "io_bytes{} 0 3"),
        (sum(DELTA, true), "io_bytes_delta{} 0 3"),
        (sum(DELTA, false), "io_bytes_delta{} 0 3"),
    ] {
        assert_eq!(rows(&decoded(vec![metric("io", "By", data)])), [expected]);
    }
    let unspecified = decoded(vec![metric("io", "By", sum(0, true))]);
    assert_eq!(
        errors(&unspecified),
        ["0 InvalidSample: aggregation_temporality is neither delta nor cumulative"]
    );
    let plain = request(&[], vec![metric("io.x", "By", sum(CUMULATIVE, true))]);
    assert_eq!(rows(&read(&plain, |mapping| mapping.metric_suffixes = false).unwrap()), ["io_x{} 0 3"]);
}

fn histogram(counts: &[u64], bounds: &[f64], temporality: i32) -> Metric {
    let point = HistogramPoint {
        attributes: texts(&[("k", "v")]),
        time_unix_nano: nanos(NOW),
        count: counts.iter().sum(),
        sum: Some(12.5),
        bucket_counts: counts.to_vec(),
        explicit_bounds: bounds.to_vec(),
        min: Some(0.25),
        max: Some(9.0),
        ..HistogramPoint::default()
    };
    metric("latency", "s", Data::Histogram(Histogram { data_points: vec![point], temporality }))
}

#[test]
fn a_histogram_becomes_what_prometheus_has_of_it() {
    let decoded =
        decoded(vec![histogram(&[1, 0, 2], &[0.5, 5.0], CUMULATIVE), gauge("g", vec![number(&[], 0, 1.0)])]);
    assert_eq!(
        rows(&decoded),
        [
            "latency_seconds_bucket{k=v,le=0.5} 0 1",
            "latency_seconds_bucket{k=v,le=5} 0 1",
            "latency_seconds_bucket{k=v,le=+Inf} 0 3",
            "latency_seconds_count{k=v} 0 3",
            "latency_seconds_sum{k=v} 0 12.5",
            "latency_seconds_min{k=v} 0 0.25",
            "latency_seconds_max{k=v} 0 9",
        ]
    );
    // The whole histogram has one place in the request.
    assert_eq!(decoded.rejections.listed()[0].index, 1);
}

#[test]
fn deltas_have_a_name_of_their_own_in_histograms_too() {
    let decoded = decoded(vec![histogram(&[4], &[], DELTA)]);
    let names: Vec<_> = decoded.batch.new_series.iter().map(|series| series.metric.as_str()).collect();
    assert_eq!(
        names,
        [
            "latency_seconds_delta_bucket",
            "latency_seconds_delta_count",
            "latency_seconds_delta_sum",
            "latency_seconds_delta_min",
            "latency_seconds_delta_max",
        ]
    );
}

#[test]
fn an_exponential_histogram_gets_the_bounds_of_its_buckets() {
    let point = ExponentialPoint {
        time_unix_nano: nanos(NOW),
        count: 6,
        scale: 1,
        zero_count: 1,
        positive: Some(Buckets { offset: -1, bucket_counts: vec![2, 3] }),
        ..ExponentialPoint::default()
    };
    let data = Data::Exponential(Exponential { data_points: vec![point], temporality: CUMULATIVE });
    assert_eq!(
        rows(&decoded(vec![metric("size", "By", data)])),
        [
            "size_bytes_bucket{le=0} 0 1",
            "size_bytes_bucket{le=0.7071067811865476} 0 1",
            "size_bytes_bucket{le=1} 0 3",
            "size_bytes_bucket{le=1.4142135623730951} 0 6",
            "size_bytes_bucket{le=+Inf} 0 6",
            "size_bytes_count{} 0 6",
        ]
    );
}

#[test]
fn a_summary_becomes_its_quantiles() {
    let point = SummaryPoint {
        attributes: Vec::new(),
        time_unix_nano: nanos(NOW),
        count: 2,
        sum: 3.0,
        quantile_values: vec![
            Quantile { quantile: 0.5, value: 1.0 },
            Quantile { quantile: 0.99, value: f64::NAN },
        ],
    };
    let decoded = decoded(vec![metric("gc", "ms", Data::Summary(Summary { data_points: vec![point] }))]);
    assert_eq!(
        rows(&decoded),
        ["gc_milliseconds{quantile=0.5} 0 1", "gc_milliseconds_count{} 0 2", "gc_milliseconds_sum{} 0 3",]
    );
    assert_eq!(decoded.dropped, 1);
}

#[test]
fn attributes_of_resource_and_scope_are_chosen_and_the_nearest_counts() {
    let resource = [("service.name", "api"), ("k8s.pod.name", "p"), ("k8s.pod.uid", "u"), ("team", "r")];
    let message = request(&resource, vec![gauge("g", vec![number(&[("service.name", "own")], NOW, 1.0)])]);
    let with = |change: fn(&mut Otlp)| rows(&read(&message, change).unwrap()).remove(0);
    assert_eq!(with(|_| ()), "g{k8s_pod_name=p,service_name=own} 0 1");
    assert_eq!(with(|mapping| mapping.resource_attributes.clear()), "g{service_name=own} 0 1");
    assert_eq!(
        with(|mapping| mapping.resource_attributes = vec!["*".into()]),
        "g{k8s_pod_name=p,k8s_pod_uid=u,service_name=own,team=r} 0 1"
    );
    let scoped: fn(&mut Otlp) = |mapping| {
        mapping.resource_attributes.clear();
        mapping.scope_attributes = vec!["name".into(), "t*".into()];
    };
    assert_eq!(with(scoped), "g{otel_scope_name=lib,otel_scope_team=a,service_name=own} 0 1");
}

#[test]
fn what_was_not_recorded_or_is_no_number_is_dropped_without_an_error() {
    let mut gone = number(&[], NOW, 0.0);
    gone.flags = 1;
    gone.value = None;
    let points =
        vec![gone, number(&[], NOW, f64::NAN), number(&[], NOW, f64::INFINITY), number(&[], NOW, 1.0)];
    let decoded = decoded(vec![gauge("g", points)]);
    assert_eq!((rows(&decoded).len(), decoded.dropped, decoded.rejections.total()), (1, 3, 0));
}

#[test]
fn bad_points_are_refused_by_name_and_the_others_kept() {
    let many: Vec<(String, String)> = (0..20).map(|n| (format!("k{n}"), "v".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut wide = histogram(&[1], &[], CUMULATIVE);
    let Some(Data::Histogram(data)) = &mut wide.data else { panic!("a histogram") };
    data.data_points[0].attributes = texts(&many);
    let mut valueless = number(&[], NOW, 0.0);
    valueless.value = None;
    let one = |attributes: &[(&str, &str)]| gauge("g", vec![number(attributes, NOW, 1.0)]);
    let long = "x".repeat(257);
    for (bad, code, error) in [
        (gauge("", vec![number(&[], NOW, 1.0)]), Code::InvalidMetricName, "1 to 256 characters"),
        (gauge(&"m".repeat(257), vec![number(&[], NOW, 1.0)]), Code::InvalidMetricName, "1 to 256"),
        (gauge("g", vec![number(&[], 0, 1.0)]), Code::TimestampOutOfRange, "outside the accepted window"),
        (gauge("g", vec![valueless]), Code::InvalidSample, "no value"),
        (one(&[("a.b", "1"), ("a_b", "2")]), Code::InvalidDimensionKey, "\"a_b\" appears twice"),
        (one(&[("__x", "1")]), Code::InvalidDimensionKey, "reserved"),
        (one(&[("", "1")]), Code::InvalidDimensionKey, "1 to 128"),
        (one(&[("k", &long)]), Code::InvalidDimensionValue, "257 characters"),
        (wide, Code::TooManyDimensions, "21 dimensions"),
        (histogram(&[1, 2], &[1.0, 2.0], CUMULATIVE), Code::InvalidSample, "2 bounds don't make 2 buckets"),
        (histogram(&[1, 2, 3], &[2.0, 2.0], CUMULATIVE), Code::InvalidSample, "must rise"),
        (histogram(&[1, 2], &[f64::INFINITY], CUMULATIVE), Code::InvalidSample, "finite"),
    ] {
        let decoded = decoded(vec![one(&[]), bad, one(&[("k", "v")])]);
        let [refused] = decoded.rejections.listed() else { panic!("one error: {error}") };
        assert_eq!((refused.index, refused.code), (1, code), "{}", refused.error);
        assert!(refused.error.contains(error), "{}", refused.error);
        assert_eq!((decoded.batch.len(), decoded.batch.new_series.len()), (2, 2), "{error}");
    }
}

#[test]
fn attributes_without_end_are_refused_before_they_are_compared() {
    let many: Vec<(String, String)> = (0..5_000).map(|n| (format!("k{n}"), "v".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let all = |mapping: &mut Otlp| mapping.resource_attributes = vec!["*".into()];
    for request in [
        request(&many, vec![gauge("g", vec![number(&[], NOW, 1.0)])]),
        request(&[], vec![gauge("g", vec![number(&many, NOW, 1.0)])]),
    ] {
        let expected = "0 TooManyDimensions: 5000 dimensions; at most 256 are allowed";
        assert_eq!(errors(&read(&request, all).unwrap()), [expected]);
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_point() {
    let mut body = request(&[], vec![gauge("g", vec![number(&[("k", "xyz")], NOW, 1.0)])]).encode_to_vec();
    let at = body.windows(3).position(|bytes| bytes == b"xyz").unwrap();
    body[at] = 0xFF;
    let decoded = decode(&body, &Otlp::default(), &rules(), &KnownSeries::none()).unwrap();
    assert_eq!(errors(&decoded), ["0 InvalidDimensionValue: the value of \"k\" is not UTF-8"]);
}

#[test]
fn known_series_are_found_and_each_new_one_is_described_once() {
    let metrics = vec![histogram(&[1, 2], &[1.0], CUMULATIVE), gauge("g", vec![number(&[], NOW, 1.0)])];
    let twice = [metrics.clone(), metrics].concat();
    let body = request(&[("service.name", "a")], twice.clone()).encode_to_vec();
    let decode = |body: &[u8], known: &KnownSeries| decode(body, &Otlp::default(), &rules(), known).unwrap();
    let mut known = KnownSeries::none();
    let first = decode(&body, &known);
    assert_eq!((first.batch.len(), first.batch.new_series.len()), (14, 7));
    known.learn(&first);
    assert_eq!(decode(&body, &known).batch.new_series.len(), 0);
    let other = request(&[("service.name", "b")], twice).encode_to_vec();
    assert_eq!(decode(&other, &known).batch.new_series.len(), 7);
}

#[test]
fn what_stands_behind_its_points_counts_for_them() {
    // Sum: points, then temporality; metric: data, then name; resource metrics: metrics, then resource.
    let point = number(&[], NOW, 1.0).encode_to_vec();
    let field = |tag: u8, message: &[u8]| {
        let mut field = Vec::new();
        super::super::remote_write::wire::append(&mut field, tag, message);
        field
    };
    let sum = [field(0x0A, &point), vec![0x10, 2, 0x18, 1]].concat();
    let metric = [field(0x3A, &sum), field(0x1A, b"By"), field(0x0A, b"io")].concat();
    let resource = Resource { attributes: texts(&[("host.name", "h")]) }.encode_to_vec();
    let metrics = [field(0x12, &field(0x12, &metric)), field(0x0A, &resource)].concat();
    let body = field(0x0A, &metrics);
    let decoded = decode(&body, &Otlp::default(), &rules(), &KnownSeries::none()).unwrap();
    assert_eq!(rows(&decoded), ["io_bytes_total{host_name=h} 0 1"]);
}

#[test]
fn a_point_or_sample_too_many_refuses_the_message() {
    let rules = Rules { max_batch: 2, ..rules() };
    let refused = |metrics: Vec<Metric>| {
        let body = request(&[], metrics).encode_to_vec();
        decode(&body, &Otlp::default(), &rules, &KnownSeries::none()).err()
    };
    let points = |count: i64| gauge("g", (0..count).map(|at| number(&[], NOW + at, 1.0)).collect());
    assert_eq!(refused(vec![points(2)]), None);
    assert_eq!(refused(vec![points(3)]), Some(OtlpError::TooMany { max: 2 }));
    let bounds: Vec<f64> = (0..61).map(f64::from).collect();
    assert_eq!(
        refused(vec![histogram(&[1; 61], &bounds[..60], CUMULATIVE)]),
        Some(OtlpError::TooMany { max: 2 })
    );
    assert_eq!(refused(vec![histogram(&[1; 60], &bounds[..59], CUMULATIVE)]), None);
}

#[test]
fn the_json_of_a_message_means_the_same_series() {
    let json = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"a"}}}}]}},
        "scopeMetrics":[{{"metrics":[{{"name":"g","gauge":{{"dataPoints":[{{"timeUnixNano":"{}","asDouble":1,
        "attributes":[{{"key":"k","value":{{"intValue":7}}}}]}}]}}}}]}}]}}]}}"#,
        nanos(NOW)
    );
    let body = json::to_protobuf(json.as_bytes()).unwrap();
    let decoded = decode(&body, &Otlp::default(), &rules(), &KnownSeries::none()).unwrap();
    assert_eq!(rows(&decoded), ["g{k=7,service_name=a} 0 1"]);
}

#[test]
fn truncated_it_is_refused_and_mutated_it_never_panics() {
    let metrics = vec![
        gauge("g", vec![number(&[("k", "v")], NOW, 1.0)]),
        histogram(&[1, 2], &[1.0], CUMULATIVE),
        metric("io", "By", sum(DELTA, true)),
    ];
    let body = request(&[("service.name", "a")], metrics).encode_to_vec();
    let mut known = KnownSeries::none();
    let decode = |body: &[u8], known: &KnownSeries| decode(body, &Otlp::default(), &rules(), known);
    for cut in 1..body.len() {
        assert!(decode(&body[..cut], &known).is_err(), "cut at {cut}");
    }
    known.learn(&decode(&body, &known).unwrap());
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..50_000 {
        let mut body = body.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..body.len());
            body[at] = random.u8(..);
        }
        // What prost takes is taken here, but for what is refused by the point.
        if let (Ok(ours), Ok(theirs)) = (decode(&body, &known), Request::decode(body.as_slice())) {
            let scopes = theirs.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
                None => 0,
                Some(Data::Gauge(data) | Data::Sum(data)) => data.data_points.len(),
                Some(Data::Histogram(data)) => data.data_points.len(),
                Some(Data::Exponential(data)) => data.data_points.len(),
                Some(Data::Summary(data)) => data.data_points.len(),
            });
            assert_eq!(ours.next_index() as usize, points.sum::<usize>());
        }
    }
}
