//! The table, as Markdown, and the arithmetic of rounds.

use std::fmt;

use crate::measure::median;

/// What a figure should reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Nothing was promised.
    None,
    AtLeast(f64),
    AtMost(f64),
}

/// What is held against the goal.
pub(crate) enum Judged {
    /// Ours over the other's, by round.
    Ratio(Vec<f64>),
    /// The figure itself.
    Value(f64),
}

pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) ours: String,
    pub(crate) other: String,
    pub(crate) judged: Judged,
    pub(crate) goal: Goal,
}

/// Rows in the order they were measured, and remarks below them.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A figure against another one of the same round: `ours` and `other` by round, higher is better, printed with `unit`.
    pub(crate) fn compare(&mut self, what: &str, ours: &[f64], other: (&str, &[f64]), unit: &str, goal: Goal) {
        let (name, others) = other;
        let ratios = ours.iter().zip(others).map(|(ours, other)| ours / other).collect();
        self.row(Row {
            what: what.to_owned(),
            ours: format!("{} {unit}", number(median(ours))),
            other: format!("{name}: {} {unit}", number(median(others))),
            judged: Judged::Ratio(ratios),
            goal,
        });
    }

    /// A figure that stands on its own.
    pub(crate) fn value(&mut self, what: &str, value: f64, unit: &str, goal: Goal) {
        self.row(Row {
            what: what.to_owned(),
            ours: format!("{} {unit}", number(value)),
            other: String::new(),
            judged: Judged::Value(value),
            goal,
        });
    }

    /// Something a reader of the table should know.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

/// Three digits are as much as a benchmark knows.
fn number(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => {
            let digits = format!("{value:.0}");
            let (thousands, rest) = digits.split_at(digits.len() - 3);
            format!("{thousands},{rest}")
        }
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, ratio) = match &self.judged {
            Judged::Ratio(ratios) => {
                let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let high = ratios.iter().copied().fold(0.0, f64::max);
                let value = median(ratios);
                (value, format!("{value:.2} ({low:.2} to {high:.2})"))
            }
            Judged::Value(value) => (*value, String::new()),
        };
        let (goal, met) = match self.goal {
            Goal::None => (String::new(), ""),
            Goal::AtLeast(goal) => (format!("at least {goal}"), if value >= goal { "yes" } else { "**no**" }),
            Goal::AtMost(goal) => (format!("at most {goal}"), if value <= goal { "yes" } else { "**no**" }),
        };
        write!(f, "| {} | {} | {} | {ratio} | {goal} | {met} |", self.what, self.ours, self.other)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | Tributary | compared with | ratio (of the rounds) | goal | met |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}
