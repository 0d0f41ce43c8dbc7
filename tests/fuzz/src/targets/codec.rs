//! Codecs of blocks: values and times come back bit by bit, and other bytes are refused.

use luminate_storage::rocksdb::codec::{
    Buffers, Bytes, Effort, Encoder, decode_first_values, decode_integers, decode_times, decode_values,
};

use crate::draw::Draw;
use crate::memory;

/// Most values of a block.
const VALUES: usize = 8_192;
/// What a block of so many values takes, in whichever way it is coded.
const MOST: usize = 8 << 20;

/// The first byte says what the rest is: a block of values, of times, of integers, or what blocks are made of. The
/// second and third say how many there are.
pub fn check(input: &[u8]) {
    let [kind, high, low, rest @ ..] = input else { return };
    let count = (usize::from(*high) << 8 | usize::from(*low)) % (VALUES + 1);
    let mut buffers = Buffers::default();
    match kind % 4 {
        0 => {
            let (mut all, mut some) = (vec![0.0; count], vec![0.0; count / 3]);
            let whole = memory::within(MOST, || decode_values(rest, &mut all, &mut buffers));
            let part = memory::within(MOST, || decode_first_values(rest, count, &mut some, &mut buffers));
            if whole.is_ok() {
                assert!(part.is_ok() && are_equal(&all[..some.len()], &some));
            }
        }
        1 => {
            let mut times = vec![0; count];
            if memory::within(MOST, || decode_times(rest, -7, &mut times, &mut buffers)).is_ok() {
                assert!(times.is_sorted_by(|one, other| one < other));
            }
        }
        2 => drop(memory::within(MOST, || {
            decode_integers(&mut Bytes(rest), &mut vec![0; count], &mut buffers)
        })),
        _ => written(Draw(rest), count % 1_024, if high % 2 == 0 { Effort::Seal } else { Effort::Merge }),
    }
}

/// Bit by bit.
fn are_equal(one: &[f64], other: &[f64]) -> bool {
    one.iter().map(|value| value.to_bits()).eq(other.iter().map(|value| value.to_bits()))
}

fn written(mut draw: Draw<'_>, count: usize, effort: Effort) {
    let (scale, run) = ([1.0, 100.0, 3.0][draw.below(3)], 1 + draw.below(20));
    let (mut values, mut times, mut time) = (Vec::new(), Vec::new(), draw.long().cast_signed() >> 8);
    for at in 0..count {
        let value = match values.last() {
            Some(last) if at % run > 0 => *last,
            _ => draw.value() / scale,
        };
        values.push(value);
        times.push(time);
        time += 1 + i64::from(draw.byte()) * 100;
    }
    let (mut encoder, mut buffers) = (Encoder::default(), Buffers::default());
    let mut bytes = Vec::new();
    encoder.values(&values, effort, &mut bytes);
    let mut back = vec![0.0; count];
    decode_values(&bytes, &mut back, &mut buffers).expect("values that were written");
    assert!(are_equal(&back, &values), "{values:?} {back:?}");
    bytes.clear();
    encoder.times(&times, &mut bytes);
    let mut back = vec![0; count];
    decode_times(&bytes, times.first().copied().unwrap_or(0), &mut back, &mut buffers)
        .expect("times that were written");
    assert_eq!(back, times);
}

/// A block of each kind of value, and what others are made of.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let kinds: [&dyn Fn(usize) -> f64; 5] = [
        &|_| 12.5,
        &|at| (at / 30) as f64 * 0.1,
        &|at| (at * 3 % 50) as f64 / 100.0,
        &|at| if at % 97 == 5 { 1e-300 } else { (at % 10) as f64 },
        &|at| (at as f64).sqrt(),
    ];
    let mut seeds = Vec::new();
    for kind in kinds {
        for effort in [Effort::Seal, Effort::Merge] {
            let values: Vec<f64> = (0..300).map(kind).collect();
            let mut block = vec![0, 1, 44];
            Encoder::default().values(&values, effort, &mut block);
            seeds.push(block);
        }
    }
    let mut times = vec![1, 0, 100];
    Encoder::default().times(&(0..100_i64).map(|at| at * at - 7).collect::<Vec<_>>(), &mut times);
    let mut integers = vec![2, 0, 100];
    Encoder::default().integers((0..100).map(|at| at * 7 % 13), &mut integers);
    seeds.extend([times, integers, [vec![3, 0, 200], (0..200).collect()].concat()]);
    seeds
}
