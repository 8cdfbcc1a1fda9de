//! Which rows are counted, and how long each runs.

use std::process::Command;

use crate::build::Program;
use crate::error::Error;

/// Counted unless others are asked for: names, or what names begin with.
const USUAL: [&str; 4] = ["a_", "b_", "i_hash", "j_json"];

/// Time rows on one thread. With several, who waits for whom is not the same from run to run.
const ONE_THREAD: [&str; 8] = ["a_", "b_", "c_", "d_", "e_", "i_", "j_", "t_"];

/// A row runs twice; what it takes for an operation is the difference of the counts over that of
/// the operations. So start, warm-up and end do not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lengths {
    /// Of the slices.
    pub(crate) scale: f64,
    /// Slices of the short run and of the long one, the warm-up left out.
    pub(crate) slices: [usize; 2],
}

/// A slice of millions of instructions, most often.
const SCALE: f64 = 0.02;

const USUAL_LENGTHS: Lengths = Lengths {
    scale: SCALE,
    slices: [1, 3],
};

/// Rows that need other lengths.
const LENGTHS: [(&str, Lengths); 4] = [
    // Few blocks in a round, and so large that the caches take long to settle.
    ("b_fifobig", SETTLING_SLOWLY),
    ("b_randbig", SETTLING_SLOWLY),
    // Its second slice is a per cent above those that follow.
    (
        "i_hash",
        Lengths {
            scale: SCALE,
            slices: [2, 6],
        },
    ),
    // A slice is the whole text at any scale.
    (
        "j_json",
        Lengths {
            scale: SCALE,
            slices: [1, 2],
        },
    ),
];

const SETTLING_SLOWLY: Lengths = Lengths {
    scale: 1.0,
    slices: [2, 6],
};

pub(crate) fn lengths(row: &str) -> Lengths {
    let special = LENGTHS.iter().find(|(name, _)| *name == row);
    special.map_or(USUAL_LENGTHS, |(_, lengths)| *lengths)
}

/// The rows to count, of those that the program has.
pub(crate) fn chosen(program: &Program, filter: Option<&str>) -> Result<Vec<String>, Error> {
    let failed = |reason: String| Error::Run {
        row: "--list".to_owned(),
        tree: program.tree,
        reason,
    };
    let listing = Command::new(&program.binary)
        .arg("--list")
        .env_clear()
        .output();
    let listing = listing.map_err(|error| failed(error.to_string()))?;
    if !listing.status.success() {
        return Err(failed(listing.status.to_string()));
    }
    select(&String::from_utf8_lossy(&listing.stdout), filter)
}

/// Picks from lines `NAME<TAB>KIND<TAB>ABOUT`.
fn select(listing: &str, filter: Option<&str>) -> Result<Vec<String>, Error> {
    let begins = |name: &str, with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    let countable = listing
        .lines()
        .filter_map(|line| line.split_once("\ttime\t"))
        .map(|(name, _)| name)
        .filter(|name| begins(name, &ONE_THREAD));
    let Some(filter) = filter else {
        return Ok(countable
            .filter(|name| begins(name, &USUAL))
            .map(str::to_owned)
            .collect());
    };
    let matching = |name: &&str| name.contains(filter);
    let rows: Vec<_> = countable
        .clone()
        .filter(matching)
        .map(str::to_owned)
        .collect();
    if rows.is_empty() {
        return Err(Error::NoRow {
            filter: filter.to_owned(),
            rows: countable.collect::<Vec<_>>().join(" "),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "a_64\ttime\tpair\nd_str\ttime\tstring\ng_both\ttime\tblock\n\
                           i_hash\ttime\tpush\ni_btree\ttime\tinsertion\nl_cross\tlatency\tx\n";

    #[test]
    fn the_usual_rows_unless_a_filter_names_others() {
        assert_eq!(select(LISTING, None).expect("rows"), ["a_64", "i_hash"]);
        assert_eq!(
            select(LISTING, Some("i_")).expect("rows"),
            ["i_hash", "i_btree"]
        );
        assert_eq!(select(LISTING, Some("str")).expect("rows"), ["d_str"]);
    }

    #[test]
    fn rows_of_several_threads_or_other_kinds_are_refused() {
        for filter in ["g_both", "l_cross", "nothing"] {
            let error = select(LISTING, Some(filter))
                .expect_err("no row")
                .to_string();
            assert!(error.contains("rows: a_64 d_str i_hash i_btree"), "{error}");
        }
    }
}
