//! Plain text tables: the first column to the left, the others to the right.

use std::io::{self, Write};

#[derive(Default)]
pub(crate) struct Table {
    lines: Vec<Line>,
}

enum Line {
    Cells(Vec<String>),
    Text(String),
    Rule,
}

impl Table {
    pub(crate) fn new(headings: Vec<String>) -> Self {
        Self {
            lines: vec![Line::Cells(headings), Line::Rule],
        }
    }

    pub(crate) fn add(&mut self, cells: Vec<String>) {
        self.lines.push(Line::Cells(cells));
    }

    /// A line across the columns.
    pub(crate) fn text(&mut self, text: String) {
        self.lines.push(Line::Text(text));
    }

    pub(crate) fn rule(&mut self) {
        self.lines.push(Line::Rule);
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut widths: Vec<usize> = Vec::new();
        for line in &self.lines {
            let Line::Cells(cells) = line else { continue };
            widths.resize(widths.len().max(cells.len()), 0);
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for line in &self.lines {
            match line {
                Line::Cells(cells) => writeln!(out, "{}", aligned(cells, &widths))?,
                Line::Text(text) => writeln!(out, "{text}")?,
                Line::Rule => {
                    let total = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
                    writeln!(out, "{}", "-".repeat(total))?;
                }
            }
        }
        Ok(())
    }
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        if column == 0 {
            line.push_str(&format!("{cell:<width$}"));
        } else {
            line.push_str(&format!("  {cell:>width$}"));
        }
    }
    line.trim_end().to_owned()
}
