//! Compares flagstone with its peers: builds the workload over each allocator, runs every row in a
//! process of its own, interleaved, and prints medians, spreads and ratios.

#![forbid(unsafe_code)]

mod allocators;
mod args;
mod build;
mod interrupt;
mod measure;
mod report;
mod run;
mod statistics;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Plan};
use crate::build::Built;

fn main() -> ExitCode {
    let plan = match Args::parse().plan() {
        Ok(plan) => plan,
        Err(message) => return fail(&message),
    };
    interrupt::install();
    match compare(&plan) {
        Ok(code) => code,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

fn compare(plan: &Plan) -> Result<ExitCode, String> {
    let built = build::all(plan)?;
    let rows = rows(plan, &built)?;
    if plan.list_only {
        rows.iter()
            .for_each(|row| println!("{:<12} {}", row.name, row.about));
        return Ok(ExitCode::SUCCESS);
    }
    let results = measure::all(plan, &built, &rows);
    report::print(plan, &built, &results);
    Ok(if interrupt::requested() {
        ExitCode::from(interrupt::EXIT_CODE)
    } else if results.complaints.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The rows to run: those of the first program that match the filter.
fn rows(plan: &Plan, built: &[Built]) -> Result<Vec<run::Row>, String> {
    let first = built.first().ok_or("no allocator to run")?;
    let all = run::list(&first.binary, plan.kind)?;
    let names: Vec<&str> = all.iter().map(|row| row.name.as_str()).collect();
    let nothing = format!(
        "--filter {}: no row matches; rows: {}",
        plan.filter,
        names.join(" ")
    );
    let rows: Vec<_> = all
        .into_iter()
        .filter(|row| row.name.contains(&plan.filter))
        .collect();
    if rows.is_empty() {
        Err(nothing)
    } else {
        Ok(rows)
    }
}
