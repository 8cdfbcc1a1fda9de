//! The report as one page that needs nothing else: no network, no scripts, pictures inside.

mod about;
mod bars;
mod curves;
mod ink;
mod latency;
mod picture;
mod ranking;
mod summary;
mod tables;

#[cfg(test)]
pub(crate) mod tests;

use std::fs;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::args::Kind;
use crate::model::Report;

/// # Errors
///
/// A message for the user.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), String> {
    let text = page(report)?.into_string();
    fs::write(path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn page(report: &Report) -> Result<Markup, String> {
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "flagstone beside its peers, " (report.facts.date) }
                style { (PreEscaped(ink::rules(report))) }
            }
            body {
                (summary::header(report))
                (summary::legend(report))
                main {
                    (tables::ranking(report)?)
                    (bars::times(report)?)
                    (tables::locks(report))
                    (latency::section(report)?)
                    (memory(report)?)
                    (scale(report))
                    (tables::peaks(report)?)
                    (tables::behind(report))
                    (about::section(report))
                }
            }
        }
    })
}

fn scale(report: &Report) -> Markup {
    let rows = ranking::rows(report, Kind::Scale);
    html! {
        @if !rows.is_empty() {
            section {
                h2 { "Heaps of several sizes" }
                (tables::figures(report, &rows))
            }
        }
    }
}

fn memory(report: &Report) -> Result<Markup, String> {
    let rows = ranking::rows(report, Kind::Memory);
    Ok(html! {
        @if !rows.is_empty() {
            section {
                h2 { "Memory" }
                (curves::pictures(report)?)
                details {
                    summary { "Memory figures" }
                    (tables::figures(report, &rows))
                }
            }
        }
    })
}
