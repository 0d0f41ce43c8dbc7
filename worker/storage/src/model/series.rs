//! The dimensions that, with tenant and metric, name a series.

use std::cmp::Ordering;
use std::sync::Arc;

use super::name::{DimensionKey, InvalidName};

/// How many dimensions a sample may carry and how long a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DimensionLimits {
    /// Most dimensions of a sample (default 20).
    pub max_dimensions: usize,
    /// Longest value, in Unicode scalar values (default 256).
    pub max_value_chars: usize,
}

impl Default for DimensionLimits {
    fn default() -> Self {
        Self { max_dimensions: 20, max_value_chars: 256 }
    }
}

/// Why a set of dimensions was refused; names the key where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDimensions {
    /// A key that is malformed or reserved.
    #[error("dimension key {key:?}: {reason}")]
    Key {
        /// The key as sent, cut to 128 characters.
        key: String,
        /// What is wrong with it.
        reason: InvalidName,
    },
    /// An empty value, or one longer than the limit.
    #[error("the value of dimension {key:?} has {chars} characters; 1 to {max} are allowed")]
    Value {
        /// The key whose value it is.
        key: String,
        /// Its length in Unicode scalar values.
        chars: usize,
        /// The longest allowed.
        max: usize,
    },
    /// More dimensions than a sample may carry.
    #[error("{count} dimensions; at most {max} are allowed")]
    TooMany {
        /// How many were sent.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// The same key twice.
    #[error("dimension key {key:?} appears twice")]
    Duplicate {
        /// The key.
        key: String,
    },
}

/// A set of dimensions: pairs sorted by key (UTF-8 bytes), keys distinct, all valid.
///
/// Its order is the contract's order of series: pairs compared one by one, a prefix first. Sets with the same keys may
/// share them, and equal values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Dimensions {
    keys: Arc<[DimensionKey]>,
    /// One for each key.
    values: Arc<[Arc<str>]>,
}

impl Ord for Dimensions {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Dimensions {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Dimensions {
    /// Checks pairs in any order and takes them.
    ///
    /// # Errors
    /// The first violation, in the order: count, keys, values, duplicates.
    pub fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        limits: &DimensionLimits,
    ) -> Result<Self, InvalidDimensions> {
        Self::like(&Self::default(), pairs, limits)
    }

    /// The same, where much may be as in `other`, which was made under the same limits: what is equal is shared with it
    /// and not checked again. The metrics of one machine differ in nothing else.
    ///
    /// # Errors
    /// As [`Dimensions::new`].
    pub fn like<'a>(
        other: &Self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        limits: &DimensionLimits,
    ) -> Result<Self, InvalidDimensions> {
        let pairs: Vec<(&str, &str)> = pairs.into_iter().collect();
        if other.iter().map(|(key, value)| (key.as_str(), value.as_ref())).eq(pairs.iter().copied()) {
            return Ok(other.clone());
        }
        if pairs.len() > limits.max_dimensions {
            return Err(InvalidDimensions::TooMany { count: pairs.len(), max: limits.max_dimensions });
        }
        let near = |at: usize, value: &str| other.values.get(at).filter(|own| own.as_ref() == value).cloned();
        if other.keys.iter().map(DimensionKey::as_str).eq(pairs.iter().map(|(key, _)| *key)) {
            let mut values = Vec::with_capacity(pairs.len());
            for (at, (key, value)) in pairs.into_iter().enumerate() {
                values.push(near(at, value).map_or_else(|| checked_value(key, value, limits), Ok)?);
            }
            return Ok(Self { keys: other.keys.clone(), values: values.into() });
        }
        let mut checked = Vec::with_capacity(pairs.len());
        for (at, (key, value)) in pairs.into_iter().enumerate() {
            let own_key = match other.keys.get(at) {
                Some(own) if own.as_str() == key => own.clone(),
                _ => checked_key(key)?,
            };
            checked.push((own_key, near(at, value).map_or_else(|| checked_value(key, value, limits), Ok)?));
        }
        checked.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        if let Some(pair) = checked.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(InvalidDimensions::Duplicate { key: pair[0].0.as_str().to_owned() });
        }
        let (keys, values): (Vec<_>, Vec<_>) = checked.into_iter().unzip();
        Ok(Self::from_stored(keys.into(), values))
    }

    /// Takes keys that are known to be valid, distinct and sorted, and a valid value for each: for what storage reads back.
    #[must_use]
    pub fn from_stored(keys: Arc<[DimensionKey]>, values: impl IntoIterator<Item = Arc<str>>) -> Self {
        let values: Arc<[Arc<str>]> = values.into_iter().collect();
        debug_assert!(keys.len() == values.len() && keys.windows(2).all(|pair| pair[0] < pair[1]));
        Self { keys, values }
    }

    /// The value under `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<str>> {
        self.values.get(self.keys.binary_search_by(|own| own.as_str().cmp(key)).ok()?)
    }

    /// A number that clones of one another share and nothing else that lives meanwhile has.
    #[must_use]
    pub fn identity(&self) -> usize {
        self.values.as_ptr().addr()
    }

    /// The pairs, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&DimensionKey, &Arc<str>)> {
        self.keys.iter().zip(self.values.iter())
    }

    /// Whether both are one set in memory: then they are equal, which others may be too.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.values, &other.values)
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

