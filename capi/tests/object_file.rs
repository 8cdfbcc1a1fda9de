//! Without this, the library could export a symbol too many or too few, or ask more of the loader than it may.

use std::collections::BTreeSet;
use std::fs;

use capi_tests::{root, shared};
use object::elf;
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol, ObjectSymbolTable, RelocationTarget};

/// Every exported symbol; what is added here is added to the documents.
const SYMBOLS: &str = "
    malloc calloc realloc free reallocarray posix_memalign aligned_alloc memalign valloc pvalloc cfree
    malloc_usable_size free_sized free_aligned_sized
    malloc_trim malloc_stats malloc_info mallinfo mallinfo2 mallopt
    __libc_malloc __libc_calloc __libc_realloc __libc_free __libc_memalign __libc_valloc __libc_pvalloc
    __posix_memalign
    _Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t _ZnwmSt11align_val_t _ZnamSt11align_val_t
    _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t
    _ZdlPv _ZdaPv _ZdlPvm _ZdaPvm _ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t _ZdlPvSt11align_val_t
    _ZdaPvSt11align_val_t _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t
    _ZdlPvSt11align_val_tRKSt9nothrow_t _ZdaPvSt11align_val_tRKSt9nothrow_t
    flagstone_get_stats flagstone_purge flagstone_start_background flagstone_verify flagstone_set_option flagstone_version
    flagstone_heap_new flagstone_heap_new_with flagstone_heap_new_of flagstone_heap_drop flagstone_heap_reset
    flagstone_heap_malloc flagstone_heap_calloc flagstone_heap_aligned_alloc
    flagstone_heap_realloc flagstone_heap_free flagstone_heap_usable_size flagstone_heap_set_limit
    flagstone_heap_purge flagstone_heap_get_stats flagstone_heap_name";

#[test]
fn exactly_the_api_is_exported() {
    let bytes = fs::read(shared()).expect("the library");
    let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
    let found: BTreeSet<&str> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .map(|symbol| symbol.name().expect("a name"))
        .collect();
    let expected: BTreeSet<&str> = SYMBOLS.split_whitespace().collect();
    assert_eq!(found, expected);
    let header = fs::read_to_string(root().join("include/flagstone.h")).expect("the header");
    for symbol in expected
        .iter()
        .filter(|symbol| symbol.starts_with("flagstone_"))
    {
        assert!(
            header.contains(&format!("{symbol}(")),
            "the header declares {symbol}"
        );
    }
}

/// A program may have a `malloc` of its own in front of `__libc_malloc`: no function of C's reaches another of them by a name
/// that the loader looks up. Those of C++ do, as the standard has it.
#[test]
fn no_c_function_is_called_by_its_name() {
    let bytes = fs::read(shared()).expect("the library");
    let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
    let symbols = file.dynamic_symbol_table().expect("symbols");
    let relocations = file.dynamic_relocations().expect("relocations");
    let looked_up: BTreeSet<&str> = relocations
        .filter_map(|(_, relocation)| match relocation.target() {
            RelocationTarget::Symbol(index) => symbols.symbol_by_index(index).ok()?.name().ok(),
            _ => None,
        })
        .collect();
    assert!(looked_up.contains("_Znwm"), "{looked_up:?}");
    let ours = SYMBOLS
        .split_whitespace()
        .filter(|name| !name.starts_with("_Z"));
    let found: Vec<&str> = ours.filter(|name| looked_up.contains(name)).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Functions of the C library that the C interface calls, none of them with a lock or a gate held.
const OF_THE_INTERFACE: [&str; 8] = [
    "dlopen",
    "dlsym",
    "fcntl",
    "fstat",
    "fwrite",
    "getenv",
    "getpid",
    "getrusage",
];

/// What the toolchain's own start and end of a library name, and C++'s where it is there.
const OF_THE_TOOLCHAIN: [&str; 6] = [
    "_ITM_deregisterTMCloneTable",
    "_ITM_registerTMCloneTable",
    "__cxa_finalize",
    "__gmon_start__",
    "_ZSt15get_new_handlerv",
    "_ZSt17__throw_bad_allocv",
];

/// The first column of the table under "What is called by name" in `docs/tools.md`.
fn called_by_name() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("../docs/tools.md")).expect("the document");
    let section = text
        .split("\n## What is called by name\n")
        .nth(1)
        .expect("the section");
    let section = section.split("\n## ").next().expect("its end");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').nth(1).expect("a cell"));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// Whatever has a name can be another's function. What the engine calls is in the table that says when, and the table holds
/// nothing else.
#[test]
fn what_is_called_by_name_is_in_the_table() {
    let bytes = fs::read(shared()).expect("the library");
    let file = ElfFile64::<Endianness>::parse(&*bytes).expect("an ELF file");
    let called: BTreeSet<String> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_undefined())
        .map(|symbol| symbol.name().expect("a name"))
        .filter(|name| !OF_THE_INTERFACE.contains(name) && !OF_THE_TOOLCHAIN.contains(name))
        // What `pthread_atfork` is in glibc.
        .map(|name| name.replace("__register_atfork", "pthread_atfork"))
        .filter(|name| !name.is_empty())
        .collect();
    let mut listed = called_by_name();
    // Those that the interface calls as well are not seen here.
    listed.retain(|name| !OF_THE_INTERFACE.contains(&name.as_str()));
    assert_eq!(called, listed);
}

/// The loader keeps little room for thread-local storage of libraries that are loaded late.
#[test]
fn the_loader_is_asked_for_little() {
    let bytes = fs::read(shared()).expect("the library");
    let header = elf::FileHeader64::<Endianness>::parse(&*bytes).expect("an ELF file");
    let endian = header.endian().expect("an order of bytes");
    let segments = header.program_headers(endian, &*bytes).expect("segments");
    let storage = segments
        .iter()
        .find(|segment| segment.p_type(endian) == elf::PT_TLS);
    let storage = storage.map(|segment| segment.p_memsz(endian));
    assert!(
        storage.is_some_and(|bytes| bytes <= 192),
        "thread-local storage: {storage:?} bytes"
    );

    let entries = segments
        .iter()
        .find_map(|segment| segment.dynamic(endian, &*bytes).ok().flatten());
    let entries = entries.expect("a dynamic section");
    let value = |tag: elf::DynamicTag| {
        entries
            .iter()
            .find(|entry| entry.d_tag(endian) == tag)
            .map(|entry| entry.d_val(endian))
    };
    let flags = value(elf::DT_FLAGS_1).expect("flags");
    assert_ne!(
        flags & elf::DF_1_NODELETE.0,
        0,
        "threads run its clean-up after dlclose"
    );
    let libraries = entries
        .iter()
        .filter(|entry| entry.d_tag(endian) == elf::DT_NEEDED);
    assert_eq!(libraries.count(), 1, "libc and nothing else");
}
