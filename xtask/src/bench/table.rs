//! What a bench found: a line per case, a column per quantity, the values of every round.

use std::fmt;

use serde_json::{Value, json};

/// The figures of one bench.
pub(super) struct Table {
    title: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Row>,
    remarks: Vec<String>,
}

struct Row {
    case: String,
    /// Per column, the values of all rounds; none where it does not apply.
    figures: Vec<Vec<f64>>,
}

impl Table {
    pub(super) fn new(title: &'static str, columns: &'static [&'static str]) -> Self {
        Self { title, columns, rows: Vec::new(), remarks: Vec::new() }
    }

    /// Adds a case with the values of each column.
    pub(super) fn push(&mut self, case: impl Into<String>, figures: Vec<Vec<f64>>) {
        self.rows.push(Row { case: case.into(), figures });
    }

    /// Adds a round's value of each column to a case, which is a new one or has earlier rounds' already.
    pub(super) fn add(&mut self, case: impl Into<String>, values: &[Option<f64>]) {
        let case = case.into();
        let known = self.rows.iter().position(|row| row.case == case);
        let at = known.unwrap_or_else(|| {
            self.push(case, vec![Vec::new(); self.columns.len()]);
            self.rows.len() - 1
        });
        if let Some(row) = self.rows.get_mut(at) {
            for (figures, value) in row.figures.iter_mut().zip(values) {
                figures.extend(value);
            }
        }
    }

    /// Adds a line of text beneath the table.
    pub(super) fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let figures = self.columns.iter().zip(&row.figures);
            let figures: serde_json::Map<_, _> =
                figures.map(|(column, values)| ((*column).to_owned(), json!(values))).collect();
            json!({ "case": row.case, "figures": figures })
        });
        json!({ "bench": self.title, "rows": rows.collect::<Vec<_>>(), "remarks": self.remarks })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.figures.iter().map(|values| cell(values)).collect()).collect();
        let names = self.rows.iter().map(|row| row.case.chars().count());
        let first = names.chain([self.title.len()]).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(self.columns.get(column).map(|name| name.chars().count())).max().unwrap_or_default()
        };
        write!(f, "{:first$}", self.title)?;
        for (column, name) in self.columns.iter().enumerate() {
            write!(f, "  {name:>width$}", width = width(column))?;
        }
        writeln!(f)?;
        for (row, cells) in self.rows.iter().zip(&cells) {
            write!(f, "{:first$}", row.case)?;
            for (column, cell) in cells.iter().enumerate() {
                write!(f, "  {cell:>width$}", width = width(column))?;
            }
            writeln!(f)?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(f, "{remark}"))
    }
}

/// `458 (440–502)`: the median and, where rounds differ, their range.
fn cell(values: &[f64]) -> String {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let (Some(&least), Some(&most)) = (values.first(), values.last()) else { return String::new() };
    let median = number(median(&values));
    if number(least) == number(most) {
        median
    } else {
        format!("{median} ({}–{})", number(least), number(most))
    }
}

/// The middle one of some sorted values.
pub(super) fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// A count as a figure; exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2⁵³")]
pub(super) fn count_of(count: impl TryInto<u64>) -> f64 {
    count.try_into().map_or(f64::INFINITY, |count| count as f64)
}

/// Three digits are enough of what is small.
fn number(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}