fn checked_key(key: &str) -> Result<DimensionKey, InvalidDimensions> {
    DimensionKey::new(key).map_err(|reason| InvalidDimensions::Key {
        key: key.chars().take(super::MAX_KEY_CHARS).collect(),
        reason,
    })
}

fn checked_value(key: &str, value: &str, limits: &DimensionLimits) -> Result<Arc<str>, InvalidDimensions> {
    let chars = if value.len() <= limits.max_value_chars && value.is_ascii() {
        value.len()
    } else {
        value.chars().count()
    };
    if chars == 0 || chars > limits.max_value_chars {
        return Err(InvalidDimensions::Value { key: key.to_owned(), chars, max: limits.max_value_chars });
    }
    Ok(Arc::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dimensions(pairs: &[(&str, &str)]) -> Result<Dimensions, InvalidDimensions> {
        Dimensions::new(pairs.iter().copied(), &DimensionLimits::default())
    }

    #[test]
    fn pairs_are_sorted_and_found() {
        let set = dimensions(&[("b", "2"), ("a", "1")]).unwrap();
        assert_eq!(set.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(set.get("b").map(AsRef::as_ref), Some("2"));
        assert_eq!(set.get("c"), None);
    }

    #[test]
    fn what_is_like_another_is_what_it_would_be_without() {
        let limits = DimensionLimits { max_dimensions: 3, max_value_chars: 4 };
        let sets: [&[(&str, &str)]; 10] = [
            &[("a", "1"), ("b", "2")],
            &[("a", "1"), ("b", "3")],
            &[("b", "3"), ("a", "1")],
            &[("a", "1")],
            &[],
            &[("a", "1"), ("b", "2"), ("c", "3")],
            &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")],
            &[("a", "1"), ("a", "1")],
            &[("a", "1"), ("b", "")],
            &[("a", "1"), ("__b", "2")],
        ];
        for one in sets {
            let made = Dimensions::new(one.iter().copied(), &limits);
            for other in sets.iter().filter_map(|other| Dimensions::new(other.iter().copied(), &limits).ok())
            {
                let like = Dimensions::like(&other, one.iter().copied(), &limits);
                assert_eq!(like, made);
                assert!(
                    like.is_err() || like.as_ref().is_ok_and(|like| like.is(&other)) <= (made == Ok(other))
                );
            }
        }
        let one = dimensions(sets[0]).unwrap();
        assert!(Dimensions::like(&one, sets[0].iter().copied(), &limits).unwrap().is(&one));
    }

    #[test]
    fn each_limit_has_its_own_refusal() {
        let many: Vec<(String, String)> = (0..21).map(|n| (format!("k{n}"), "v".into())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert!(matches!(dimensions(&many), Err(InvalidDimensions::TooMany { count: 21, max: 20 })));
        assert!(dimensions(&many[..20]).is_ok());
        assert!(matches!(dimensions(&[("a", "")]), Err(InvalidDimensions::Value { chars: 0, .. })));
        let umlauts = "ä".repeat(256);
        assert!(dimensions(&[("a", &umlauts)]).is_ok());
        let longer = "ä".repeat(257);
        assert!(matches!(dimensions(&[("a", &longer)]), Err(InvalidDimensions::Value { chars: 257, .. })));
        assert!(matches!(dimensions(&[("a", "1"), ("a", "2")]), Err(InvalidDimensions::Duplicate { .. })));
        assert!(matches!(dimensions(&[("__x", "1")]), Err(InvalidDimensions::Key { .. })));
    }

    #[test]
    fn order_compares_pairs_and_puts_a_prefix_first() {
        let one = dimensions(&[("a", "1")]).unwrap();
        let two = dimensions(&[("a", "1"), ("b", "0")]).unwrap();
        let three = dimensions(&[("a", "2")]).unwrap();
        assert!(Dimensions::default() < one && one < two && two < three);
    }
}
