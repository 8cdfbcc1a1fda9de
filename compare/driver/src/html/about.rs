//! The end of the page: the machine, who took part, what to beware of.

use maud::{Markup, html};

use crate::model::Report;

const CAVEATS: [&str; 11] = [
    "Nothing is pinned to a processor; priorities and frequency are left alone. Distrust ratios within the spread.",
    "Percentages from few repetitions are rough: with three, a spread is half the range.",
    "Rows that hand blocks from thread to thread (g_) measure the machine as much as the allocator; with both threads on one processor the readings fall to a quarter.",
    "Pairs of one size (a_) are kind to any cache: they bound the cost of a call and say little about programs.",
    "Large blocks (e_, d_push) depend on page faults, hence on the kernel and on transparent huge pages.",
    "The workload itself is most of c_ws100k, i_ and j_: 0.95 there can be a large gain in the allocator.",
    "Rows with more threads than processors show what preemption does, not how anything scales; the counts of locks tell more.",
    "False sharing (k_) depends on how the machine keeps two caches alike; virtual processors may share one.",
    "Recorded programs (t_) are played back on one thread, without contents and without thinking.",
    "A peak resident size includes the program, a few MiB that all have; in small rows it is most of the figure.",
    "Purge hooks differ in what they reach: some collect the calling thread's heap only. Nobody is tuned by options.",
];

pub(super) fn section(report: &Report) -> Markup {
    let facts = &report.facts;
    let seconds = facts.seconds;
    let lines = [
        ("processor", format!("{} × {}", facts.cpus, facts.cpu)),
        ("memory", format!("{} MiB", facts.memory_mib)),
        (
            "kernel",
            format!("Linux {}, huge pages: {}", facts.kernel, facts.huge_pages),
        ),
        ("compiler", facts.rustc.clone()),
        ("profile", facts.profile.clone()),
        ("scale", facts.scale.to_string()),
        ("load at the start", facts.load.clone()),
        ("took", format!("{} min {} s", seconds / 60, seconds % 60)),
    ];
    html! {
        @if !report.complaints.is_empty() {
            section {
                h2 { "Complaints" }
                ul.warning { @for complaint in &report.complaints { li { (complaint) } } }
            }
        }
        section {
            h2 { "Machine and caveats" }
            div.columns {
                dl { @for (name, value) in lines { dt { (name) } dd { (value) } } }
                ul { @for caveat in CAVEATS { li { (caveat) } } }
            }
        }
        section {
            h2 { "Who took part" }
            dl {
                @for allocator in &report.allocators {
                    dt { (allocator.name) @if allocator.short != allocator.name { " (" (allocator.short) ")" } }
                    dd { (allocator.about) }
                }
                @for skipped in &report.skipped {
                    dt.faint { (skipped.name) }
                    dd.faint { "skipped: " (skipped.reason) }
                }
            }
        }
    }
}
