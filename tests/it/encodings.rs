//! Compressed bodies: good, cut off, lying, and bombs.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use luminate_tests::client::{Client, now, sample};
use luminate_tests::http::Response;
use luminate_tests::process;
use luminate_tests::remote_write::compressed as snappy;
use luminate_tests::worker::Worker;
use serde_json::json;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

type Encode = fn(&[u8]) -> Vec<u8>;
const ENCODINGS: [(&str, Encode); 3] = [("gzip", gzip), ("zstd", zstd), ("snappy", snappy)];

fn write(client: &Client, encoding: &str, body: &[u8]) -> Response {
    let headers = [("content-type", "application/json"), ("content-encoding", encoding)];
    client.send("POST", "/api/v1/write", &headers, body)
}

#[test]
fn every_encoding_is_read() {
    let worker = Worker::start();
    let client = worker.client();
    let t = now() - 10_000;
    let samples: Vec<_> = (0..1_000).map(|n| sample("m", t + n, 1.0, &[("k", "v")])).collect();
    for (encoding, encode) in ENCODINGS {
        let body = json!({"metrics": samples}).to_string().replace("\"m\"", &format!("\"{encoding}\""));
        let answer = write(&client, encoding, &encode(body.as_bytes())).expect(200);
        assert_eq!(answer["accepted"], 1_000, "{encoding}");
        assert_eq!(client.count(encoding), 1_000);
    }
    assert_eq!(
        write(&client, "GZIP", &gzip(b"{\"metrics\": []}")).status / 100,
        2,
        "names of encodings have no case"
    );
}

#[test]
fn a_body_cut_off_anywhere_stores_nothing() {
    let worker = Worker::start();
    let client = worker.client();
    let samples: Vec<_> =
        (0..20).map(|n| sample("m", now() - n, 0.1 * n as f64, &[("k", &n.to_string())])).collect();
    let body = json!({"metrics": samples}).to_string();
    for (encoding, encode) in ENCODINGS {
        let whole = encode(body.as_bytes());
        for end in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            assert!(
                !write(&client, encoding, &whole[..end]).refused(400).is_empty(),
                "{encoding} cut at {end}"
            );
        }
        let garbage = [whole.as_slice(), b"garbage"].concat();
        assert_eq!(write(&client, encoding, &garbage).status, 400, "{encoding} with garbage behind it");
        assert_eq!(write(&client, encoding, body.as_bytes()).status, 400, "{encoding} that isn't");
    }
    assert_eq!(client.count("m"), 0);
}

#[test]
fn flipped_bits_are_refused_or_harmless() {
    let worker = Worker::start();
    let client = worker.client();
    let body = json!({"metrics": [sample("m", now(), 1.5, &[("k", "v")])]}).to_string();
    for (encoding, encode) in ENCODINGS {
        let whole = encode(body.as_bytes());
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            let answer = write(&client, encoding, &bytes);
            assert!([200, 207, 400, 413].contains(&answer.status), "{encoding} at {at}: {}", answer.text());
        }
    }
}

#[test]
fn lengths_that_lie_cost_nothing() {
    let worker = Worker::start();
    let client = worker.client();
    // Snappy's block begins with the decoded length: 4 GiB - 1, with nothing behind it.
    let claimed = [0xff, 0xff, 0xff, 0xff, 0x0f];
    process::reset_peak(worker.pid());
    let before = worker.rss();
    assert!([400, 413].contains(&write(&client, "snappy", &claimed).status));
    assert!([400, 413].contains(&write(&client, "snappy", &[&claimed[..], &[0; 100]].concat()).status));
    // A frame of zstd with a content size of 2^62 and a window of 128 TiB.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x01, 0x00, 0x00];
    assert!([400, 413].contains(&write(&client, "zstd", &frame).status));
    let grown = process::peak_rss(worker.pid()).saturating_sub(before);
    assert!(grown < 50 << 20, "{} MB for bodies of some bytes", grown >> 20);
}

#[test]
fn bombs_are_413_in_bounded_memory() {
    let worker = Worker::start();
    let client = worker.client();
    let zeros = vec![b' '; 400 << 20];
    let bombs: Vec<_> = ENCODINGS.iter().map(|(encoding, encode)| (encoding, encode(&zeros))).collect();
    drop(zeros);
    let before = worker.rss();
    process::reset_peak(worker.pid());
    for (encoding, bomb) in &bombs {
        // Snappy's own ratio is 1:21, so its bomb is over the limit before it is decoded.
        for _ in 0..3 {
            assert!(!write(&client, encoding, bomb).refused(413).is_empty(), "{encoding}");
        }
    }
    let grown = process::peak_rss(worker.pid()).saturating_sub(before);
    assert!(grown < 120 << 20, "{} MB for bombs of 400 MB", grown >> 20);
    client.store(&[sample("m", now(), 1.0, &[])]);
}
