//! A comparison as a page of the documentation: what lies between two marks of it is replaced.

use std::fmt::Write;

use super::compare::{Comparison, GOALS, Goal, Row, Verdict, goal_of};
use super::engine::Kind;
use super::report::{processor, short};

const BEGIN: &str = "<!-- measured: make bench DOCS=docs writes this -->\n";
const END: &str = "<!-- end of what was measured -->\n";

/// The page with the comparison in its place.
///
/// # Errors
/// The page lacks the marks.
pub fn filled(page: &str, comparison: &Comparison) -> Result<String, String> {
    let missing = || format!("the page lacks the marks {BEGIN:?} and {END:?}");
    let (head, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, tail) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{head}{BEGIN}\n{}\n{END}{tail}", measured(comparison)))
}

fn measured(comparison: &Comparison) -> String {
    let mut text = versions(comparison);
    goals(&comparison.rows, &mut text);
    let mut groups: Vec<&str> = Vec::new();
    for row in &comparison.rows {
        if !groups.contains(&row.group.as_str()) {
            groups.push(&row.group);
        }
    }
    for group in groups {
        table(group, comparison.rows.iter().filter(|row| row.group == group), &mut text);
    }
    text.trim_end().to_owned() + "\n"
}

fn versions(comparison: &Comparison) -> String {
    let measured = |kind: &Kind| comparison.rows.iter().any(|row| row.runs.contains_key(kind));
    let versions = Kind::ALL.into_iter().filter(measured);
    let versions: Vec<String> = versions
        .map(|kind| format!("{} {}", kind.name(), kind.version().unwrap_or_default()).trim_end().to_owned())
        .collect();
    format!("{}, on {}.\n\n", versions.join(", "), processor())
}

fn goals(rows: &[Row], text: &mut String) {
    line(text, "| goal | | measured | |");
    line(text, "| --- | --- | --- | --- |");
    for goal in &GOALS {
        if let Some(Verdict { measured, met }) = goal.judge(rows) {
            let met = if met { "met" } else { "**missed**" };
            line(text, &format!("| {} | {} | {measured} | {met} |", goal.group, goal.text));
        }
    }
}

fn table<'a>(group: &str, rows: impl Iterator<Item = &'a Row>, text: &mut String) {
    let names = Kind::ALL.map(Kind::name).join(" | ");
    line(text, &format!("\n**{}**\n\n| | unit | {names} | × VictoriaMetrics | × best | |", capital(group)));
    line(text, "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |");
    for row in rows {
        let cells = Kind::ALL.map(|kind| cell(row, kind)).join(" | ");
        let over = times(row, row.over_victoria_metrics());
        let best = times(row, row.advantage());
        line(text, &format!("| {} | {} | {cells} | {over} | {best} | {} |", row.name, row.unit, row.remark));
    }
}

/// How many times better; bold where the row's goal asks for more.
fn times(row: &Row, times: Option<f64>) -> String {
    let Some(times) = times else { return String::new() };
    match goal_of(&row.group).and_then(Goal::times) {
        Some(aim) if times < aim => format!("**{}**", short(times)),
        _ => short(times),
    }
}

fn cell(row: &Row, kind: Kind) -> String {
    let median = row.median(kind).map_or("–".to_owned(), short);
    match row.tails.get(&kind) {
        Some((p95, p99)) => format!("{median} / {} / {}", short(*p95), short(*p99)),
        None => median,
    }
}

fn capital(group: &str) -> String {
    let mut letters = group.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::super::report::Better;
    use super::*;

    #[test]
    fn only_what_lies_between_the_marks_changes() {
        let mut row = Row::new("disk", "counters", "B/sample", Better::Less);
        row.push(Kind::Luminate, 1.0);
        row.push(Kind::VictoriaMetrics, 0.5);
        row.tails.insert(Kind::Luminate, (2.0, 3.0));
        let comparison = Comparison { rows: vec![row] };
        let page =
            filled(&format!("before\n{BEGIN}old\n{END}after\n"), &comparison).expect("it has the marks");
        assert!(page.starts_with("before\n") && page.ends_with("after\n") && !page.contains("old"), "{page}");
        assert!(
            page.contains(
                "| counters | B/sample | 1.00 / 2.00 / 3.00 | 0.500 | – | **0.500** | **0.500** |  |"
            ),
            "{page}"
        );
        assert!(page.contains("| disk | ≤ 0.8 × the best's bytes in the mean, never more | 0.500 × in the mean, 0.500 × at least | **missed** |"), "{page}");
        assert_eq!(filled(&page, &comparison).as_deref(), Ok(page.as_str()), "again the same");
        assert!(filled("no marks", &comparison).is_err());
    }
}
