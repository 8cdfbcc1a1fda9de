//! What the kernel is told of a range. It may refuse, by its number.

use core::ffi::c_int;
use core::ptr::NonNull;

use super::syscall::{Word, call, word};
use super::{PageLen, failpoints};
use crate::units::GIGANTIC;

/// Nodes that the kernel can have.
const NODES: usize = 1024;
/// Linux's own number, which the C library's crate does not name.
const MPOL_MF_MOVE: usize = 1 << 1;
const NODE_BITS: usize = u64::BITS as usize;

/// Advice that changes no byte, but may be refused.
pub(super) fn advise(base: NonNull<u8>, length: PageLen, advice: c_int) -> Result<(), c_int> {
    if failpoints::refuses() {
        return Err(libc::ENOMEM);
    }
    let arguments = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(advice as usize),
    ];
    // SAFETY: 1. changes no byte, whatever is mapped there.
    unsafe { call(libc::SYS_madvise, arguments) }.map(|_| ())
}

/// Says which node fresh pages of a range come from, while it has some: `None` for that of who touches them first.
pub(super) fn set_node(base: NonNull<u8>, length: PageLen, node: Option<u32>) -> Result<(), c_int> {
    if failpoints::refuses() {
        return Err(libc::ENOMEM);
    }
    let mut mask = [0_u64; NODES / NODE_BITS];
    let mode = match node {
        Some(node) => {
            let node = node as usize;
            let Some(bits) = mask.get_mut(node / NODE_BITS) else {
                return Err(libc::EINVAL);
            };
            *bits = 1 << (node % NODE_BITS);
            libc::MPOL_PREFERRED
        }
        None => libc::MPOL_DEFAULT,
    };
    let arguments: [Word; 6] = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(mode as usize),
        mask.as_mut_ptr().cast(),
        // The kernel reads one bit less.
        word(NODES + 1),
        // What a mapping brings along of another node moves.
        word(MPOL_MF_MOVE),
    ];
    // SAFETY: 1. changes no byte, and reads a mask of so many bits.
    unsafe { call(libc::SYS_mbind, arguments) }.map(|_| ())
}

/// So many gigantic pages, zero and aligned to their size, or `None`: the machine has no more of them to spare.
pub(crate) fn map_gigantic(count: usize) -> Option<(NonNull<u8>, PageLen)> {
    if failpoints::refuses() {
        return None;
    }
    let length = count.checked_mul(GIGANTIC)?;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_1GB;
    let arguments = [
        word(0),
        word(length),
        word((libc::PROT_READ | libc::PROT_WRITE) as usize),
        word(kind as usize),
        word(usize::MAX),
        word(0),
    ];
    // SAFETY: 1. a fresh mapping replaces nothing.
    let mapped = unsafe { call(libc::SYS_mmap, arguments) }.ok()?;
    Some((NonNull::new(mapped.cast())?, PageLen::kept(length)))
}
