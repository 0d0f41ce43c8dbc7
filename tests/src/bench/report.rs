//! Figures beside what they should be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::compare::{Comparison, Row};

/// Which side of a goal is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Better {
    /// At least the goal.
    More,
    /// At most the goal.
    Less,
}

/// One figure: what was measured and what is wanted.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// One number a run.
    pub runs: Vec<f64>,
    /// Which side is good.
    pub better: Better,
    /// What this version should reach.
    pub now: Option<f64>,
    /// What the design aims at.
    pub aim: Option<f64>,
}

impl Figure {
    fn median(&self) -> f64 {
        let mut runs = self.runs.clone();
        runs.sort_by(f64::total_cmp);
        let middle = runs.len() / 2;
        if runs.len() % 2 == 1 { runs[middle] } else { f64::midpoint(runs[middle - 1], runs[middle]) }
    }

    fn verdict(&self) -> &'static str {
        let reaches = |goal: f64| match self.better {
            Better::More => self.median() >= goal,
            Better::Less => self.median() <= goal,
        };
        match (self.aim.map(reaches), self.now.map(reaches)) {
            (Some(true), _) => "reaches the aim",
            (_, Some(true)) => "reaches this version's goal",
            (_, Some(false)) => "MISSES",
            (Some(false), None) => "short of the aim",
            (None, None) => "",
        }
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure and says it at once: some parts take minutes.
    pub fn add(&mut self, figure: Figure) {
        println!("  {}: {} {}", figure.name, short(figure.median()), figure.unit);
        self.figures.push(figure);
    }

    /// Adds a figure without a goal.
    pub fn note(&mut self, name: &'static str, unit: &'static str, runs: Vec<f64>) {
        self.add(Figure { name, unit, runs, better: Better::Less, now: None, aim: None });
    }

    /// Prints all of them as a table.
    pub fn print(&self) {
        let goal = |goal: Option<f64>, better: Better| match (goal, better) {
            (Some(goal), Better::More) => format!("≥ {}", short(goal)),
            (Some(goal), Better::Less) => format!("≤ {}", short(goal)),
            (None, _) => String::new(),
        };
        println!("\n{:<58} {:>12} {:>10} {:>10}  {:<8}", "", "measured", "now", "aim", "unit");
        for figure in &self.figures {
            println!(
                "{:<58} {:>12} {:>10} {:>10}  {:<12} {}",
                figure.name,
                short(figure.median()),
                goal(figure.now, figure.better),
                goal(figure.aim, figure.better),
                figure.unit,
                figure.verdict(),
            );
        }
    }

    /// Keeps them in a file beside the build, with those of parts measured before.
    ///
    /// # Panics
    /// When the build's directory isn't writable.
    pub fn save(&self, file: &str) {
        let mut kept = read(file);
        let before = kept["figures"].as_array().cloned().unwrap_or_default();
        let mut figures: Vec<Value> = before
            .into_iter()
            .filter(|old| self.figures.iter().all(|figure| old["name"] != figure.name))
            .collect();
        figures.extend(self.figures.iter().map(|figure| {
            json!({"name": figure.name, "unit": figure.unit, "median": figure.median(), "runs": figure.runs,
                   "now": figure.now, "aim": figure.aim})
        }));
        kept["figures"] = figures.into();
        write(file, kept);
    }
}

impl Comparison {
    /// Keeps it in a file beside the build, and takes in the rows of parts measured before.
    ///
    /// # Panics
    /// When the build's directory isn't writable.
    pub fn save(&mut self, file: &str) {
        let mut kept = read(file);
        let before: Vec<Row> = serde_json::from_value(kept["comparison"].take()).unwrap_or_default();
        self.complete(before);
        kept["comparison"] = serde_json::to_value(&self.rows).expect("rows are plain");
        write(file, kept);
    }
}

fn beside_the_build(file: &str) -> PathBuf {
    std::env::current_exe().expect("a program knows its path").with_file_name(file)
}

fn read(file: &str) -> Value {
    let bytes = std::fs::read(beside_the_build(file)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({}))
}

fn write(file: &str, mut kept: Value) {
    let path = beside_the_build(file);
    kept["version"] = env!("CARGO_PKG_VERSION").into();
    kept["processor"] = processor().into();
    std::fs::write(&path, format!("{kept:#}\n")).expect("the build's directory is writable");
    println!("\non {}; kept in {}", processor(), path.display());
}

/// The cores that this runs on.
#[must_use]
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}", named.map_or("an unnamed processor", |(_, name)| name))
}

/// A number in three or four significant digits.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} K", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
