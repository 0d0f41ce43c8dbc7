//! A statement's text, made of files: what stands between `@` is another file, or one of the words below.

use std::borrow::Cow;

use crate::model::{Aggregation, Having};

/// Which of a metric's series a statement reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Chosen {
    /// All of them.
    #[default]
    All,
    /// Those that the filters choose.
    Filtered,
    /// Few, which are bound by their fingerprints.
    Few,
}

/// The bucket of a row that is no cell, but tells of all samples.
pub const NO_BUCKET: i64 = i64::MIN;

/// The parameter that a key to group by is bound to.
pub fn key_parameter(key: usize) -> String {
    format!("key_{key}")
}

/// The parameter that a list of values, or of pairs, is bound to.
pub fn list_parameter(list: usize) -> String {
    format!("list_{list}")
}

/// The parameter that the key of a long list is bound to.
pub fn key_of_list_parameter(list: usize) -> String {
    format!("key_of_list_{list}")
}

/// What varies in the text of a statement; whatever a user says is bound instead.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text {
    /// Which series.
    pub chosen: Chosen,
    /// Whether there are pairs that all must hold, where series are filtered.
    pub equal: bool,
    /// How many lists there are, of each of which something must hold, where series are filtered.
    pub lists: usize,
    /// Whether the lists are of values, looked up in a set, rather than of pairs.
    pub long_lists: bool,
    /// Whether `FINAL` is needed whatever a survey says: several servers need not see the same in both.
    pub always_final: bool,
    /// What a row's number must be.
    pub having: Having,
    /// How many keys samples are grouped by.
    pub keys: usize,
    /// Whether there are buckets.
    pub bucketed: bool,
    /// Whether milliseconds from the first bucket's begin on have room in 32 bits, an interval's too.
    pub short: bool,
    /// What is made of the samples; none where it is a rate.
    pub aggregation: Option<Aggregation>,
}

