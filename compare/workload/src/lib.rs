//! The rows that every allocator runs: the same code for all, over whatever the global allocator is.
//!
//! A time row does a fixed amount of work, so its checksum is the same under every allocator and a
//! faster allocator finishes sooner. A memory row reports resident sizes.
//!
//! The sources are a library, and with the allocators' feature `in_binary` a module of each binary;
//! hence `super::` in paths.

// The program: command line, tables of rows.
mod cli;
mod curves;
mod latency;
mod memory;
mod outcome;
mod rows;
mod setting;
mod small_pages;
mod time;

// Time rows, one file per group.
mod churn; // h_churn
mod curve; // n_
mod growth; // d_
mod handoff; // g_
mod json; // j_
mod large; // e_med, e_large
mod maps; // i_hash, i_btree, i_lru
mod order; // b_, f_pair8
mod pairs; // a_
mod replace; // c_, f_ws, h_larson
mod replay; // t_
mod sharing; // k_
mod trees; // i_tree
mod zeroed; // e_zero, e_zsmall

// What latency rows are made of.
mod clock;
mod stopwatch;

// Memory rows.
mod crowd; // m_threads
mod drift; // m_drift
mod pool; // m_pool
mod server; // m_server
mod shift; // m_shift
mod spike; // m_keep, m_life
mod steps; // m_peak, m_maps

// Rows for heaps of several sizes.
mod scale; // s_

// What memory rows are made of.
mod address_space;
mod bag;
mod held;
mod sampler;
mod sizes;
mod wheel;

// What the rows are made of.
mod block;
mod mapped;
mod meter;
mod random;
mod ring;
mod rss;
mod team;

pub use cli::main;
