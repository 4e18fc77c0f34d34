//! Measured values, and their presentation beside the budgets.

use std::fmt::Write;

/// Repeated measurements of the same thing, sorted.
#[derive(Clone, Debug)]
pub struct Series(Vec<f64>);

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        assert!(!values.is_empty(), "a series has at least one value");
        Self(values)
    }
}

impl Series {
    /// The value that a share of `part` does not exceed (nearest rank): 0.95 for the 95th percentile.
    pub fn percentile(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// The middle value, or the mean of the middle two.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len() % 2 == 1 { self.0[middle] } else { f64::midpoint(self.0[middle - 1], self.0[middle]) }
    }

    fn min(&self) -> f64 {
        self.0[0]
    }

    fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// Which figure of a series is shown.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    Median,
    P95,
    Max,
}

impl Figure {
    fn of(self, series: &Series) -> f64 {
        match self {
            Self::Median => series.median(),
            Self::P95 => series.percentile(0.95),
            Self::Max => series.max(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::P95 => "p95",
            Self::Max => "max",
        }
    }
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    PercentOfCore,
    Mebibytes,
    Megabytes,
    Milliseconds,
    FramesPerSecond,
    Ratio,
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::PercentOfCore => " % of a core",
            Self::Mebibytes => " MiB",
            Self::Megabytes => " MB",
            Self::Milliseconds => " ms",
            Self::FramesPerSecond => " fps",
            Self::Ratio | Self::Count => "",
        }
    }
}

/// Rounded to three digits, with no more than three decimals, and never coarser than whole numbers.
fn show(value: f64) -> String {
    let decimals = match value.abs() {
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// One line of the results.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    unit: Unit,
    figure: Figure,
    series: Series,
    /// The figure's upper limit.
    budget: Option<f64>,
}

impl Row {
    /// A line that shows the median.
    pub fn new(what: impl Into<String>, unit: Unit, values: impl IntoIterator<Item = f64>) -> Self {
        Self { what: what.into(), unit, figure: Figure::Median, series: values.into_iter().collect(), budget: None }
    }

    /// Shows another figure than the median.
    pub fn figure(mut self, figure: Figure) -> Self {
        self.figure = figure;
        self
    }

    /// Sets the budget: the figure may be at most this.
    pub fn budget(mut self, at_most: f64) -> Self {
        self.budget = Some(at_most);
        self
    }

    /// Whether the figure keeps its budget, if there is one.
    pub fn keeps_budget(&self) -> bool {
        self.budget.is_none_or(|budget| self.figure.of(&self.series) <= budget)
    }

    fn line(&self) -> String {
        let Self { what, unit, series, .. } = self;
        let mut line = format!("| {what} | {}{} ", show(self.figure.of(series)), unit.name());
        let (runs, min, max) = (series.0.len(), show(series.min()), show(series.max()));
        let _ = write!(line, "| {} of {runs} | {min} .. {max} ", self.figure.name());
        match self.budget {
            None => line.push_str("| | |"),
            Some(budget) => {
                let verdict = if self.keeps_budget() { "kept" } else { "**missed**" };
                let _ = write!(line, "| ≤ {budget}{} | {verdict} |", unit.name());
            }
        }
        line
    }
}

/// A group of lines.
#[derive(Clone, Debug)]
pub struct Section {
    pub title: &'static str,
    /// How it was measured.
    pub method: String,
    pub rows: Vec<Row>,
}

impl Section {
    /// The section as Markdown.
    pub fn text(&self) -> String {
        let lines: Vec<String> = self.rows.iter().map(Row::line).collect();
        format!(
            "## {}\n\n{}\n\n| what | figure | of | min .. max | budget | |\n|---|---|---|---|---|---|\n{}\n",
            self.title,
            self.method,
            lines.join("\n")
        )
    }
}
