//! What glibc adds: statistics, tuning, and its older and inner names.

use core::ffi::{c_int, c_void};

use engine::Flagstone;

use crate::malloc;
use crate::text::Text;

/// glibc's `struct mallinfo2`, in bytes; what has no counterpart here is 0.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Mallinfo2 {
    /// Committed.
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    /// Free in threads' magazines.
    fsmblks: usize,
    /// Live.
    uordblks: usize,
    /// Committed and not live.
    fordblks: usize,
    keepcost: usize,
}

/// glibc's older `struct mallinfo`: the same as `int`s, at most the greatest.
#[repr(C)]
#[derive(Debug)]
pub struct Mallinfo([c_int; 10]);

/// What the allocator holds at the moment.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> Mallinfo2 {
    let stats = Flagstone::stats().unwrap_or_default();
    Mallinfo2 {
        arena: stats.committed,
        fsmblks: stats.cached,
        uordblks: stats.live,
        fordblks: stats.committed.saturating_sub(stats.live),
        ..Mallinfo2::default()
    }
}

/// As [`mallinfo2`], in `int`s.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> Mallinfo {
    let now = mallinfo2();
    let mut fields = [0; 10];
    for (index, bytes) in [
        (0, now.arena),
        (6, now.fsmblks),
        (7, now.uordblks),
        (8, now.fordblks),
    ] {
        fields[index] = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    }
    Mallinfo(fields)
}

/// What the allocator holds: name, bytes, and what that is.
fn entries() -> [(&'static str, usize, &'static str); 5] {
    let stats = Flagstone::stats().unwrap_or_default();
    [
        ("live", stats.live, "handed out and not freed"),
        ("cached", stats.cached, "free in the caches of threads"),
        (
            "committed",
            stats.committed,
            "readable and writable, for blocks",
        ),
        (
            "resident",
            stats.resident,
            "of the committed ones in memory",
        ),
        (
            "metadata",
            stats.metadata,
            "in memory for the allocator's tables",
        ),
    ]
}

/// Writes what the allocator holds to standard error.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    let mut text = Text::<512>::new();
    for (name, bytes, what) in entries() {
        text.add(format_args!("{name:9} {bytes:>16} bytes {what}\n"));
    }
    text.write_to(libc::STDERR_FILENO);
}

/// Writes what the allocator holds to `file` as XML. `options` must be 0: else -1 with `EINVAL`.
///
/// # Safety
/// 1. `file` is open for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, file: *mut libc::FILE) -> c_int {
    if options != 0 {
        malloc::set_errno(libc::EINVAL);
        return -1;
    }
    let mut text = Text::<512>::new();
    text.add(format_args!(
        "<malloc version=\"flagstone-{}\">\n",
        env!("CARGO_PKG_VERSION")
    ));
    for (name, bytes, _) in entries() {
        text.add(format_args!("<{name} bytes=\"{bytes}\"/>\n"));
    }
    text.add(format_args!("</malloc>\n"));
    let bytes = text.as_bytes();
    // SAFETY: 1. `bytes` is readable. 2. the caller's.
    let written = unsafe { libc::fwrite(bytes.as_ptr().cast(), 1, bytes.len(), file) };
    if written == bytes.len() { 0 } else { -1 }
}

/// Gives all memory back to the kernel that can be given back; 1 if there was any. `pad` is not kept.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(Flagstone::purge() > 0)
}

/// Accepts glibc's parameters, which have no counterpart here, and changes nothing: 1, for a number that glibc does not
/// know, too, as there. This library's options are `flagstone_set_option`'s.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(_parameter: c_int, _value: c_int) -> c_int {
    1
}

/// Other names of functions that any argument is good for, then of those that trust a pointer.
macro_rules! aliases {
    ($($function:ident = $alias:literal $name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        #[doc = concat!("`", $alias, "`")]
        #[unsafe(export_name = $alias)]
        pub extern "C" fn $name($($argument: $kind),*) -> $result {
            malloc::$function($($argument),*)
        }
    )*};
    (unsafe $($function:ident = $alias:literal $name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        #[doc = concat!("`", $alias, "`")]
        ///
        /// # Safety
        /// 1. As for the function of the usual name.
        #[unsafe(export_name = $alias)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            // SAFETY: 1. the caller's.
            unsafe { malloc::$function($($argument),*) }
        }
    )*};
}

aliases! {
    allocate = "__libc_malloc" libc_malloc(size: usize) -> *mut c_void;
    zeroed = "__libc_calloc" libc_calloc(count: usize, size: usize) -> *mut c_void;
    aligned_above = "__libc_memalign" libc_memalign(align: usize, size: usize) -> *mut c_void;
    aligned_to_page = "__libc_valloc" libc_valloc(size: usize) -> *mut c_void;
    pages = "__libc_pvalloc" libc_pvalloc(size: usize) -> *mut c_void;
}

aliases! {
    unsafe
    release = "cfree" cfree(block: *mut c_void) -> ();
    release = "__libc_free" libc_free(block: *mut c_void) -> ();
    resize = "__libc_realloc" libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    aligned_into = "__posix_memalign"
        libc_posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int;
}
