//! The tables: medians as ratios to glibc's, with the spread.

use comfy_table::{Table, presets::ASCII_MARKDOWN};

use crate::run::Sample;
use crate::{Allocator, Row};

type Value = fn(&Sample) -> f64;

/// Median, and half the width of the middle half of the values in percent of it.
fn middle(samples: &[Sample], value: Value) -> (f64, f64) {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let place = part * (values.len() - 1) as f64;
        let (low, high) = (
            values[place.floor() as usize],
            values[place.ceil() as usize],
        );
        low + (high - low) * place.fract()
    };
    let median = at(0.5);
    (median, (at(0.75) - at(0.25)) / 2.0 / median * 100.0)
}

/// Prints time and memory of every program, as ratios to glibc, and their geometric means.
pub(crate) fn show(rows: &[Row], allocators: &[Allocator]) {
    let values: [(&str, &str, f64, Value); 3] = [
        ("time", "s", 1.0, |sample| sample.wall),
        ("processor time", "s", 1.0, |sample| sample.processor),
        ("peak memory", "MiB", 1024.0, |sample| sample.peak),
    ];
    let base = allocators
        .iter()
        .position(|allocator| allocator.name == "glibc")
        .unwrap_or(0);
    for (title, unit, scale, value) in values {
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN);
        let mut header = vec![
            title.to_owned(),
            format!("{}, {unit}", allocators[base].name),
            "± %".into(),
        ];
        header.extend(allocators.iter().map(|allocator| allocator.name.clone()));
        table.set_header(header);
        let mut logs = vec![0.0; allocators.len()];
        for row in rows {
            let (unit, spread) = middle(&row.samples[base], value);
            let mut cells = vec![
                row.name.into(),
                format!("{:.2}", unit / scale),
                format!("{spread:.1}"),
            ];
            for (index, samples) in row.samples.iter().enumerate() {
                let (median, spread) = middle(samples, value);
                logs[index] += (median / unit).ln();
                cells.push(format!("{:.3} ±{spread:.1}", median / unit));
            }
            table.add_row(cells);
        }
        let mut means = vec!["geometric mean".to_owned(), String::new(), String::new()];
        means.extend(
            logs.iter()
                .map(|log| format!("{:.3}", (log / rows.len() as f64).exp())),
        );
        table.add_row(means);
        println!("{table}\n");
    }
}
