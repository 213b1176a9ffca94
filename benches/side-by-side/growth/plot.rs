//! The plots: two files of SVG, a panel for each axis, with a logarithmic scale of what grows. They can be read on light and on dark
//! pages.

use super::table::GOAL;
use super::{Point, Series};
use crate::report::short;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::Path;

/// Panels side by side.
const COLUMNS: usize = 3;
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 210.0;
/// Around the area of the values: left, top, right, bottom.
const MARGIN: [f64; 4] = [48.0, 40.0, 14.0, 34.0];
/// Lines across, above the lowest.
const STEPS: u32 = 4;

const STYLE: &str = "svg { font: 11px system-ui, sans-serif; }
.page { fill: #ffffff; } text { fill: #24292f; } .dim { fill: #57606a; }
.grid { stroke: #d0d7de; } .goal { stroke: #cf222e; stroke-dasharray: 5 3; } .goal-text { fill: #cf222e; }
.line { stroke: #0969da; stroke-width: 2; fill: none; } .range { stroke: #0969da; stroke-opacity: 0.5; } .dot { fill: #0969da; }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; } text { fill: #e6edf3; } .dim { fill: #9198a1; }
.grid { stroke: #30363d; } .goal { stroke: #ff7b72; } .goal-text { fill: #ff7b72; }
.line { stroke: #58a6ff; } .range { stroke: #58a6ff; } .dot { fill: #58a6ff; } }";

/// A point with the range that it stands in.
#[derive(Debug, Clone, Copy)]
struct Mark {
    units: f64,
    least: f64,
    middle: f64,
    most: f64,
}

/// Draws both plots into the folder.
pub(super) fn save(all: &[Series], folder: &Path) -> Result<()> {
    let plots = [
        (
            "growth-cpu.svg",
            "CPU time of a request, by that at the smallest point",
            Some(GOAL),
            ratios as fn(&Series) -> Vec<Mark>,
        ),
        ("growth-memory.svg", "Memory of each unit, KiB", None, memory),
    ];
    std::fs::create_dir_all(folder).with_context(|| format!("\"{}\"", folder.display()))?;
    for (name, title, goal, marks) in plots {
        let file = folder.join(name);
        std::fs::write(&file, plot(title, all, goal, marks))
            .with_context(|| format!("\"{}\"", file.display()))?;
    }
    Ok(())
}

fn ratios(series: &Series) -> Vec<Mark> {
    let mark = |(n, point): (usize, &Point)| match series.ratio(point) {
        Some(it) => Some(Mark { units: point.units as f64, least: it.min, middle: it.median, most: it.max }),
        // The smallest point by itself.
        None if n == 0 => Some(flat(point.units, 1.0)),
        None => None,
    };
    series.points.iter().enumerate().filter_map(mark).collect()
}

fn memory(series: &Series) -> Vec<Mark> {
    let mark = |point: &Point| Some(flat(point.units, series.per_unit(point)?));
    series.points.iter().filter_map(mark).collect()
}

fn flat(units: u64, value: f64) -> Mark {
    Mark { units: units as f64, least: value, middle: value, most: value }
}

fn plot(title: &str, all: &[Series], goal: Option<f64>, marks: fn(&Series) -> Vec<Mark>) -> String {
    let (width, top) = (WIDTH * COLUMNS as f64, 30.0);
    let height = top + HEIGHT * all.len().div_ceil(COLUMNS) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">
<title>{title}</title><style>{STYLE}</style><rect class=\"page\" width=\"{width}\" height=\"{height}\"/>
<text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"600\">{title}</text>\n"
    );
    for (n, series) in all.iter().enumerate() {
        let (x, y) = ((n % COLUMNS) as f64 * WIDTH, top + (n / COLUMNS) as f64 * HEIGHT);
        svg +=
            &format!("<g transform=\"translate({x} {y})\">\n{}</g>\n", panel(series, goal, &marks(series)));
    }
    svg + "</svg>\n"
}

/// Where values lie in a panel.
struct Scale {
    /// Decades.
    units: [f64; 2],
    values: [f64; 2],
}

impl Scale {
    fn of(series: &Series, goal: Option<f64>, marks: &[Mark]) -> Self {
        let units = series.points.iter().map(|point| (point.units as f64).log10());
        let (first, last) = units.fold((f64::INFINITY, 0.0_f64), |(a, b), it| (a.min(it), b.max(it)));
        let most = marks.iter().map(|mark| mark.most).fold(goal.unwrap_or(0.0) * 1.2, f64::max);
        Self { units: [first, last.max(first + 0.1)], values: [0.0, round_up(most)] }
    }

    fn x(&self, units: f64) -> f64 {
        let [left, _, right, _] = MARGIN;
        left + part(self.units, units.log10()) * (WIDTH - left - right)
    }

    fn y(&self, value: f64) -> f64 {
        let [_, top, _, bottom] = MARGIN;
        HEIGHT - bottom - part(self.values, value) * (HEIGHT - top - bottom)
    }
}

fn part([from, to]: [f64; 2], value: f64) -> f64 {
    (value - from) / (to - from)
}

/// To a number that divides well by the steps.
fn round_up(value: f64) -> f64 {
    let size = 10_f64.powf(value.max(1e-6).log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    size * steps.into_iter().find(|step| step * size >= value).unwrap_or(10.0)
}

fn panel(series: &Series, goal: Option<f64>, marks: &[Mark]) -> String {
    let scale = Scale::of(series, goal, marks);
    let mut svg = String::new();
    text(&mut svg, 12.0, 14.0, "font-weight=\"600\"", series.axis.title);
    text(&mut svg, 12.0, 28.0, "class=\"dim\"", series.axis.note);
    axes(&mut svg, series, &scale);
    if let Some(goal) = goal {
        let y = scale.y(goal);
        line(&mut svg, "goal", [MARGIN[0], y, WIDTH - MARGIN[2], y]);
        text(&mut svg, MARGIN[0] + 3.0, y - 3.0, "class=\"goal-text\"", &goal.to_string());
    }
    let at = |mark: &Mark| format!("{:.1},{:.1}", scale.x(mark.units), scale.y(mark.middle));
    let path: Vec<_> = marks.iter().map(at).collect();
    svg += &format!("<polyline class=\"line\" points=\"{}\"/>\n", path.join(" "));
    for mark in marks {
        let x = scale.x(mark.units);
        line(&mut svg, "range", [x, scale.y(mark.least), x, scale.y(mark.most)]);
        let (y, value) = (scale.y(mark.middle), short(mark.middle));
        svg += &format!(
            "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}: {value}</title></circle>\n",
            mark.units
        );
    }
    if marks.is_empty() {
        text(&mut svg, MARGIN[0] + 8.0, HEIGHT / 2.0, "class=\"dim\"", "lost in noise");
    }
    svg
}

/// Lines across with their values, and the points below.
fn axes(svg: &mut String, series: &Series, scale: &Scale) {
    for step in 0..=STEPS {
        let value =
            scale.values[0] + (scale.values[1] - scale.values[0]) * f64::from(step) / f64::from(STEPS);
        let y = scale.y(value);
        line(svg, "grid", [MARGIN[0], y, WIDTH - MARGIN[2], y]);
        text(svg, MARGIN[0] - 5.0, y + 4.0, "class=\"dim\" text-anchor=\"end\"", &tick(value));
    }
    let mut free = 0.0;
    for point in &series.points {
        let x = scale.x(point.units as f64);
        line(svg, "grid", [x, HEIGHT - MARGIN[3], x, HEIGHT - MARGIN[3] + 4.0]);
        // Where two would touch there is room for one.
        if x >= free {
            let label = point.units.to_string();
            text(svg, x, HEIGHT - MARGIN[3] + 16.0, "class=\"dim\" text-anchor=\"middle\"", &label);
            free = x + 8.0 + 7.0 * label.len() as f64;
        }
    }
    let middle = (MARGIN[0] + WIDTH - MARGIN[2]) / 2.0;
    let label = format!("{}s", series.axis.unit);
    text(svg, middle, HEIGHT - 5.0, "class=\"dim\" text-anchor=\"middle\"", &label);
}

/// A round number, with no more digits than it needs.
fn tick(value: f64) -> String {
    ((value * 1000.0).round() / 1000.0).to_string()
}

fn line(svg: &mut String, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
    // Writing to a string does not fail.
    let _ok = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, attributes: &str, text: &str) {
    let _ok = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>");
}
