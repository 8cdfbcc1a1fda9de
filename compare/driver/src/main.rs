//! Compares flagstone with its peers: builds the workload over each allocator, runs every row in a
//! process of its own, interleaved, and shows medians, spreads and ratios.

#![forbid(unsafe_code)]

// The command line, and what there is to run.
mod allocators;
mod args;
mod build;
mod size;

// Measuring.
mod facts;
mod huge_pages;
mod interrupt;
mod measure;
mod programs;
mod run;

// What was found.
mod baseline;
mod files;
mod model;
mod statistics;

// What the user gets to see.
mod html;
mod report;
mod scale;
mod table;

use std::io::{self, ErrorKind, StdoutLock, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Outputs, Plan, Task};
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
    let baseline = match &outputs.baseline {
        Some(path) => Some((path, files::read(path)?)),
        None => None,
    };
    let report = match task {
        Task::Show(path) => files::read(&path)?,
        Task::List(plan) => return list(&plan),
        Task::Sizes(plan) => return sizes(&plan),
        Task::Measure(plan) => measure(&plan)?,
    };
    // The files first: what took minutes to measure is not lost with the terminal.
    if let Some(path) = &outputs.json {
        files::write(&report, path)?;
    }
    if let Some(path) = &outputs.html {
        html::write(&report, path)?;
    }
    show(|out| report::print(&report, out))?;
    if let Some((path, before)) = baseline {
        let (moves, compared) = baseline::moves(&report, &before, path)?;
        show(|out| report::print_moves(&moves, compared, path, out))?;
    }
    Ok(if report.facts.interrupted {
        ExitCode::from(interrupt::EXIT_CODE)
    } else if report.sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes to the terminal, or whatever stands for it.
fn show(write: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        // Who reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| format!("standard output cannot be written: {error}")),
    }
}

fn list(plan: &Plan) -> Result<ExitCode, String> {
    let rows = rows(plan, &build::ours(plan)?)?;
    show(|out| {
        rows.iter()
            .try_for_each(|row| writeln!(out, "{:<12} {}", row.name, row.about))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn sizes(plan: &Plan) -> Result<ExitCode, String> {
    interrupt::install();
    programs::measure(plan, &mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn measure(plan: &Plan) -> Result<Report, String> {
    interrupt::install();
    // A filter that no row matches is known before the peers are built.
    let rows = rows(plan, &build::ours(plan)?)?;
    let (built, skipped) = build::all(plan)?;
    let counted = build::counted(plan);
    let _changed = huge_pages::choose(plan.thp)?;
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

/// Scale rows once for each size, a size after the other.
fn sized(rows: Vec<run::RowName>, sizes: &[size::Size]) -> Vec<run::RowName> {
    let (scale, mut others): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| row.kind == args::Kind::Scale);
    for &size in sizes {
        others.extend(scale.iter().map(|row| run::RowName {
            name: format!("{}/{size}", row.name),
            about: row.about.clone(),
            kind: row.kind,
            size: Some(size),
        }));
    }
    others
}

/// The rows to run: those of our program that are asked for.
fn rows(plan: &Plan, ours: &Path) -> Result<Vec<run::RowName>, String> {
    let of_kinds: Vec<_> = run::list(ours)?
        .into_iter()
        .filter(|row| plan.kinds.contains(&row.kind))
        .filter(|row| !plan.soak || SOAKED.contains(&row.name.as_str()))
        .collect();
    let of_kinds = sized(of_kinds, &plan.sizes);
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
