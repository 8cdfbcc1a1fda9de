//! C++: `operator new` and `operator delete` in all their forms.
//!
//! Without memory, the form of the C++ library that the program is linked with takes over: it calls the new
//! handler for as long as there is one and this library's `malloc` or `aligned_alloc` after each, and throws
//! `std::bad_alloc`, or gives null where that is asked for. Exceptions belong to it: no frame of this
//! library is on the stack when one passes, because the last call here is a jump.
//!
//! A program may replace some of the forms. Those that the standard has call others do so by their names; those that
//! give null are the exception, as they would have to catch.
//!
//! These functions are `extern "C"` all the same: an ABI that unwinds would need an unwinder's personality, which
//! `core` alone has not. `tests/c/operators.cpp` throws through every one of them.
//!
//! Where the C++ library is linked statically there is no other form, and this library does the same, except
//! that the forms that give null do not call the handler: it may throw, and there is nobody to catch it.

use core::ffi::{CStr, c_void};
use core::ptr::{self, NonNull};

use engine::raw;

/// `std::nothrow_t`, which is passed by reference and says nothing.
type Nothrow = *const c_void;

/// C++ libraries, by the names that programs load them by.
const LIBRARIES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++.so.1", c"libc++abi.so.1"];

/// What the C++ library defines under a name; under another name than those known, the next library after this one.
/// In this order: the next may be another allocator, whose blocks are not to be handed out here.
#[cold]
#[inline(never)]
fn next(name: &CStr) -> Option<NonNull<c_void>> {
    let mut libraries = LIBRARIES.into_iter();
    libraries
        .find_map(|library| in_library(library, name))
        // SAFETY: 1. a C string.
        .or_else(|| NonNull::new(unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }))
}

fn in_library(library: &CStr, name: &CStr) -> Option<NonNull<c_void>> {
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
    // SAFETY: 1. a C string. Nothing is loaded, and what is there stays.
    let handle = NonNull::new(unsafe { libc::dlopen(library.as_ptr(), flags) })?;
    // SAFETY: 1. a library's handle. 2. a C string.
    NonNull::new(unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr()) })
}

/// What the C++ library is asked for in place of more, which nobody has either. Some of its forms
/// round a size up to the alignment, and a greater one would come out at almost nothing, for which
/// there is a block. This is a multiple of every alignment.
const IMPOSSIBLE: usize = 1 << (usize::BITS - 1);

/// `std::get_new_handler`, and the handler.
type GetHandler = extern "C" fn() -> Option<Handler>;
type Handler = extern "C" fn();

/// `std::__throw_bad_alloc`, as a function that this library calls last.
type Throw = extern "C" fn() -> *mut c_void;

/// Where the C++ library is linked statically and this one's forms took the place of its own. The handler may
/// throw: the frames between have nothing to clean up.
#[cold]
extern "C" fn no_memory(size: usize) -> *mut c_void {
    no_aligned_memory(size, raw::ALIGN)
}

#[cold]
extern "C" fn no_aligned_memory(size: usize, align: usize) -> *mut c_void {
    let get = weak!("_ZSt15get_new_handlerv");
    // SAFETY: 1. null, or the function of this name (libstdc++'s `new` and `bits/functexcept.h`).
    let get: Option<GetHandler> = unsafe { core::mem::transmute(get) };
    while let Some(handler) = get.and_then(|get| get()) {
        handler();
        let block = alloc(size, align);
        if !block.is_null() {
            return block.cast();
        }
    }
    let throw = weak!("_ZSt17__throw_bad_allocv");
    // SAFETY: 1. as above.
    let throw: Option<Throw> = unsafe { core::mem::transmute(throw) };
    match throw {
        Some(throw) => throw(),
        None => crate::die(format_args!(
            "operator new: no memory for {size} bytes, and no C++ library to say so"
        )),
    }
}

#[cold]
extern "C" fn null(_size: usize, _or_null: Nothrow) -> *mut c_void {
    ptr::null_mut()
}

#[cold]
extern "C" fn aligned_null(_size: usize, _align: usize, _or_null: Nothrow) -> *mut c_void {
    ptr::null_mut()
}

const fn c_string(text: &str) -> &CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("one zero byte, at the end"),
    }
}

/// The forms of `operator new`: symbol, function and arguments, what is allocated, what is done where no other
/// library has the form, and the name of the long way, which is apart so that the short one saves no
/// registers.
macro_rules! new {
    ($($symbol:literal, $function:ident, $long:ident($size:ident: usize $(, $name:ident: $kind:ty)*), $align:expr, $otherwise:expr;)*) => {$(
        #[doc = concat!("`", $symbol, "`")]
        #[unsafe(export_name = $symbol)]
        pub extern "C" fn $function($size: usize $(, $name: $kind)*) -> *mut c_void {
            let block = at_hand($size, $align);
            if block.is_null() {
                return $long($size $(, $name)*);
            }
            block.cast()
        }

        #[inline(never)]
        extern "C" fn $long($size: usize $(, $name: $kind)*) -> *mut c_void {
            let block = alloc($size, $align);
            if !block.is_null() {
                return block.cast();
            }
            type Form = extern "C" fn(usize $(, $kind)*) -> *mut c_void;
            let form: Form = match next(const { c_string(concat!($symbol, "\0")) }) {
                // SAFETY: 1. the symbol's name says the function's type (Itanium C++ ABI, 5.1).
                Some(found) => unsafe { core::mem::transmute::<NonNull<c_void>, Form>(found) },
                None => $otherwise,
            };
            form($size.min(IMPOSSIBLE) $(, $name)*)
        }
    )*};
}

