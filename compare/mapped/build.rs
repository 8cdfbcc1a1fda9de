//! Compiles the rows' way to Boost.Interprocess, where its headers are installed.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(boost)");
    println!("cargo::rerun-if-changed=src/boost.cpp");
    let header = "/usr/include/boost/interprocess/managed_shared_memory.hpp";
    println!("cargo::rerun-if-changed={header}");
    if !Path::new(header).exists() {
        println!("cargo::warning=no Boost.Interprocess: apt-get install libboost-dev");
        return;
    }
    println!("cargo::rustc-cfg=boost");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .warnings(false)
        .file("src/boost.cpp")
        .compile("boost_rows");
}
