//! Pages of odd reports: each must come out, and draw nothing outside its pictures.

use super::page;
use crate::allocators::Role;
use crate::args::Kind;
use crate::model::{Column, Contestant, FORMAT, Facts, Locks, Report, Row, Sample, Skipped};

pub(crate) fn contestant(name: &str, role: Role) -> Contestant {
    Contestant {
        name: name.to_owned(),
        short: name.to_owned(),
        role,
        about: format!("{name} <1.0>"),
    }
}

pub(crate) fn report(allocators: Vec<Contestant>, rows: Vec<Row>) -> Report {
    Report {
        format: FORMAT,
        facts: Facts {
            date: "2026-01-01 00:00 UTC".to_owned(),
            version: "0.1.0".to_owned(),
            commit: None,
            cpu: "a processor".to_owned(),
            cpus: 2,
            memory_mib: 1,
            kernel: "6".to_owned(),
            huge_pages: "never".to_owned(),
            rustc: "rustc".to_owned(),
            profile: "release".to_owned(),
            scale: 1.0,
            load: "0".to_owned(),
            seconds: 61,
            interrupted: false,
        },
        allocators,
        skipped: Vec::new(),
        rows,
        locks: Vec::new(),
        complaints: Vec::new(),
        sound: true,
    }
}

pub(crate) fn row(name: &str, kind: Kind, columns: Vec<Column>) -> Row {
    Row {
        name: name.to_owned(),
        kind,
        about: "what it does".to_owned(),
        size: None,
        columns,
        checksum: None,
    }
}

pub(crate) fn column(figures: &[(&str, &[f64])], series: &[[f64; 5]]) -> Column {
    let figures = figures.iter();
    Column {
        figures: figures
            .map(|(key, samples)| ((*key).to_owned(), samples.to_vec()))
            .collect(),
        series: series.iter().copied().map(Sample::from).collect(),
        failed: None,
    }
}

fn failed() -> Column {
    Column {
        failed: Some("signal: 11 (SIGSEGV)".to_owned()),
        ..Column::default()
    }
}

/// A time row, a latency row and a memory row whose figures are all `value`.
fn rows(value: f64, allocators: usize) -> Vec<Row> {
    let columns = |column: &dyn Fn() -> Column| (0..allocators).map(|_| column()).collect();
    let all: &[f64] = &[value, value];
    let percentiles = ["p50_ns", "p99_ns", "p999_ns", "max_ns"].map(|key| (key, all));
    let curve = [[0.0, value, value, value, value]; 3];
    vec![
        row(
            "a_x",
            Kind::Time,
            columns(&|| column(&[("ns", all), ("peak_kb", all)], &[])),
        ),
        row(
            "l_empty",
            Kind::Latency,
            columns(&|| column(&percentiles, &[])),
        ),
        row("l_x", Kind::Latency, columns(&|| column(&percentiles, &[]))),
        row(
            "m_x",
            Kind::Memory,
            columns(&|| column(&[("peak_kb", all)], &curve)),
        ),
        row(
            "m_plain",
            Kind::Memory,
            columns(&|| column(&[("freed_ratio", all)], &[])),
        ),
    ]
}

fn everyone() -> Vec<Contestant> {
    vec![
        contestant("flagstone", Role::Ours),
        contestant("peer", Role::Peer),
        contestant("again", Role::Again),
        contestant("floor", Role::Floor),
    ]
}

/// The page, after a look at every number in its pictures.
fn text(report: &Report) -> String {
    let text = page(report).expect("it can be drawn").into_string();
    for word in ["NaN", "inf\"", "inf<", "Infinity"] {
        assert!(!text.contains(word), "{word}");
    }
    for attribute in [
        "x=\"", "y=\"", "x1=\"", "x2=\"", "y1=\"", "y2=\"", "cx=\"", "cy=\"", "width=\"",
    ] {
        let name = format!(" {attribute}");
        for piece in text.split(&name).skip(1) {
            let Ok(at) = piece.split('"').next().unwrap_or("").parse::<f64>() else {
                continue;
            };
            assert!((-1.0..=2000.0).contains(&at), "{attribute} {at}");
        }
    }
    for points in text.split(" points=\"").skip(1) {
        for point in points.split('"').next().unwrap_or("").split([' ', ',']) {
            let at: f64 = point.parse().expect("a number");
            assert!((-20.0..=2000.0).contains(&at), "point at {at}");
        }
    }
    text
}