new! {
    "_Znwm", new, new_long(size: usize), raw::ALIGN, no_memory;
    "_ZnwmRKSt9nothrow_t", new_or_null, new_or_null_long(size: usize, or_null: Nothrow), raw::ALIGN, null;
    "_ZnamRKSt9nothrow_t", new_array_or_null, new_array_or_null_long(size: usize, or_null: Nothrow),
        raw::ALIGN, null;
    "_ZnwmSt11align_val_t", new_aligned, new_aligned_long(size: usize, align: usize), align,
        no_aligned_memory;
    "_ZnwmSt11align_val_tRKSt9nothrow_t", new_aligned_or_null,
        new_aligned_or_null_long(size: usize, align: usize, or_null: Nothrow), align, aligned_null;
    "_ZnamSt11align_val_tRKSt9nothrow_t", new_array_aligned_or_null,
        new_array_aligned_or_null_long(size: usize, align: usize, or_null: Nothrow), align, aligned_null;
}

/// A block that is at hand, or null, as for an alignment that is none.
#[inline(always)]
fn at_hand(size: usize, align: usize) -> *mut u8 {
    if align.is_power_of_two() {
        raw::alloc_at_hand(size, align.max(raw::ALIGN))
    } else {
        ptr::null_mut()
    }
}

/// A block, or null without memory, or for an alignment that is none: the C++ library refuses that.
fn alloc(size: usize, align: usize) -> *mut u8 {
    if align.is_power_of_two() {
        raw::alloc(size, align.max(raw::ALIGN))
    } else {
        ptr::null_mut()
    }
}

/// The two forms of `operator delete` that the others come to. Sizes are not relied upon.
macro_rules! delete {
    ($($symbol:literal $function:ident;)*) => {$(
        #[doc = concat!("`", $symbol, "`")]
        ///
        /// # Safety
        /// 1. Null, or a live block of this library that nobody uses any more.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $function(block: *mut c_void) {
            // SAFETY: 1. and 2. the caller's.
            unsafe { raw::free(block.cast()) };
        }
    )*};
}

delete! {
    "_ZdlPv" delete;
    "_ZdlPvSt11align_val_t" delete_aligned;
}

/// Forms that the standard has call another (C++, \[new.delete\]), be that the program's own: the last call is a jump.
macro_rules! forward {
    ($($symbol:literal $function:ident($($name:ident: $kind:ty),*) -> $result:ty
        = $base:literal($($passed:ident: $passed_kind:ty),*);)*) => {$(
        #[doc = concat!("`", $symbol, "`")]
        ///
        /// # Safety
        /// 1. A pointer is null, or a live block of what the program deletes by.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $function($($name: $kind),*) -> $result {
            type Base = unsafe extern "C" fn($($passed_kind),*) -> $result;
            // Not by a call: the compiler takes the function of this name for ours.
            let base = linked!(".globl", $base);
            // SAFETY: 1. the symbol's name says the function's type (Itanium C++ ABI, 5.1).
            let base = unsafe { core::mem::transmute::<usize, Base>(base) };
            // SAFETY: 1. the caller's.
            unsafe { base($($passed),*) }
        }
    )*};
}

type Block = *mut c_void;

forward! {
    "_Znam" new_array(size: usize) -> Block = "_Znwm"(size: usize);
    "_ZnamSt11align_val_t" new_array_aligned(size: usize, align: usize) -> Block
        = "_ZnwmSt11align_val_t"(size: usize, align: usize);
    "_ZdaPv" delete_array(block: Block) -> () = "_ZdlPv"(block: Block);
    "_ZdlPvm" delete_sized(block: Block, _size: usize) -> () = "_ZdlPv"(block: Block);
    "_ZdaPvm" delete_array_sized(block: Block, _size: usize) -> () = "_ZdaPv"(block: Block);
    "_ZdlPvRKSt9nothrow_t" delete_nothrow(block: Block, _nothrow: Nothrow) -> () = "_ZdlPv"(block: Block);
    "_ZdaPvRKSt9nothrow_t" delete_array_nothrow(block: Block, _nothrow: Nothrow) -> () = "_ZdaPv"(block: Block);
    "_ZdaPvSt11align_val_t" delete_array_aligned(block: Block, align: usize) -> ()
        = "_ZdlPvSt11align_val_t"(block: Block, align: usize);
    "_ZdlPvmSt11align_val_t" delete_sized_aligned(block: Block, _size: usize, align: usize) -> ()
        = "_ZdlPvSt11align_val_t"(block: Block, align: usize);
    "_ZdaPvmSt11align_val_t" delete_array_sized_aligned(block: Block, _size: usize, align: usize) -> ()
        = "_ZdaPvSt11align_val_t"(block: Block, align: usize);
    "_ZdlPvSt11align_val_tRKSt9nothrow_t" delete_aligned_nothrow(block: Block, align: usize, _nothrow: Nothrow) -> ()
        = "_ZdlPvSt11align_val_t"(block: Block, align: usize);
    "_ZdaPvSt11align_val_tRKSt9nothrow_t"
        delete_array_aligned_nothrow(block: Block, align: usize, _nothrow: Nothrow) -> ()
        = "_ZdaPvSt11align_val_t"(block: Block, align: usize);
}
