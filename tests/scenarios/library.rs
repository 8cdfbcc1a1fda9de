//! A library that brings its own allocator is unloaded while threads live that have used it.

use core::ffi::{CStr, c_void};
use core::mem;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::env;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::SystemTime;

use crate::common::child::{alone, scenario};
use crate::common::process::verify;

const THREADS: usize = 4;
const LENGTH: usize = 100_000;

/// Where the child finds the library.
const PLACE: &str = "SCENARIOS_LIBRARY";

/// The library as the loader knows it.
pub(crate) struct Library(NonNull<c_void>);

// SAFETY: the loader answers every thread.
unsafe impl Sync for Library {}

impl Library {
    pub(crate) fn load(path: &CStr) -> Self {
        // SAFETY: the path is a C string, and the library's constructors are those of Rust.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        let Some(handle) = NonNull::new(handle) else {
            // SAFETY: no precondition.
            let why = unsafe { libc::dlerror() };
            // SAFETY: the loader has refused, so this is a C string.
            panic!("the library does not load: {:?}", unsafe {
                CStr::from_ptr(why)
            });
        };
        Self(handle)
    }

    pub(crate) fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the library is loaded and the name is a C string.
        let symbol = unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?} is missing");
        symbol
    }

    pub(crate) fn work(&self) -> extern "C" fn(usize) -> usize {
        // SAFETY: `plugin.rs` defines it so.
        unsafe { mem::transmute(self.symbol(c"work")) }
    }

    pub(crate) fn lend(&self) -> extern "C" fn(usize, u8) -> *mut u8 {
        // SAFETY: `plugin.rs` defines it so.
        unsafe { mem::transmute(self.symbol(c"lend")) }
    }

    pub(crate) fn give_back(&self) -> unsafe extern "C" fn(*mut u8, usize) {
        // SAFETY: `plugin.rs` defines it so.
        unsafe { mem::transmute(self.symbol(c"give_back")) }
    }

    pub(crate) fn close(self) {
        // SAFETY: from `dlopen`, and nobody calls into the library while it is closed.
        let result = unsafe { libc::dlclose(self.0.as_ptr()) };
        assert_eq!(result, 0, "dlclose refused");
    }
}

/// The crate's newest library beside this test.
fn crate_library(folder: &Path) -> Option<PathBuf> {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libflagstone-") && name.ends_with(".rlib")
    };
    let age = |path: &PathBuf| {
        let data = fs::metadata(path).and_then(|data| data.modified());
        data.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries
        .map(|entry| entry.path())
        .filter(is_ours)
        .max_by_key(age)
}

/// Compiles `plugin.rs` against the crate as it was built for this test.
pub(crate) fn build() -> Result<PathBuf, String> {
    let test = env::current_exe().map_err(|error| error.to_string())?;
    build_against(test.parent().ok_or("no folder")?, "plugin", &[])
}

/// Compiles a plugin against the crate as it was built in `folder`, where the library is left. Not
/// an example of this package: a static target cannot make a library of it, and then no test would
/// build there.
pub(crate) fn build_against(
    folder: &Path,
    plugin: &str,
    options: &[&str],
) -> Result<PathBuf, String> {
    let ours = crate_library(folder).ok_or("the crate's library is not there")?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let source = tests.join(plugin).with_extension("rs");
    // Two tests build at the same time.
    static BUILT: AtomicUsize = AtomicUsize::new(0);
    let number = BUILT.fetch_add(1, Ordering::Relaxed);
    let plugin = folder.join(format!(
        "scenarios_{plugin}_{}_{number}.so",
        std::process::id()
    ));
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command
        .args(["--edition", "2024", "--crate-type", "cdylib"])
        .args(options);
    command.arg("--extern").arg({
        let mut argument = std::ffi::OsString::from("flagstone=");
        argument.push(ours);
        argument
    });
    command.arg("-L").arg({
        let mut argument = std::ffi::OsString::from("dependency=");
        argument.push(folder);
        argument
    });
    command.arg("-o").arg(&plugin).arg(source);
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(plugin)
}

/// What threads used of the library, and what it lent, is good after the library was closed; so is the
/// end of those threads, which calls the allocator's clean-up, and loading it again.
#[test]
fn a_library_is_closed_before_its_threads_end() {
    const NAME: &str = "library::a_library_is_closed_before_its_threads_end";
    const ROUNDS: usize = 20;
    if scenario().is_none() {
        let plugin = match build() {
            Ok(plugin) => plugin,
            Err(why) => return println!("skipped: no library to load: {why}"),
        };
        let path = plugin.to_str().expect("a path in UTF-8");
        let result = std::panic::catch_unwind(|| alone(NAME, &[(PLACE, path)], || ()));
        fs::remove_file(&plugin).expect("the library is removed");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        return;
    }
    alone(NAME, &[], || {
        let path = env::var_os(PLACE).expect("the library's place");
        let path = CString::new(path.as_bytes()).expect("a path");
        for round in 0..ROUNDS {
            let library = Library::load(&path);
            let (work, lend, give_back) = (library.work(), library.lend(), library.give_back());
            let used = Barrier::new(THREADS + 1);
            let closed = Barrier::new(THREADS + 1);
            let lent = thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        assert_eq!(work(1_000), 2_890);
                        used.wait();
                        closed.wait();
                    });
                }
                used.wait();
                let lent = NonNull::new(lend(LENGTH, 7)).expect("a block");
                library.close();
                closed.wait();
                lent
            });
            // SAFETY: the block is as long and nobody else has it.
            let bytes = unsafe { slice::from_raw_parts(lent.as_ptr(), LENGTH) };
            assert!(bytes.iter().all(|byte| *byte == 7), "round {round}");
            let library = Library::load(&path);
            // The same allocator is still there.
            assert_eq!(library.give_back() as usize, give_back as usize);
            // SAFETY: 1. lent above.
            unsafe { give_back(lent.as_ptr(), LENGTH) };
            library.close();
        }
        verify();
    });
}