impl Text {
    /// `text` with what stands between `@` filled in.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(2 * text.len());
        for (at, part) in text.split('@').enumerate() {
            if at % 2 == 0 { filled.push_str(part) } else { filled.push_str(&self.word(part)) }
        }
        filled
    }

    /// The statement that reads samples once, without surveying them first, where there is one that pays.
    ///
    /// Aggregates are made of numbers by series and part of the table. With buckets there may be as many numbers
    /// as samples: that pays where few series are bound, which `FINAL` would read, and where a number is small.
    /// A rate goes through each series' samples in order. So does an integral, but only after a survey. Where numbers are
    /// bounded there may be no row left to tell of all samples, so a survey does.
    #[must_use]
    pub fn one_pass(&self) -> Option<&'static str> {
        if self.always_final || !self.having.is_any() {
            return None;
        }
        let Some(aggregation) = self.aggregation else { return Some(include_str!("../sql/rate_arrays.sql")) };
        let small = aggregation.quantile().is_none();
        let pays = !self.bucketed || (self.chosen == Chosen::Few && small);
        (aggregation != Aggregation::Integral && pays).then_some(include_str!("../sql/aggregate_parts.sql"))
    }

    fn word(&self, word: &str) -> Cow<'static, str> {
        let few = self.chosen == Chosen::Few;
        let always_final = few || self.always_final;
        match word {
            "SURVEY_ROW" => self.fill(include_str!("../sql/survey_row.sql")).into(),
            "SURVEY" if always_final => self.fill(include_str!("../sql/survey.sql")).into(),
            "SURVEY" => self.fill(include_str!("../sql/survey_overlaps.sql")).into(),
            "SAMPLES" if always_final => self.fill(include_str!("../sql/samples.sql")).into(),
            "SAMPLES" => self.fill(include_str!("../sql/samples_overlaps.sql")).into(),
            "CHOSEN" | "FILTERS" if few => "AND fp IN {fps:Array(UInt64)}".into(),
            "LINES" => self.fill(include_str!("../sql/lines.sql")).into(),
            "SELECTED" => self.fill(include_str!("../sql/selected.sql")).into(),
            "PRESENT" => self.fill(include_str!("../sql/present.sql")).into(),
            "NAMES" => self.fill(include_str!("../sql/names.sql")).into(),
            "GROUPED" if self.grouped() => self.fill(include_str!("../sql/grouped.sql")).into(),
            "NAMED_SERIES" if self.grouped() => self.fill(include_str!("../sql/named_series.sql")).into(),
            "KEYS" => self.keys_of_names().into(),
            "ID_OR_0" => if self.grouped() { "id" } else { "toUInt64(0)" }.into(),
            "NAMED" if self.grouped() => self.fill(include_str!("../sql/named.sql")).into(),
            "CHOSEN" if self.chosen == Chosen::Filtered => {
                self.fill(include_str!("../sql/chosen.sql")).into()
            }
            "FILTERS" if self.chosen == Chosen::Filtered => self.filters().into(),
            "HAVING" => self.having_of("made").into(),
            "HAVING_OF_SAMPLES" => self.having_of("v").into(),
            "LIVING" => include_str!("../sql/living.sql").into(),
            "TICK" => if self.short { "UInt32" } else { "Int64" }.into(),
            "NONE" => format!("toInt64({NO_BUCKET})").into(),
            "GROUP" if self.grouped() => "names".into(),
            "NAMES_OF_GROUP" if self.grouped() => "any(names)".into(),
            "GROUP" | "NAMES_OF_GROUP" => "CAST([], 'Array(String)')".into(),
            "BY_GROUP" => self.by_group().into(),
            "ID" if self.grouped() => "id,".into(),
            "NAMED" | "NAMED_SERIES" | "GROUPED" | "CHOSEN" | "FILTERS" | "ID" => "".into(),
            _ => self.bucket_word(word),
        }
    }

    /// What must hold of a series, all of it.
    fn filters(&self) -> String {
        let equal = self.equal.then(|| "AND hasAll(pairs, {pairs:Array(String)})".to_owned());
        let listed = (0..self.lists).map(|at| {
            let (list, key) = (list_parameter(at), key_of_list_parameter(at));
            match self.long_lists {
                true => format!("AND dimensions[{{{key}:String}}] IN {{{list}:Array(String)}}"),
                false => format!("AND hasAny(pairs, {{{list}:Array(String)}})"),
            }
        });
        equal.into_iter().chain(listed).collect::<Vec<_>>().join("\n    ")
    }

    /// What must hold of the number that a row has.
    fn having_of(&self, number: &str) -> String {
        if self.having.is_any() {
            return String::new();
        }
        let bounds =
            self.having.bounds().map(|(name, sign, _)| format!(" AND {number} {sign} {{{name}:Float64}}"));
        format!("WHERE isFinite({number}){}", bounds.collect::<String>())
    }

    /// The values of the keys that samples are grouped by: of single keys, since then no others are read.
    fn keys_of_names(&self) -> String {
        let keys: Vec<String> =
            (0..self.keys).map(|key| format!("dimensions[{{{}:String}}]", key_parameter(key))).collect();
        keys.join(", ")
    }

    /// How numbers by series become those by group and bucket; one of all samples, where there are any.
    fn by_group(&self) -> &'static str {
        match (self.bucketed, self.grouped()) {
            (true, true) => "GROUP BY cell, id",
            (true, false) => "GROUP BY cell",
            (false, true) => "GROUP BY id",
            (false, false) => "HAVING sum(n) > 0",
        }
    }

    fn grouped(&self) -> bool {
        self.keys > 0
    }

    /// What depends on whether there are buckets; without them there is one, called 0.
    fn bucket_word(&self, word: &str) -> Cow<'static, str> {
        let text = match (word, self.bucketed) {
            ("BUCKET", true) => return bucket_of("time").into(),
            ("BUCKETS", true) => {
                let first = bucket_of("before");
                return format!(
                    "range(if(joined, {first}, own), own + {{interval:Int64}}, {{interval:Int64}})"
                )
                .into();
            }
            ("LEFT", true) => "greatest(before, bucket)",
            ("RIGHT", true) => "least(time, bucket + {interval:Int64})",
            ("CELL_OF_SAMPLE", true) => {
                return format!("{} AS cell,", bucket_of("toUnixTimestamp64Milli(ts)")).into();
            }
            ("BY_CELL", true) => "cell,",
            ("CELL", true) => "cell",
            ("SERIES", true) => "uniqExactMerge(uniqExactState(fp)) OVER ()",
            ("SERIES", false) => "sum(count()) OVER ()",
            ("CELL", false) | ("BUCKET", false) => "toInt64(0)",
            ("BUCKETS", false) => "[toInt64(0)]",
            ("LEFT", false) => "before",
            ("RIGHT", false) => "time",
            _ => return self.aggregate_word(word),
        };
        text.into()
    }

    /// What is made of a group's samples; or of a series' in one part, of those together, and of series'.
    fn aggregate_word(&self, word: &str) -> Cow<'static, str> {
        match self.aggregation.and_then(|aggregation| aggregation.quantile()) {
            Some(level) => quantile_word(word, level).into(),
            None => self.plain_word(word).into(),
        }
    }

    fn plain_word(&self, word: &str) -> &'static str {
        match (word, self.aggregation) {
            ("MADE", Some(Aggregation::Avg)) => "avg(v)",
            ("MADE", Some(Aggregation::Sum)) => "sum(v)",
            ("MADE", Some(Aggregation::Min)) => "min(v)",
            ("MADE", Some(Aggregation::Max)) => "max(v)",
            ("MADE", _) => "toFloat64(count())",
            ("PART", Some(Aggregation::Min)) => "min(v)",
            ("PART", Some(Aggregation::Max)) => "max(v)",
            ("PART", _) => "sum(v)",
            ("TOGETHER", Some(Aggregation::Min)) => "min(made_of_part)",
            ("TOGETHER", Some(Aggregation::Max)) => "max(made_of_part)",
            ("TOGETHER", _) => "sum(made_of_part)",
            ("WHOLE", Some(Aggregation::Avg)) => "sum(made) / sum(n)",
            ("WHOLE", Some(Aggregation::Sum)) => "sum(made)",
            ("WHOLE", Some(Aggregation::Min)) => "min(made)",
            ("WHOLE", Some(Aggregation::Max)) => "max(made)",
            ("WHOLE", _) => "toFloat64(sum(n))",
            _ => "",
        }
    }
}

