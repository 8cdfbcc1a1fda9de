//! Building the programs: one cargo invocation each, so that no crate's features reach another and
//! a peer that does not build is left out alone.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::allocators::{Allocator, COUNTED, OURS, Role};
use crate::args::{Kind, Plan, Profile};
use crate::interrupt;
use crate::model::Skipped;

/// A program that is ready to run.
pub(crate) struct Built {
    pub(crate) allocator: &'static Allocator,
    pub(crate) binary: PathBuf,
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Each profile has a folder of its own, so that `--no-build` finds what was built with it.
fn target_dir(profile: Profile) -> PathBuf {
    let base =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    base.join(profile.slug())
}

/// Builds or finds our own program, without which there is nothing to compare with.
pub(crate) fn ours(plan: &Plan) -> Result<PathBuf, String> {
    if plan.build {
        build(&OURS, plan.profile).map_err(|reason| format!("{}: {reason}", OURS.name))?;
    }
    find(&OURS, plan.profile)
}

/// Builds or finds every allocator's program, and tells which cannot be had.
pub(crate) fn all(plan: &Plan) -> Result<(Vec<Built>, Vec<Skipped>), String> {
    let (mut built, mut skipped): (Vec<Built>, Vec<Skipped>) = (Vec::new(), Vec::new());
    for &allocator in &plan.allocators {
        let is_there = allocator.package == OURS.package;
        let result = if plan.build && !is_there {
            build(allocator, plan.profile)
        } else {
            Ok(())
        };
        if interrupt::requested() {
            return Err("interrupted before the first measurement".to_owned());
        }
        match result.and_then(|()| find(allocator, plan.profile)) {
            Ok(binary) => built.push(Built { allocator, binary }),
            Err(reason) => {
                eprintln!("skipped {}: {reason}", allocator.name);
                skipped.push(Skipped {
                    name: allocator.name.to_owned(),
                    reason,
                });
            }
        }
    }
    Ok((built, skipped))
}

/// The program that counts locks, if it is wanted and can be had.
pub(crate) fn counted(plan: &Plan) -> Option<PathBuf> {
    let is_wanted = plan.kinds.contains(&Kind::Time)
        && plan
            .allocators
            .iter()
            .any(|allocator| allocator.role == Role::Ours);
    // its counts do not depend on the profile's inlining, and it has no other form
    let profile = Profile {
        in_binary: false,
        ..plan.profile
    };
    let made = || {
        if plan.build {
            build(&COUNTED, profile)?;
        }
        find(&COUNTED, profile)
    };
    if !is_wanted {
        return None;
    }
    made()
        .inspect_err(|reason| eprintln!("no counts of locks: {reason}"))
        .ok()
}

fn find(allocator: &Allocator, profile: Profile) -> Result<PathBuf, String> {
    let name = format!("{}{}", allocator.package, env::consts::EXE_SUFFIX);
    let binary = target_dir(profile).join("release").join(name);
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(format!("there is no {}", binary.display()))
    }
}

fn build(allocator: &Allocator, profile: Profile) -> Result<(), String> {
    let spinner = ProgressBar::new_spinner().with_message(format!("building {}", allocator.name));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .args(["build", "--release", "--quiet", "--color=never", "-p"])
        .arg(allocator.package)
        .arg("--target-dir")
        .arg(target_dir(profile));
    if profile.in_binary {
        cargo.args(["--features", "in_binary"]);
    }
    if let Some(lto) = profile.lto {
        cargo
            .arg("--config")
            .arg(format!("profile.release.lto=\"{}\"", lto.name()));
    }
    let output = cargo.output();
    spinner.finish_and_clear();
    let output = output.map_err(|error| format!("cargo does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(reason(
        allocator,
        profile,
        &String::from_utf8_lossy(&output.stderr),
    ))
}

/// The first error of a failed build; the rest goes to a file.
fn reason(allocator: &Allocator, profile: Profile, messages: &str) -> String {
    let first = messages
        .lines()
        .find(|line| line.starts_with("error"))
        .or_else(|| messages.lines().next())
        .unwrap_or("cargo failed without a message");
    let log = target_dir(profile).join(format!("{}.log", allocator.package));
    match fs::write(&log, messages) {
        Ok(()) => format!("it does not build: {first} (see {})", log.display()),
        Err(_) => format!("it does not build: {first}"),
    }
}
