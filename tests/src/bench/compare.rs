//! Luminate beside its peers: figures of each, how many times better Luminate is, and the goals of that. Where a goal is
//! about a mean, it is the geometric one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::engine::Kind;
use super::median;
use super::report::{Better, short};

/// One figure of each engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The goal that it belongs to, one of [`GOALS`], or what it is about.
    pub group: String,
    /// What it is; no other row has this name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Which side is good.
    pub better: Better,
    /// One number a run.
    pub runs: BTreeMap<Kind, Vec<f64>>,
    /// The 95th and 99th percentile, for times.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tails: BTreeMap<Kind, (f64, f64)>,
    /// What a reader must know of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remark: String,
}

impl Row {
    /// A row without figures.
    #[must_use]
    pub fn new(group: &str, name: impl Into<String>, unit: &str, better: Better) -> Self {
        Self {
            group: group.to_owned(),
            name: name.into(),
            unit: unit.to_owned(),
            better,
            runs: BTreeMap::new(),
            tails: BTreeMap::new(),
            remark: String::new(),
        }
    }

    /// Adds a run's number.
    pub fn push(&mut self, kind: Kind, value: f64) {
        self.runs.entry(kind).or_default().push(value);
    }

    /// The middle run.
    #[must_use]
    pub fn median(&self, kind: Kind) -> Option<f64> {
        self.runs.get(&kind).filter(|runs| !runs.is_empty()).map(|runs| median(runs))
    }

    /// How many times better Luminate is than the best of the others; nothing where it can't be said, beside 0.
    #[must_use]
    pub fn advantage(&self) -> Option<f64> {
        self.over(&[Kind::VictoriaMetrics, Kind::Prometheus])
    }

    /// How many times better Luminate is than VictoriaMetrics.
    #[must_use]
    pub fn over_victoria_metrics(&self) -> Option<f64> {
        self.over(&[Kind::VictoriaMetrics])
    }

    fn over(&self, others: &[Kind]) -> Option<f64> {
        let own = self.median(Kind::Luminate)?;
        let others = others.iter().filter_map(|kind| self.median(*kind));
        let times = match self.better {
            Better::More => own / others.reduce(f64::max)?,
            Better::Less => others.reduce(f64::min)? / own,
        };
        Some(times).filter(|times| times.is_finite())
    }
}

/// What must hold of all rows of a group together.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Luminate is so many times better than VictoriaMetrics in each.
    Each(f64),
    /// It is so many times better than the best in the geometric mean, and in none worse.
    Mean(f64),
    /// Its own figure is at least this in each.
    AtLeast(f64),
    /// Its own figure is at most this in each.
    AtMost(f64),
}

/// A goal.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// The group of rows that it is about.
    pub group: &'static str,
    /// How the goal is said.
    pub text: &'static str,
    /// What must hold.
    pub rule: Rule,
}

/// All goals. "× better" is the quotient that is good when it is large: half the memory is twice as good.
pub const GOALS: [Goal; 9] = [
    Goal {
        group: "wide line protocol",
        text: "≥ 5 × VictoriaMetrics' samples per CPU second",
        rule: Rule::Each(5.0),
    },
    Goal {
        group: "remote write",
        text: "≥ 5 × VictoriaMetrics' samples per CPU second",
        rule: Rule::Each(5.0),
    },
    Goal { group: "JSON", text: "≥ 2 × VictoriaMetrics' fastest, per CPU second", rule: Rule::Each(2.0) },
    Goal { group: "new series", text: "≥ 15 × VictoriaMetrics' per CPU second", rule: Rule::Each(15.0) },
    Goal { group: "memory", text: "≤ ¼ of VictoriaMetrics' for a series", rule: Rule::Each(4.0) },
    Goal {
        group: "disk", text: "≤ 0.8 × the best's bytes in the mean, never more", rule: Rule::Mean(1.25)
    },
    Goal {
        group: "queries",
        text: "≥ 4 × as fast as the best in the mean, none slower",
        rule: Rule::Mean(4.0),
    },
    Goal { group: "acknowledgement", text: "≤ 10 ms beyond the disk's own sync", rule: Rule::AtMost(10.0) },
    Goal { group: "recovery", text: "≥ 5 M samples a second and core", rule: Rule::AtLeast(5e6) },
];

/// Whether a goal is met.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What was measured, in words.
    pub measured: String,
    /// Whether that is enough.
    pub met: bool,
}

impl Goal {
    /// Judges it; nothing where no row of its group is complete.
    #[must_use]
    pub fn judge(&self, rows: &[Row]) -> Option<Verdict> {
        let of = |figure: fn(&Row) -> Option<f64>| -> Vec<f64> {
            rows.iter().filter(|row| row.group == self.group).filter_map(figure).collect()
        };
        let least = |values: &[f64]| values.iter().copied().reduce(f64::min);
        Some(match self.rule {
            Rule::Each(times) => {
                let least = least(&of(Row::over_victoria_metrics))?;
                Verdict { measured: format!("{} × at least", short(least)), met: least >= times }
            }
            Rule::Mean(times) => {
                let advantages = of(Row::advantage);
                let least = least(&advantages)?;
                let mean = geometric_mean(&advantages);
                let measured = format!("{} × in the mean, {} × at least", short(mean), short(least));
                Verdict { measured, met: mean >= times && least >= 1.0 }
            }
            Rule::AtLeast(goal) => {
                let least = least(&of(|row| row.median(Kind::Luminate)))?;
                Verdict { measured: short(least), met: least >= goal }
            }
            Rule::AtMost(goal) => {
                let most = of(|row| row.median(Kind::Luminate)).into_iter().reduce(f64::max)?;
                Verdict { measured: short(most), met: most <= goal }
            }
        })
    }

