//! The rows that every allocator runs: the same code for all, over whatever the global allocator is.
//!
//! A time row does a fixed amount of work, so its checksum is the same under every allocator and a
//! faster allocator finishes sooner. A memory row reports resident sizes.
//!
//! The sources are a library, and with the allocators' feature `in_binary` a module of each binary;
//! hence `super::` in paths.

// The program: command line, tables of rows.
mod cli;
mod memory;
mod rows;

// Time rows, one file per group.
mod churn; // h_
mod growth; // d_
mod handoff; // g_
mod json; // j_
mod large; // e_
mod maps; // i_
mod order; // b_
mod pairs; // a_
mod replace; // c_, f_

// Memory rows.
mod crowd; // m_threads
mod spike; // m_keep0, m_keep5

// What the rows are made of.
mod block;
mod mapped;
mod meter;
mod random;
mod ring;
mod rss;
mod team;

pub use cli::main;