#[test]
fn values_may_be_anything() {
    for value in [0.0, 1e-300, 1.0, 1e18, 1e300] {
        text(&report(everyone(), rows(value, 4)));
    }
    // a program's output may be infinite, a file cannot say so
    for value in [f64::INFINITY, f64::NAN, -1.0] {
        text(&report(everyone(), rows(value, 4)));
    }
}

#[test]
fn one_allocator_is_enough() {
    for role in [Role::Ours, Role::Peer, Role::Again, Role::Floor] {
        text(&report(vec![contestant("alone", role)], rows(3.0, 1)));
    }
    let long = "a very long name ".repeat(20);
    text(&report(vec![contestant(&long, Role::Peer)], rows(3.0, 1)));
    let nobody = text(&report(Vec::new(), rows(3.0, 0)));
    assert!(nobody.contains("not measured"));
}

#[test]
fn rows_may_lack_anything() {
    let empty = text(&report(everyone(), Vec::new()));
    assert!(!empty.contains("<figure"), "nothing to draw");
    let mut rows = rows(2.0, 4);
    for row in &mut rows {
        row.columns[0] = failed();
        row.columns[3] = Column::default();
    }
    let page = text(&report(everyone(), rows));
    assert!(page.contains("SIGSEGV"), "the reason is there");
    let nothing = (0..4).map(|_| failed()).collect();
    text(&report(everyone(), vec![row("a_x", Kind::Time, nothing)]));
}

#[test]
fn figures_may_be_far_apart() {
    let ns = |value: f64| column(&[("ns", &[value, 1.5 * value, 2.0 * value])], &[]);
    let curve =
        |ms: f64, kb: f64| column(&[], &[[0.0, 0.0, 0.0, 0.0, 1.0], [ms, kb, kb, 0.0, 9.0]]);
    let rows = vec![
        row("a_x", Kind::Time, vec![ns(1.0), ns(1e9), ns(1.0), ns(0.0)]),
        row(
            "m_x",
            Kind::Memory,
            vec![
                curve(1.0, 1.0),
                curve(1e9, 1e9),
                curve(1.0, 1.0),
                curve(1.0, 1.0),
            ],
        ),
    ];
    let mut report = report(everyone(), rows);
    report.rows[1].columns[0].figures = vec![("peak_kb".to_owned(), vec![1.0])];
    text(&report);
}

#[test]
fn what_is_said_is_shown_and_escaped() {
    let mut report = report(everyone(), rows(2.0, 4));
    report.facts.interrupted = true;
    report
        .complaints
        .push("a_x under peer: <b> & co".to_owned());
    report.locks.push(Locks {
        row: "a_locked".to_owned(),
        taken: 12.4,
        waited: 0.0,
    });
    report.skipped.push(Skipped {
        name: "absent".to_owned(),
        reason: "no compiler".to_owned(),
    });
    let page = text(&report);
    let top = page.find("Interrupted").expect("it says so");
    assert!(
        top < page.find("<main").expect("there is a body"),
        "at the top"
    );
    assert!(page.contains("&lt;b&gt; &amp; co") && !page.contains("<b> & co"));
    assert!(page.contains("no compiler") && page.contains("a_locked"));
    assert!(!page.contains("http"), "nothing comes from elsewhere");
}

/// Eleven allocators and sixty rows, a fifth of them with curves.
#[test]
fn the_page_stays_small() {
    let mut allocators = everyone();
    allocators.extend((0..7).map(|at| contestant(&format!("peer number {at}"), Role::Peer)));
    let count = allocators.len();
    let series: Vec<[f64; 5]> = (0..200)
        .map(|ms| {
            let wave = 1e5 + f64::from(ms * 7919 % 1000) * 77.0;
            [f64::from(ms), wave, 2.0 * wave, wave / 2.0, f64::from(ms)]
        })
        .collect();
    let mut all = Vec::new();
    for _ in 0..12 {
        let mut some = rows(1234.5, count);
        for (at, column) in some[3].columns.iter_mut().enumerate() {
            column.series = series.iter().copied().map(Sample::from).collect();
            column
                .series
                .iter_mut()
                .for_each(|sample| sample.mappings *= 1.0 + at as f64);
        }
        all.extend(some);
    }
    assert_eq!(all.len(), 60);
    let size = text(&report(allocators, all)).len();
    assert!(size < 1_500_000, "{size} bytes");
}
