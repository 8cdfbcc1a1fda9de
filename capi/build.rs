//! What the linker is told of `libflagstone.so`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let version = std::env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets it");
    for argument in [
        format!("-soname,libflagstone.so.{version}"),
        // Threads run its clean-up when they end.
        "-z,nodelete".into(),
        // No call of a function is resolved lazily, which might call malloc.
        "-z,now".into(),
    ] {
        println!("cargo:rustc-cdylib-link-arg=-Wl,{argument}");
    }
}