    /// How many times better each row of the group should be.
    #[must_use]
    pub fn times(&self) -> Option<f64> {
        match self.rule {
            Rule::Each(times) => Some(times),
            Rule::Mean(_) => Some(1.0),
            Rule::AtLeast(_) | Rule::AtMost(_) => None,
        }
    }
}

/// The goal of a group.
#[must_use]
pub fn goal_of(group: &str) -> Option<&'static Goal> {
    GOALS.iter().find(|goal| goal.group == group)
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

/// All rows of a run.
#[derive(Debug, Default)]
pub struct Comparison {
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Adds a row and says it at once: some parts take minutes.
    pub fn add(&mut self, row: Row) {
        println!("  {}", line(&row));
        self.rows.push(row);
    }

    /// Takes in rows of parts that were measured before; those of this run replace theirs.
    pub fn complete(&mut self, before: Vec<Row>) {
        let mut rows: Vec<Row> =
            before.into_iter().filter(|old| self.rows.iter().all(|row| row.name != old.name)).collect();
        rows.append(&mut self.rows);
        self.rows = rows;
    }

    /// Prints all rows, and the goals.
    pub fn print(&self) {
        println!();
        self.rows.iter().for_each(|row| println!("{}", line(row)));
        println!();
        for goal in &GOALS {
            let Some(Verdict { measured, met }) = goal.judge(&self.rows) else { continue };
            let met = if met { "met" } else { "MISSED" };
            println!("{:<20} {:<52} {measured:<44} {met}", goal.group, goal.text);
        }
    }
}

fn line(row: &Row) -> String {
    let figure = |kind| row.median(kind).map_or("–".to_owned(), short);
    let figures: Vec<String> =
        Kind::ALL.into_iter().map(|kind| format!("{} {:>8}", kind.name(), figure(kind))).collect();
    let times = |times: Option<f64>| times.map_or("–".to_owned(), short);
    let advantage = match row.advantage() {
        Some(best) => format!(
            "  × VictoriaMetrics {:>6}  × best {:>6}",
            times(row.over_victoria_metrics()),
            short(best)
        ),
        None => String::new(),
    };
    format!("{:<58} {:<9} {}{advantage} {}", row.name, row.unit, figures.join("  "), row.remark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, better: Better, figures: [f64; 3]) -> Row {
        let mut row = Row::new(group, "a", "B", better);
        Kind::ALL.into_iter().zip(figures).for_each(|(kind, figure)| row.push(kind, figure));
        row
    }

    fn judged(group: &str, rows: &[Row]) -> bool {
        goal_of(group).expect("a goal").judge(rows).expect("a verdict").met
    }

    #[test]
    fn the_advantage_is_over_the_best_of_the_others() {
        assert_eq!(row("a", Better::More, [10.0, 2.0, 5.0]).advantage(), Some(2.0));
        assert_eq!(row("a", Better::Less, [10.0, 20.0, 40.0]).advantage(), Some(2.0));
        assert_eq!(row("a", Better::Less, [10.0, 5.0, 40.0]).advantage(), Some(0.5));
        assert_eq!(row("a", Better::Less, [0.0, 0.0, 40.0]).advantage(), None);
        let mut alone = Row::new("a", "a", "B", Better::More);
        assert_eq!(alone.advantage(), None);
        alone.push(Kind::Luminate, 1.0);
        assert_eq!(alone.advantage(), None);
    }

    #[test]
    fn the_middle_run_counts() {
        let mut row = Row::new("a", "a", "B", Better::More);
        [9.0, 1.0, 3.0].into_iter().for_each(|run| row.push(Kind::Prometheus, run));
        assert_eq!(row.median(Kind::Prometheus), Some(3.0));
    }

    #[test]
    fn goals_are_judged_by_each_row_or_the_mean() {
        let fast = row("remote write", Better::More, [10.0, 2.0, 1.0]);
        let slow = row("remote write", Better::More, [9.0, 2.0, 1.0]);
        assert!(judged("remote write", std::slice::from_ref(&fast)));
        assert!(!judged("remote write", &[fast, slow]));
        let [small, equal, large] = [4.0, 8.0, 9.0].map(|own| row("disk", Better::Less, [own, 8.0, 16.0]));
        assert!(judged("disk", &[small.clone(), equal]));
        assert!(!judged("disk", &[small, large]), "one shape takes more");
        assert!(judged("recovery", &[row("recovery", Better::More, [5e6, 0.0, 0.0])]));
        assert!(!judged("acknowledgement", &[row("acknowledgement", Better::Less, [10.1, 0.0, 0.0])]));
        assert!(goal_of("queries").expect("a goal").judge(&[]).is_none());
    }

    #[test]
    fn rows_of_earlier_runs_stay_where_they_are_not_measured_again() {
        let named =
            |name: &str, own: f64| Row { name: name.to_owned(), ..row("a", Better::More, [own, 1.0, 1.0]) };
        let mut comparison = Comparison { rows: vec![named("b", 2.0)] };
        comparison.complete(vec![named("a", 1.0), named("b", 1.0)]);
        let left: Vec<_> =
            comparison.rows.iter().map(|row| (row.name.as_str(), row.median(Kind::Luminate))).collect();
        assert_eq!(left, [("a", Some(1.0)), ("b", Some(2.0))]);
    }
}
