//! Draws the runs as an SVG picture.

use std::fmt::Write as _;

use crate::run::Point;
use crate::traces::LENGTH_S;

const WIDTH: f64 = 900.0;
const RATES: f64 = 130.0;
const WAITS: f64 = 60.0;
const MARGIN: f64 = 40.0;
const HEIGHT: f64 = RATES + WAITS + 2.0 * MARGIN;
/// The longest wait drawn, seconds.
const LONGEST: f64 = 3.0;
const COLOURS: [&str; 4] = ["#0a5", "#d60", "#06c", "#999"];

/// One trace.
pub struct Panel {
    pub title: &'static str,
    /// The requested bitrate, bit/s.
    pub wanted: f64,
    /// The curves with their rules' names.
    pub curves: Vec<(&'static str, Vec<Point>)>,
}

/// All panels, one under the other.
pub fn svg(panels: &[Panel]) -> String {
    let (width, height) = (WIDTH + 2.0 * MARGIN, HEIGHT * panels.len() as f64);
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' font-family='sans-serif' \
         font-size='11'>\n<rect width='100%' height='100%' fill='white'/>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let _ = writeln!(out, "<g transform='translate({MARGIN} {})'>", number as f64 * HEIGHT + MARGIN);
        draw(&mut out, panel);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel) {
    let _ = write!(out, "<text y='-18' font-weight='bold'>{}: bitrate (grey: the link)</text>", panel.title);
    for (number, (name, _)) in panel.curves.iter().enumerate() {
        let _ = write!(out, "<text x='{}' y='-18' fill='{}'>{name}</text>", 330 + number * 90, COLOURS[number % 4]);
    }
    let top = panel.wanted * 1.3;
    let rate = |value: f64| RATES * (1.0 - (value / top).min(1.0));
    if let Some((_, points)) = panel.curves.first() {
        let link: String = line(points, |p| rate(p.capacity));
        let _ = writeln!(out, "<polygon fill='#ddd' points='0,{RATES} {link} {WIDTH},{RATES}'/>");
    }
    let floor = RATES + 12.0 + WAITS;
    let _ = writeln!(out, "<text y='{}'>waits, 0 to {LONGEST} s</text>", RATES + 12.0);
    let _ = writeln!(out, "<line x2='{WIDTH}' y1='{floor}' y2='{floor}' stroke='#aaa'/>");
    for (number, (_, points)) in panel.curves.iter().enumerate() {
        let colour = COLOURS[number % 4];
        let rates: String = line(points, |p| rate(p.bitrate));
        let wait = |p: &Point| floor - WAITS * (p.waited_s / LONGEST).min(1.0);
        let waits: String = line(points, wait);
        for points in [rates, waits] {
            let _ = writeln!(out, "<polyline fill='none' stroke='{colour}' points='{points}'/>");
        }
    }
}

fn line(points: &[Point], y: impl Fn(&Point) -> f64) -> String {
    let place = |point| format!("{:.1},{:.1}", x(point), y(point));
    points.iter().map(place).collect::<Vec<_>>().join(" ")
}

fn x(point: &Point) -> f64 {
    WIDTH * point.at_s / LENGTH_S
}
