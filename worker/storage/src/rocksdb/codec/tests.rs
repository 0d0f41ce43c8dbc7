use super::*;

const EFFORTS: [Effort; 2] = [Effort::Seal, Effort::Merge];

fn normal(random: &mut fastrand::Rng) -> f64 {
    (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
}

/// Blocks as metrics make them; the names say what.
fn shapes(random: &mut fastrand::Rng, count: usize) -> Vec<(&'static str, Vec<f64>)> {
    let (mut walk, mut counter, mut small) = (50.0_f64, 1_000_000.0_f64, 50.0_f64);
    let mut made: Vec<(&'static str, Vec<f64>)> = [
        "constant",
        "walk of two decimals",
        "small integers",
        "counter",
        "latencies",
        "entropy",
        "wild",
        "runs",
        "odd ones",
        "single precision",
        "large",
        "negative zeros",
    ]
    .map(|name| (name, Vec::with_capacity(count)))
    .into();
    for at in 0..count {
        walk = ((walk + random.f64() * 2.0 - 1.0) * 100.0).round() / 100.0;
        small = (small + normal(random)).clamp(0.0, 100.0);
        counter = if random.u32(0..900) == 0 { 0.0 } else { counter + f64::from(random.u32(900..1_100)) };
        let latency = ((normal(random) * 0.8 + 3.0).exp() * 1_000.0).round() / 1_000.0;
        let wild = [0.0, -0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE / 3.0, 1e-300, -5e-324, 0.1]
            [random.usize(0..8)];
        let values = [
            12.5,
            walk,
            small.floor(),
            counter,
            latency,
            random.f64(),
            wild,
            (at / 100) as f64 * 0.1,
            if at % 101 == 3 { random.f64() } else { walk },
            f64::from(random.f32()),
            (random.u64(0..1_000) << 50) as f64,
            if random.bool() { -0.0 } else { 0.0 },
        ];
        for ((_, block), value) in made.iter_mut().zip(values) {
            block.push(value);
        }
    }
    made
}

fn encoded(values: &[f64], effort: Effort) -> (Vec<u8>, Option<u8>) {
    let mut out = Vec::new();
    let scale = Encoder::default().values(values, effort, &mut out);
    (out, scale)
}

#[test]
fn every_shape_and_length_comes_back_bit_by_bit() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut buffers = Buffers::default();
    for count in [1, 2, 3, 7, 30, 100, 1_024, 3_000] {
        for (name, values) in shapes(&mut random, count) {
            for effort in EFFORTS {
                let (bytes, _) = encoded(&values, effort);
                let mut back = vec![f64::NAN; count];
                decode_values(&bytes, &mut back, &mut buffers).unwrap();
                let same = back.iter().zip(&values).all(|(back, value)| back.to_bits() == value.to_bits());
                assert!(same, "{name} {count} {effort:?}");
                for wanted in [0, 1, count / 2, count - 1] {
                    let mut first = vec![f64::NAN; wanted];
                    decode_first_values(&bytes, count, &mut first, &mut buffers).unwrap();
                    let mut pairs = first.iter().zip(&values);
                    assert!(
                        pairs.all(|(first, value)| first.to_bits() == value.to_bits()),
                        "{name} {wanted} of {count}"
                    );
                }
                assert!(bytes.len() <= 8 * count + 1 + 8, "{name} {count} {}", bytes.len());
            }
        }
    }
}

#[test]
fn usual_metrics_take_few_bytes() {
    let mut random = fastrand::Rng::with_seed(2);
    let shapes = shapes(&mut random, 1_024);
    let most = [4, 1_060, 330, 1_060, 2_500, 7_300, 8_200, 70, 1_220, 4_400, 1_600, 1_100];
    for ((name, values), most) in shapes.iter().zip(most) {
        let sealed = encoded(values, Effort::Seal).0.len();
        let merged = encoded(values, Effort::Merge).0.len();
        assert!(sealed <= most, "{name}: {sealed} bytes, not {most}");
        assert!(merged <= sealed, "{name}: {merged} bytes by a merge, {sealed} by a seal");
    }
}

#[test]
fn decimals_tell_their_scale() {
    assert_eq!(encoded(&[1.25, 3.5, 2.0], Effort::Seal).1, Some(2));
    assert_eq!(encoded(&[7.0; 20], Effort::Seal).1, Some(0));
    assert_eq!(encoded(&[0.1; 3], Effort::Merge).1, Some(1));
    assert_eq!(encoded(&[std::f64::consts::PI; 3], Effort::Seal).1, None);
    assert_eq!(encoded(&[-0.0, -0.0], Effort::Seal).1, None);
}

