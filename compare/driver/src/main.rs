//! Compares flagstone with its peers: builds the workload over each allocator, runs every row in a
//! process of its own, interleaved, and shows medians, spreads and ratios.

#![forbid(unsafe_code)]

// The command line, and what there is to run.
mod allocators;
mod args;
mod build;

// Measuring.
mod facts;
mod interrupt;
mod measure;
mod run;

// What was found.
mod baseline;
mod files;
mod model;
mod statistics;

// What the user gets to see.
mod html;
mod report;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Outputs, Plan, Task};
use crate::build::Built;
use crate::model::Report;

fn main() -> ExitCode {
    match Args::parse()
        .plan()
        .and_then(|(task, outputs)| carry_out(task, &outputs))
    {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(task: Task, outputs: &Outputs) -> Result<ExitCode, String> {
    // Known before minutes are spent.
    for path in outputs.json.iter().chain(&outputs.html) {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(format!("{} is in no folder that exists", path.display()));
        }
    }
    if let Some(path) = &outputs.baseline {
        files::read(path)?;
    }
    let report = match task {
        Task::Show(path) => files::read(&path)?,
        Task::List(plan) => return list(&plan),
        Task::Measure(plan) => measure(&plan)?,
    };
    report::print(&report);
    if let Some(path) = &outputs.json {
        files::write(&report, path)?;
    }
    if let Some(path) = &outputs.html {
        html::write(&report, path)?;
    }
    if let Some(path) = &outputs.baseline {
        let (moves, compared) = baseline::moves(&report, path)?;
        report::print_moves(&moves, compared, path);
    }
    Ok(if report.facts.interrupted {
        ExitCode::from(interrupt::EXIT_CODE)
    } else if report.sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn list(plan: &Plan) -> Result<ExitCode, String> {
    let (built, _) = build::all(plan)?;
    for row in rows(plan, &built)? {
        println!("{:<12} {}", row.name, row.about);
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(plan: &Plan) -> Result<Report, String> {
    interrupt::install();
    let (built, skipped) = build::all(plan)?;
    let rows = rows(plan, &built)?;
    let counted = build::counted(plan);
    let facts = facts::gather(plan);
    Ok(measure::all(
        plan,
        &built,
        counted.as_deref(),
        rows,
        skipped,
        facts,
    ))
}

/// What runs for minutes under `--soak`.
const SOAKED: [&str; 3] = ["m_drift", "m_server", "m_shift"];

/// The rows to run: those of the first program that are asked for.
fn rows(plan: &Plan, built: &[Built]) -> Result<Vec<run::RowName>, String> {
    let first = built.first().ok_or("no allocator to run")?;
    let of_kinds: Vec<_> = run::list(&first.binary)?
        .into_iter()
        .filter(|row| plan.kinds.contains(&row.kind))
        .filter(|row| !plan.soak || SOAKED.contains(&row.name.as_str()))
        .collect();
    let names: Vec<&str> = of_kinds.iter().map(|row| row.name.as_str()).collect();
    let nothing = format!(
        "--filter {}: no row matches; rows: {} (others: --only)",
        plan.filter,
        names.join(" ")
    );
    let rows: Vec<_> = of_kinds
        .into_iter()
        .filter(|row| row.name.contains(&plan.filter))
        .collect();
    if rows.is_empty() {
        Err(nothing)
    } else {
        Ok(rows)
    }
}
