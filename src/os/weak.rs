//! Functions that may or may not be there when the program is linked.

/// The address of the function that the linker knows by this name, 0 if there is none.
macro_rules! weak {
    ($name:literal) => {{
        let address: usize;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: 1. reads the linker's table.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("mov {address}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                address = out(reg) address,
                options(nostack, readonly, pure, preserves_flags),
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: 1. reads the linker's table.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("adrp {address}, :got:", $name),
                concat!("ldr {address}, [{address}, :got_lo12:", $name, "]"),
                address = out(reg) address,
                options(nostack, readonly, pure, preserves_flags),
            );
        }
        address
    }};
}
