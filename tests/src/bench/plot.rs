//! A comparison as a picture: a bar a row, as long as Luminate is times better than the best of the others.

use std::fmt::Write;

use super::compare::{Row, goal_of};
use super::report::short;

const ROW: f64 = 18.0;
const LEFT: f64 = 330.0;
const WIDTH: f64 = 900.0;
const TOP: f64 = 46.0;
/// Where the scale begins and ends, in times.
const SCALE: (f64, f64) = (0.25, 64.0);
const MARKS: [f64; 9] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// The picture of the rows that have something to compare, as SVG.
#[must_use]
pub fn svg(rows: &[Row]) -> String {
    let bars: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, row.advantage()?))).collect();
    let height = TOP + ROW * bars.len() as f64 + 12.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"13\" fill=\"#222\">Luminate: times better than the best of VictoriaMetrics and Prometheus (a line: the goal)</text>\n"
    );
    for mark in MARKS {
        let x = place(mark);
        let stroke = if mark == 1.0 { "#222" } else { "#ddd" };
        line(&mut out, (x, TOP - 6.0), (x, height - 8.0), stroke);
        text(&mut out, x, TOP - 10.0, "middle", &format!("{mark} ×"));
    }
    for (number, (row, times)) in bars.iter().enumerate() {
        bar(&mut out, TOP + ROW * number as f64, row, *times);
    }
    out.push_str("</svg>\n");
    out
}

/// Where so many times lie; the scale is logarithmic.
fn place(times: f64) -> f64 {
    let (from, to) = SCALE;
    let share = (times.clamp(from, to) / from).ln() / (to / from).ln();
    LEFT + share * (WIDTH - LEFT - 60.0)
}

fn bar(out: &mut String, top: f64, row: &Row, times: f64) {
    let aim = goal_of(&row.group).and_then(|goal| goal.times());
    let color = match aim {
        Some(aim) if times < aim => "#e0a030",
        _ if times < 1.0 => "#c05050",
        _ => "#3a7d5d",
    };
    let (one, end) = (place(1.0), place(times));
    let (left, width) = (one.min(end), (end - one).abs());
    let _ = writeln!(
        out,
        "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{color}\"/>",
        top + 3.0,
        ROW - 6.0
    );
    if let Some(aim) = aim {
        line(out, (place(aim), top + 1.0), (place(aim), top + ROW - 1.0), "#222");
    }
    text(out, LEFT - 8.0, top + ROW - 5.0, "end", &row.name);
    text(out, end.max(one) + 4.0, top + ROW - 5.0, "start", &short(times));
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), stroke: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{stroke}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::engine::Kind;
    use super::super::report::Better;
    use super::*;

    #[test]
    fn a_row_is_a_bar_from_one() {
        let mut row = Row::new("remote write", "a < b", "/cpu-s", Better::More);
        row.push(Kind::Luminate, 4.0);
        let alone = svg(std::slice::from_ref(&row));
        row.push(Kind::VictoriaMetrics, 1.0);
        let both = svg(&[row]);
        assert!(!alone.contains("a &lt; b") && both.contains(">a &lt; b</text>"), "{both}");
        let width = place(4.0) - place(1.0);
        assert!(both.contains(&format!("x=\"{:.1}\" y=\"49.0\" width=\"{width:.1}\"", place(1.0))), "{both}");
        assert!(both.contains(">4.00</text>"));
    }

    #[test]
    fn the_scale_is_logarithmic_and_bounded() {
        let step = place(2.0) - place(1.0);
        assert!((place(16.0) - place(8.0) - step).abs() < 1e-9);
        assert_eq!((place(0.01), place(1e9)), (place(0.25), place(64.0)));
    }
}
