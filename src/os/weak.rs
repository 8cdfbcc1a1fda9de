//! Functions and variables by the names that the linker knows them by.

/// The address that the linker chose for `$name`, bound as the directive `$binding` says.
macro_rules! linked {
    ($binding:literal, $name:literal) => {{
        let address: usize;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: 1. reads the linker's table.
        unsafe {
            core::arch::asm!(
                concat!($binding, " ", $name),
                concat!("mov {address}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                address = out(reg) address,
                options(nostack, readonly, pure, preserves_flags),
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: 1. reads the linker's table.
        unsafe {
            core::arch::asm!(
                concat!($binding, " ", $name),
                concat!("adrp {address}, :got:", $name),
                concat!("ldr {address}, [{address}, :got_lo12:", $name, "]"),
                address = out(reg) address,
                options(nostack, readonly, pure, preserves_flags),
            );
        }
        address
    }};
}

/// The address of what may or may not be there when the program is linked, 0 if it is not.
macro_rules! weak {
    ($name:literal) => {
        linked!(".weak", $name)
    };
}
