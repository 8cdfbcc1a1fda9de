//! Libraries that bring their own allocator with the feature `dynamic-tls`: the loader's small
//! reserve of static thread-local storage is neither too small for them nor used up.

use core::{mem, ptr};
use std::env;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use crate::common::child::{alone, scenario};
use crate::common::process::verify;
use crate::library::{Library, build, build_against};

/// Where the child finds the libraries.
const PLACE: &str = "SCENARIOS_LIBRARIES";

const THREADS: usize = 3;
/// Without the feature some dozen load, with glibc 2.36.
const COPIES: usize = 70;
/// Bytes that a thread has of `wide_plugin.rs`.
const WIDE: usize = 2 << 10;

impl Library {
    fn mark(&self) -> extern "C" fn(u8) -> usize {
        // SAFETY: `wide_plugin.rs` defines it so.
        unsafe { mem::transmute(self.symbol(c"mark")) }
    }

    fn double(&self) -> extern "C" fn(&[f64; 8], usize) -> f64 {
        // SAFETY: `plugin.rs` defines it so.
        unsafe { mem::transmute(self.symbol(c"double")) }
    }

    #[track_caller]
    fn verify(&self) {
        // SAFETY: `plugin.rs` defines it so.
        let is_sound: extern "C" fn() -> bool = unsafe { mem::transmute(self.symbol(c"is_sound")) };
        assert!(is_sound());
    }
}

/// The crate with the feature, in a target folder of its own; the folder of its libraries.
fn crate_with_feature() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dynamic-tls");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--offline", "--lib", "--release", "--features"]);
    command.arg("dynamic-tls").arg("--target-dir").arg(&target);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("cargo runs");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    target.join("release/deps")
}

/// Whether the loader has to place the library's thread-local storage in the static block:
/// `DF_STATIC_TLS` in the `DT_FLAGS` of its dynamic section.
fn wants_static_storage(library: &Path) -> bool {
    const PT_DYNAMIC: u64 = 2;
    const DT_FLAGS: u64 = 30;
    const DF_STATIC_TLS: u64 = 0x10;
    let file = fs::read(library).expect("the library can be read");
    // Numbers of two, four and eight bytes at an offset.
    let number = |at: u64, bytes: usize| {
        let at = usize::try_from(at).expect("an offset");
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(&file[at..at + bytes]);
        u64::from_le_bytes(number)
    };
    let (headers, length, count) = (number(32, 8), number(54, 2), number(56, 2));
    let header = (0..count)
        .map(|index| headers + index * length)
        .find(|header| number(*header, 4) == PT_DYNAMIC)
        .expect("a dynamic section");
    let (start, bytes) = (number(header + 8, 8), number(header + 32, 8));
    (start..start + bytes)
        .step_by(16)
        .find(|entry| number(*entry, 8) == DT_FLAGS)
        .is_some_and(|entry| number(entry + 8, 8) & DF_STATIC_TLS != 0)
}

fn load(folder: &Path, name: &str) -> Library {
    let path = CString::new(folder.join(name).as_os_str().as_bytes()).expect("a path");
    Library::load(&path)
}

/// What a thread frees another has allocated, from libraries of both kinds; each has ended when the
/// next begins.
fn pass_on(libraries: &[Library]) {
    let mut lent = Vec::new();
    for byte in 0..u8::try_from(THREADS).expect("few threads") {
        let before = lent;
        let round = || {
            let lend = |library: &Library| library.lend()(1_000, byte) as usize;
            let blocks: Vec<usize> = libraries.iter().map(lend).collect();
            for (library, block) in libraries.iter().zip(before) {
                assert_eq!(library.work()(10), 10);
                let block = ptr::with_exposed_provenance_mut::<u8>(block);
                // SAFETY: lent by the thread before, which wrote its byte.
                assert_eq!(unsafe { block.read() }, byte - 1);
                // SAFETY: as above, and nobody uses it any more.
                unsafe { library.give_back()(block, 1_000) };
            }
            blocks
        };
        lent = thread::scope(|scope| scope.spawn(round).join().expect("a thread"));
    }
    for (library, block) in libraries.iter().zip(lent) {
        let block = ptr::with_exposed_provenance_mut::<u8>(block);
        // SAFETY: lent by the last thread.
        unsafe { library.give_back()(block, 1_000) };
    }
}

/// Loads the rest of the copies while a thread has used the first of them: the loader has to make
/// room in what it keeps for that thread, in the middle of the thread's next allocation, which
/// changes no register.
fn load_beside_a_thread(first: Library, others: impl Fn() -> Vec<Library>) -> Vec<Library> {
    const NUMBERS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    // Exact, as they are small integers: four times 36.
    const SUM: f64 = 144.0;
    let double = first.double();
    let (used, is_used) = mpsc::channel();
    let (loaded, is_loaded) = mpsc::channel();
    let thread = thread::spawn(move || {
        let at_first = double(&NUMBERS, 2);
        used.send(()).expect("a receiver");
        is_loaded.recv().expect("a sender");
        let later = double(&NUMBERS, 2);
        assert_eq!([at_first, later].map(f64::to_bits), [SUM.to_bits(); 2]);
    });
    is_used.recv().expect("a sender");
    let mut libraries = vec![first];
    libraries.extend(others());
    loaded.send(()).expect("a receiver");
    thread.join().expect("the sums are right");
    libraries
}

/// A library with much thread-local storage, and many copies of one with little, load into a
/// program that runs, and serve several threads each.
#[test]
fn storage_need_not_be_static() {
    const NAME: &str = "dynamic::storage_need_not_be_static";
    if scenario().is_none() {
        // Flagged without the feature: so the look at the flag finds it.
        match build() {
            Ok(plugin) => {
                let wants = wants_static_storage(&plugin);
                fs::remove_file(&plugin).expect("the library is removed");
                assert_eq!(wants, !cfg!(feature = "dynamic-tls"));
            }
            Err(why) => return println!("skipped: no library to load: {why}"),
        }
        let ours = crate_with_feature();
        let folder = ours.join(format!("copies_{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        for plugin in ["plugin", "wide_plugin"] {
            let options = ["-O", "-C", "strip=symbols"];
            let built = build_against(&ours, plugin, &options).expect("a library");
            assert!(!wants_static_storage(&built), "{plugin} is flagged");
            fs::rename(built, folder.join(plugin)).expect("the library is moved");
        }
        for copy in 0..COPIES {
            let name = folder.join(copy.to_string());
            fs::copy(folder.join("plugin"), name).expect("the library is copied");
        }
        let path = folder.to_str().expect("a path in UTF-8");
        let result = panic::catch_unwind(|| alone(NAME, &[(PLACE, path)], || ()));
        fs::remove_dir_all(&folder).expect("the libraries are removed");
        result.unwrap_or_else(|panic| panic::resume_unwind(panic));
        return;
    }
    alone(NAME, &[], || {
        let folder = PathBuf::from(env::var_os(PLACE).expect("the libraries' place"));
        let wide = load(&folder, "wide_plugin");
        let mark = wide.mark();
        for byte in 2..4 {
            let own = move || (mark(byte), mark(1));
            let marks = thread::spawn(own).join().expect("a thread");
            assert_eq!(marks, (WIDE, WIDE * usize::from(byte)));
        }
        let others = || {
            let copies = (0..COPIES).map(|copy| load(&folder, &copy.to_string()));
            copies.collect()
        };
        let libraries = load_beside_a_thread(wide, others);
        pass_on(&libraries);
        for library in libraries {
            library.verify();
            library.close();
        }
        verify();
    });
}
