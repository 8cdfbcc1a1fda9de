//! Reports as JSON files.

use std::fs;
use std::path::Path;

use crate::model::{FORMAT, Report};

/// # Errors
///
/// A message for the user.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), String> {
    let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
    fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// # Errors
///
/// A message for the user.
pub(crate) fn read(path: &Path) -> Result<Report, String> {
    let name = path.display();
    let text =
        fs::read_to_string(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| format!("{name} is no file of --json: {error}"))?;
    let columns = report.allocators.len();
    if report.format != FORMAT {
        return Err(format!(
            "{name} has form {}, this program reads {FORMAT}",
            report.format
        ));
    }
    if report.rows.iter().any(|row| row.columns.len() != columns) {
        return Err(format!("{name} has a row that lacks allocators"));
    }
    Ok(report)
}