/// Where the bucket of `time` begins. Counted from the bucket in which reading begins, at or before all times, whole
/// division rounds down, and the server divides by a constant faster than it takes a remainder that is never negative.
fn bucket_of(time: &str) -> String {
    format!("{{origin:Int64}} + intDiv({time} - {{origin:Int64}}, {{interval:Int64}}) * {{interval:Int64}}")
}

/// The same for a quantile: of halves, so that the difference of two values doesn't overflow.
fn quantile_word(word: &str, level: f64) -> String {
    match word {
        "MADE" => format!("2 * quantileExactInclusive({level})(v / 2)"),
        "PART" => format!("quantileExactInclusiveState({level})(v / 2)"),
        "TOGETHER" => format!("quantileExactInclusiveMergeState({level})(made_of_part)"),
        "WHOLE" => format!("2 * quantileExactInclusiveMerge({level})(made)"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_known() {
        let files = [
            include_str!("../sql/range.sql"),
            include_str!("../sql/aggregate.sql"),
            include_str!("../sql/aggregate_parts.sql"),
            include_str!("../sql/integral.sql"),
            include_str!("../sql/rate.sql"),
            include_str!("../sql/rate_arrays.sql"),
        ];
        for aggregation in Aggregation::ALL {
            for at in 0..24 {
                let text = Text {
                    chosen: [Chosen::All, Chosen::Filtered, Chosen::Few][at / 8],
                    equal: at & 1 > 0,
                    lists: at & 3,
                    long_lists: at & 4 > 0,
                    always_final: at & 4 > 0,
                    having: Having { gt: (at & 2 > 0).then_some(1.0), ..Having::ANY },
                    keys: at & 1,
                    bucketed: at & 2 > 0,
                    short: at & 1 > 0,
                    aggregation: Some(aggregation),
                };
                for file in files {
                    let filled = text.fill(file);
                    assert!(!filled.contains('@'), "{filled}");
                    assert_eq!(filled.matches('(').count(), filled.matches(')').count(), "{filled}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_asked_for_is_not_in_the_text() {
        let plain = Text::default().fill(include_str!("../sql/aggregate.sql"));
        assert!(!plain.contains("pairs") && !plain.contains("JOIN") && !plain.contains("interval"));
    }
}
