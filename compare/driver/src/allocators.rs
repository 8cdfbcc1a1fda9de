//! The table of allocators. A new peer is one package beside this one and one entry here.

use serde::{Deserialize, Serialize};

/// What a program is measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// The allocator of this repository.
    Ours,
    /// The same program under a second name: how far apart two equal programs come out.
    Again,
    /// One to be compared with.
    Peer,
    /// Ours with other options: what they cost.
    Variant,
    /// No allocator for use: the least that the calls can cost.
    Floor,
}

#[derive(Debug)]
pub(crate) struct Allocator {
    pub(crate) name: &'static str,
    /// For narrow columns.
    pub(crate) short: &'static str,
    /// The package, and the binary in it.
    pub(crate) package: &'static str,
    pub(crate) role: Role,
    /// Set in the environment of its programs.
    pub(crate) options: &'static [(&'static str, &'static str)],
    /// Crate and version.
    pub(crate) about: &'static str,
}

const fn peer(
    name: &'static str,
    short: &'static str,
    package: &'static str,
    about: &'static str,
) -> Allocator {
    Allocator {
        name,
        short,
        package,
        role: Role::Peer,
        options: &[],
        about,
    }
}

pub(crate) const OURS: Allocator = Allocator {
    name: "flagstone",
    short: "fs",
    package: "with-flagstone",
    role: Role::Ours,
    options: &[],
    about: "this repository",
};

/// Ours first, peers next.
pub(crate) const ALL: &[Allocator] = &[
    OURS,
    peer(
        "mimalloc",
        "mi3",
        "with-mimalloc",
        "mimalloc 3.3.2, crate mimalloc 0.1.52",
    ),
    peer(
        "mimalloc_v2",
        "mi2",
        "with-mimalloc_v2",
        "mimalloc 2.3.2, crate mimalloc 0.1.52 with feature v2",
    ),
    peer(
        "jemalloc",
        "je",
        "with-jemalloc",
        "jemalloc 5.3.1, crate tikv-jemallocator 0.7.0",
    ),
    peer(
        "snmalloc",
        "sn",
        "with-snmalloc",
        "crate snmalloc-rs 0.7.6, built by cmake",
    ),
    peer(
        "rpmalloc",
        "rp",
        "with-rpmalloc",
        "rpmalloc 1.4, crate rpmalloc 0.2.2",
    ),
    peer(
        "tcmalloc",
        "tc",
        "with-tcmalloc",
        "Google's tcmalloc, crate tcmalloc-better 0.1.19",
    ),
    peer(
        "rusty_alloc",
        "ra",
        "with-rusty_alloc",
        "crate rusty_alloc 2.4.0, its inlining entry points",
    ),
    peer("system", "sys", "with-system", "the C library's malloc"),
    peer(
        "dlmalloc",
        "dl",
        "with-dlmalloc",
        "crate dlmalloc 0.2.14, one lock",
    ),
    peer(
        "sefer_alloc",
        "se",
        "with-sefer_alloc",
        "crate sefer-alloc 0.2.1, production features",
    ),
    peer("talc", "ta", "with-talc", "crate talc 5.1.1, one lock"),
    peer(
        "scudo",
        "sc",
        "with-scudo",
        "LLVM's scudo, crate scudo 0.1.3",
    ),
    peer(
        "hardened_malloc",
        "hm",
        "with-hardened_malloc",
        "hardened_malloc 12 light, crate hardened_malloc-rs 0.1.2",
    ),
    Allocator {
        name: "again",
        short: "again",
        package: "with-flagstone",
        role: Role::Again,
        options: &[],
        about: "flagstone a second time, as a control",
    },
    Allocator {
        name: "floor",
        short: "floor",
        package: "with-floor",
        role: Role::Floor,
        options: &[],
        about: "stacks of free blocks for one thread, nothing checked: what a row costs at least",
    },
];

/// The peers of the front page.
pub(crate) const FRONT: [&str; 8] = [
    "mimalloc",
    "mimalloc_v2",
    "jemalloc",
    "snmalloc",
    "rpmalloc",
    "tcmalloc",
    "rusty_alloc",
    "system",
];

/// Ours with its locks counted, which costs time: for counts, not for times.
pub(crate) const COUNTED: Allocator = Allocator {
    name: "flagstone, counted",
    short: "counted",
    package: "with-flagstone_counted",
    role: Role::Ours,
    options: &[],
    about: "this repository",
};

const fn variant(
    name: &'static str,
    short: &'static str,
    options: &'static [(&'static str, &'static str)],
) -> Allocator {
    Allocator {
        name,
        short,
        package: "with-flagstone",
        role: Role::Variant,
        options,
        about: "this repository, with other options",
    }
}

const HARDENED: &str = "FLAGSTONE_HARDENED";
const BACKGROUND: &str = "FLAGSTONE_BACKGROUND";

/// Ours with its background thread from the start or never, or with safeguards: run when they are named, for what they bring and cost.
pub(crate) const VARIANTS: &[Allocator] = &[
    variant("background", "back", &[(BACKGROUND, "on")]),
    variant("no-background", "none", &[(BACKGROUND, "off")]),
    variant("hardened", "hard", &[(HARDENED, "1")]),
    variant("checks", "chk", &[(HARDENED, "checks")]),
    variant("canaries", "can", &[(HARDENED, "canaries")]),
    variant("zero", "zero", &[(HARDENED, "zero")]),
    variant("quarantine", "quar", &[(HARDENED, "quarantine")]),
    variant("random", "rand", &[(HARDENED, "random")]),
    variant("guards", "grd", &[(HARDENED, "guards")]),
    variant("isolation", "iso", &[(HARDENED, "isolation")]),
    variant("sampled", "smp", &[("FLAGSTONE_SAMPLE", "100000")]),
];

/// Ours with variables `NAME=VALUE` in its environment, named as they are. It is kept until the end, as those of
/// the table are.
pub(crate) fn variant_of(variables: &str) -> Result<&'static Allocator, String> {
    let options: Option<Vec<(&str, &str)>> = variables
        .split_whitespace()
        .map(|variable| variable.split_once('='))
        .collect();
    let options = options.filter(|options| !options.is_empty());
    let options = options.ok_or("variables are written NAME=VALUE, with spaces between them")?;
    let kept = |text: &str| -> &'static str { Box::leak(text.into()) };
    let name = kept(variables);
    let short = kept(&variables.replace("FLAGSTONE_", "").to_lowercase());
    let options: Vec<_> = options
        .into_iter()
        .map(|(name, value)| (kept(name), kept(value)))
        .collect();
    Ok(Box::leak(Box::new(variant(name, short, options.leak()))))
}

/// The allocator of this name.
pub(crate) fn named(name: &str) -> Option<&'static Allocator> {
    let mut all = ALL.iter().chain(VARIANTS);
    all.find(|allocator| allocator.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_what_its_variables_say() {
        let variant = variant_of("FLAGSTONE_A=1 B=x=y").expect("it is well-formed");
        assert_eq!(variant.options, [("FLAGSTONE_A", "1"), ("B", "x=y")]);
        assert_eq!(variant.short, "a=1 b=x=y");
        assert_eq!(variant.package, OURS.package);
        for wrong in ["", " ", "A", "A=1 B"] {
            variant_of(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn the_front_page_names_peers() {
        let is_peer = |name| named(name).is_some_and(|found| found.role == Role::Peer);
        assert!(FRONT.into_iter().all(is_peer));
    }
}
