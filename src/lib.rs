//! A memory allocator in pure Rust, for programs on Linux that allocate a lot and run for long.
//! Allocation and free are inlined into the program, take no lock and touch no block. Memory goes
//! back to the kernel, also from inside partly used slabs and from under threads that sleep.
//!
//! ```
//! use flagstone::Flagstone;
//!
//! #[global_allocator]
//! static ALLOCATOR: Flagstone = Flagstone::new();
//!
//! let squares: Vec<u64> = (0..1000).map(|number| number * number).collect();
//! assert_eq!(squares[999], 998_001);
//! ```
//!
//! On other systems than Linux on x86-64 and aarch64 the same calls pass through to the system's allocator: a program
//! compiles and runs there, and nothing more; `README.md` has a table. Where it serves memory itself, it does not resist
//! attackers who corrupt the heap, unless it is [hardened](Hardening). Signal handlers must not call
//! it. Options are in [`Config`], the design in [`algorithm`].
//!
//! | feature | default | does |
//! |---|---|---|
//! | `counters` | off | counts the locks taken, for this project's benchmarks |
//! | `dynamic-tls` | off | for libraries that programs load while they run: no static thread-local storage, at some instructions for each call |
//! | `heaps` | off | `Heap`: memory of one request, tenant or document, counted, limited and dropped as one |
//! | `mapped` | off | `Mapped`: a heap in memory that processes share, with `heaps`; on other systems than these only that |
//! | `nightly` | off | the same for std's own `Allocator`; needs a nightly compiler |
//! | `failpoints` | off | hooks for this package's own tests: refused kernel calls, critical sections |
//! | `valgrind` | off | tells valgrind's memcheck what is a block; costs some instructions for each call without it |

#![no_std]
#![cfg_attr(feature = "nightly", feature(allocator_api))]
#![cfg_attr(
    all(test, loom),
    expect(dead_code, reason = "the models use parts of their modules")
)]

cfg_if::cfg_if! {
    if #[cfg(all(test, loom))] {
        // The models' build: the lock-free protocols alone, each with its model beside it.
        #[path = "os/fork_detect.rs"]
        mod fork_detect;
        #[path = "os/lock_word.rs"]
        mod lock_word;
        #[path = "wakeup/word.rs"]
        mod wakeup;
        #[path = "thread_cache/magazine.rs"]
        mod magazine;
        #[path = "thread_cache/brief.rs"]
        mod brief;
        #[path = "first_class/returned.rs"]
        mod returned;
        #[path = "mapped/slab.rs"]
        mod slab;
        #[path = "mapped/names.rs"]
        mod names;
        #[path = "mapped/holder.rs"]
        mod holder;
        #[path = "mapped/handover.rs"]
        mod handover;
        #[path = "mapped/inside/count.rs"]
        mod count;
        mod sync;
    } else if #[cfg(all(
        target_os = "linux",
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64", miri, flagstone_portable),
        not(flagstone_elsewhere),
    ))] {
        // In layer order: a module names only what stands below it here.
        mod global; // `Flagstone`, the `GlobalAlloc`
        pub mod raw; // blocks freed by address alone
        #[cfg(all(feature = "mapped", not(any(miri, flagstone_portable))))]
        pub mod mapped; // `Mapped`: a heap in memory that processes share, and what lies in it
        #[cfg(feature = "heaps")]
        mod first_class; // `Heap`: memory that is counted, limited and dropped as one
        mod cache; // fast and slow paths of every call
        mod reclaim; // memory on its way back: purge, maintenance, the background thread
        mod threads; // the lives of threads, and of forked children
        mod thread_cache; // one thread's magazines
        mod heap; // the slabs of each class; refill, flush, page holes
        mod large; // a mapping for each large allocation, and spans handed out whole
        mod sample; // pages between inaccessible ones for sampled allocations
        mod slab; // blocks of one class in a span, a bitmap elsewhere
        mod arena; // chunks of units, spans, owner map, metadata, purging
        mod wakeup; // of the background thread, by who frees memory
        mod demand; // how much free memory is worth keeping
        mod os; // the only callers of libc
        mod config; // run-time options
        mod size_map; // size to class, and to its magazine's place in a cache
        mod hardening; // the safeguards
        mod size_class; // layout to class
        mod stats; // the snapshot
        mod error; // violations and misuse in one line
        mod available; // that there is all this
        mod ptr; // offsets to pointers
        mod random; // for the safeguards
        #[cfg(feature = "valgrind")]
        mod valgrind; // what memcheck is told
        #[cfg(not(feature = "valgrind"))]
        #[path = "valgrind_off.rs"]
        mod valgrind;
        mod sync; // atomics and guarded cells
        mod units; // geometry

        /// The examples of the front page compile.
        #[cfg(doctest)]
        #[doc = include_str!("../README.md")]
        struct Readme;

        pub use config::{Background, Config, HugePages, OptionError};
        pub use error::{StartError, Violation};
        #[cfg(feature = "heaps")]
        pub use allocator_api2;
        #[cfg(feature = "heaps")]
        pub use first_class::{Heap, HeapError, HeapOptions, HeapStats};
        #[cfg(all(feature = "mapped", not(any(miri, flagstone_portable))))]
        pub use mapped::{
            Committed, CommittedOptions, Handle, Mapped, MappedError, MappedOptions, MappedStats, MappingName, Opened,
        };
        pub use global::Flagstone;
        pub use hardening::{Hardening, MissingSafeguards};
        #[cfg(feature = "counters")]
        #[doc(hidden)]
        pub use os::counters;
        #[cfg(feature = "failpoints")]
        #[doc(hidden)]
        pub use {arena::spans_on_their_way, os::failpoints};
        pub use stats::Stats;
    } else {
        mod elsewhere; // the same calls, passed through to the system's allocator
        #[expect(dead_code, reason = "what the engine reads")]
        #[path = "elsewhere/config.rs"]
        mod config;
        #[expect(dead_code, reason = "what the engine reads")]
        mod hardening;
        mod stats;
        #[expect(dead_code, reason = "what the engine says")]
        mod error;
        #[path = "elsewhere/available.rs"]
        mod available;

        #[cfg(feature = "heaps")]
        pub use allocator_api2;
        pub use config::{Background, Config, HugePages, OptionError};
        pub use elsewhere::Flagstone;
        #[cfg(feature = "heaps")]
        pub use elsewhere::{Heap, HeapError, HeapOptions, HeapStats};
        pub use error::{StartError, Violation};
        pub use hardening::{Hardening, MissingSafeguards};
        pub use stats::Stats;
    }
}