#[test]
fn times_come_back_and_regular_ones_are_nearly_free() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut buffers = Buffers::default();
    for jitter in [0, 1, 5, 3_000, 900_000] {
        for count in [0, 1, 2, 3, 100, 1_024] {
            let mut time = 1_700_000_000_123_i64;
            let times: Vec<i64> = (0..count)
                .map(|_| {
                    time += 10_000 + random.i64(0..=jitter);
                    time
                })
                .collect();
            let mut out = Vec::new();
            Encoder::default().times(&times, &mut out);
            let mut back = vec![0; count];
            let first = times.first().copied().unwrap_or(0);
            decode_times(&out, first, &mut back, &mut buffers).unwrap();
            assert_eq!(back, times);
            assert!(jitter > 0 || out.len() <= 4);
            let last = times.last().copied().unwrap_or(0);
            let step = step_of_times(&out, count, (first, last)).unwrap();
            let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
            match step.map(|step| i64::try_from(step.get()).unwrap()) {
                Some(step) => assert!(steps.into_iter().all(|own| own == step)),
                None => assert!(jitter > 0 || count < 2),
            }
            if step.is_some() {
                step_of_times(&out, count, (first, last + 1)).unwrap_err();
                step_of_times(&out, count + 1, (first, last)).unwrap_err();
            }
        }
    }
    assert!(decode_times(&[TIMES_REGULAR, 0], 5, &mut [0; 2], &mut buffers).is_err());
}

#[test]
fn changed_and_random_bytes_never_panic() {
    let mut random = fastrand::Rng::with_seed(4);
    let mut buffers = Buffers::default();
    let shapes = shapes(&mut random, 400);
    let mut back = vec![0.0; 400];
    let mut times = vec![0; 400];
    for round in 0..60_000 {
        let (_, values) = &shapes[round % shapes.len()];
        let effort = EFFORTS[usize::from(round % 977 == 0)];
        let mut bytes = match round % 3 {
            0 => (0..random.usize(0..60)).map(|_| random.u8(..)).collect(),
            _ => encoded(values, effort).0,
        };
        for _ in 0..random.usize(1..5) {
            let (near, small) = (random.bool(), random.bool());
            let at = random.usize(0..bytes.len().max(1).min(if near { 20 } else { usize::MAX }));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.u8(0..if small { 10 } else { 255 });
            }
        }
        bytes.truncate(random.usize(0..=2 * bytes.len()));
        let _either = decode_values(&bytes, &mut back, &mut buffers);
        let _either = decode_times(&bytes, 0, &mut times, &mut buffers);
    }
}

#[test]
fn changed_blocks_of_pco_never_panic() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut buffers = Buffers::default();
    for (name, values) in shapes(&mut random, 1_024) {
        let bytes = encoded(&values, Effort::Merge).0;
        if ![Codec::DecimalPco as u8, Codec::Pco as u8].contains(&bytes[0]) {
            continue;
        }
        let mut back = vec![0.0; 1_024];
        decode_values(&bytes, &mut back, &mut buffers).unwrap();
        assert_eq!(back, values, "{name}");
        for _ in 0..2_000 {
            let mut changed = bytes.clone();
            let near = random.bool();
            let at = random.usize(1..changed.len().min(if near { 40 } else { usize::MAX }));
            changed[at] = random.u8(..);
            changed.truncate(random.usize(1..2 * changed.len()));
            let _either = decode_values(&changed, &mut back, &mut buffers);
        }
    }
}

#[test]
fn blocks_of_pco_that_no_encoder_here_writes_are_refused() {
    let values: Vec<f64> = (0..1_024).map(|at| f64::from(at % 7).sqrt()).collect();
    let block = |config: &ChunkConfig| {
        let mut bytes = vec![Codec::Pco as u8];
        simple_compress_into(&values, config, &mut bytes).unwrap();
        bytes
    };
    let refused = |bytes: &[u8], count: usize, wanted: usize| {
        let mut out = vec![0.0; wanted];
        let read = decode_first_values(bytes, count, &mut out, &mut Buffers::default());
        read.unwrap_err().to_string()
    };
    let sound = block(&ChunkConfig::default());
    let mut back = vec![0.0; values.len()];
    decode_values(&sound, &mut back, &mut Buffers::default()).unwrap();
    assert_eq!(back, values);

    let dictionary = block(&ChunkConfig::default().with_mode_spec(ModeSpec::TryDict));
    let two = block(&ChunkConfig::default().with_paging_spec(pco::PagingSpec::Exact(vec![512; 2])));
    for wanted in [300, 1_024] {
        assert!(refused(&dictionary, 1_024, wanted).contains("has a dictionary"));
        assert!(refused(&two, 1_024, wanted).contains("has 512 values, not 1024"));
        assert!(refused(&sound, 1_025, wanted).contains("has 1024 values, not 1025"));
    }
    assert!(refused(&two, 512, 512).contains("too many bytes"));
    assert!(refused(&[&sound[..], &[0]].concat(), 1_024, 1_024).contains("too many bytes"));
}
