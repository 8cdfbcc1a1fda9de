//! An HTTP server in which each request has a heap of its own: one request that wants too much is
//! refused with 503, and neither the server nor any other request notices.
//!
//! ```text
//! cargo run --release --example request_heap                     # serves until Ctrl-C
//! curl 'http://127.0.0.1:8080/words?n=1000'
//! cargo run --release --example request_heap -- --load 10000     # is its own client
//! ```
//!
//! Exit code: 0, or 1 if the server cannot run or an answer was not the expected one, 2 for a bad
//! command line. Ctrl-C ends a server in order, with 0, and a load with 130.

use core::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use flagstone::Flagstone;

#[path = "../common/mod.rs"]
mod common;
mod counts;
mod handlers;
mod load;
mod quiet;
mod report;
mod request;
mod server;
mod wire;

use common::{interrupt, rss, say};
use server::Server;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// The name before every message on stderr.
const PROGRAM: &str = "request_heap";

/// Serve HTTP requests, each in a heap of its own with a limit.
#[derive(Parser)]
#[command(name = PROGRAM)]
struct Args {
    /// Address to serve on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Serve on a free port, send N requests to it, and tell how it went
    #[arg(long, value_name = "N", conflicts_with = "listen")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    load: Option<u64>,
    /// Most memory of one request, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u16).range(128..=16_384))]
    limit: u16,
    /// Threads that serve
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Threads that send requests
    #[arg(long, value_name = "N", default_value_t = 8, requires = "load")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
}

impl Args {
    fn limit(&self) -> usize {
        usize::from(self.limit) << 10
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = interrupt::install() {
        say::line(PROGRAM, format_args!("Ctrl-C will not be handled: {error}"));
    }
    quiet::install();
    let done = match args.load {
        Some(requests) => run_load(&args, requests),
        None => serve(&args),
    };
    done.unwrap_or_else(|message| {
        say::line(PROGRAM, format_args!("{message}"));
        ExitCode::FAILURE
    })
}

fn bind(args: &Args, address: SocketAddr) -> Result<Server, String> {
    Server::bind(address, args.limit())
        .map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Serves until Ctrl-C.
fn serve(args: &Args) -> Result<ExitCode, String> {
    let server = bind(args, args.listen)?;
    report::serving(server.address(), args.limit());
    let watch = || report::each_second(server.counts());
    server.run(args.threads, watch)?;
    report::served(&server.counts().now());
    Ok(ExitCode::SUCCESS)
}

/// Is the server and all clients of it.
fn run_load(args: &Args, requests: u64) -> Result<ExitCode, String> {
    let server = bind(args, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let before = rss::now();
    let send = || load::run(server.address(), requests, args.clients, args.limit());
    let sent = server.run(args.threads, send)?;
    let counts = server.counts().now();
    report::load(&sent, &counts, args.limit(), [before, rss::now()]);
    if interrupt::requested() {
        say::line(PROGRAM, format_args!("interrupted"));
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    // Both ends count, so neither an answer that got lost nor one too many passes unnoticed.
    let agrees = sent.answered == counts.answered && sent.refused == counts.refused;
    let fits = counts.most <= args.limit();
    Ok(if sent.all_as_expected(requests) && agrees && fits {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