// The first definition of a link holds: here that of a module, on its own that of a file.
/// [sizes]: algorithm::sizes
/// [paths]: algorithm::paths
/// [threads]: algorithm::threads
/// [fork]: algorithm::fork
/// [purging]: algorithm::purging
/// [heaps]: algorithm::heaps
/// [mapped]: algorithm::mapped
/// [committed]: algorithm::committed
/// [hardening]: algorithm::hardening
/// [states]: algorithm::states
/// [locks-and-atomics]: algorithm::locks_and_atomics
/// [failures]: algorithm::failures
/// [tools]: algorithm::tools
/// [constants]: algorithm::constants
/// [decisions]: algorithm::decisions
#[cfg(not(all(test, loom)))]
#[doc = include_str!("../ALGORITHM.md")]
pub mod algorithm {
    #[doc = include_str!("../docs/sizes.md")]
    pub mod sizes {}
    #[doc = include_str!("../docs/paths.md")]
    pub mod paths {}
    #[doc = include_str!("../docs/threads.md")]
    pub mod threads {}
    #[doc = include_str!("../docs/fork.md")]
    pub mod fork {}
    #[doc = include_str!("../docs/purging.md")]
    pub mod purging {}
    #[doc = include_str!("../docs/heaps.md")]
    pub mod heaps {}
    #[doc = include_str!("../docs/mapped.md")]
    pub mod mapped {}
    #[doc = include_str!("../docs/committed.md")]
    pub mod committed {}
    #[doc = include_str!("../docs/hardening.md")]
    pub mod hardening {}
    #[doc = include_str!("../docs/states.md")]
    pub mod states {}
    #[doc = include_str!("../docs/locks-and-atomics.md")]
    pub mod locks_and_atomics {}
    #[doc = include_str!("../docs/failures.md")]
    pub mod failures {}
    #[doc = include_str!("../docs/tools.md")]
    pub mod tools {}
    #[doc = include_str!("../docs/constants.md")]
    pub mod constants {}
    #[doc = include_str!("../docs/decisions.md")]
    pub mod decisions {}
}

#[cfg(test)]
extern crate std;
