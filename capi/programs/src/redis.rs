//! A server beside its clients.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::Allocator;
use crate::list::Outcome;
use crate::run::{exited, wait};

/// A server that ends with this value, whatever happens.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Path, allocator: &Allocator) -> Result<Self> {
        let socket = folder.join("socket");
        let _ = fs::remove_file(&socket);
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocket",
        ]);
        command
            .arg(&socket)
            .current_dir(folder)
            .stdout(Stdio::null());
        allocator.apply(&mut command);
        let child = command.spawn()?;
        let mut server = Self { child, socket };
        let begun = Instant::now();
        while UnixStream::connect(&server.socket).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("redis-server ended with {status}");
            }
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("redis-server does not answer");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn ask(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new("redis-cli");
        Ok(command.arg("-s").arg(&self.socket).args(words).output()?)
    }

    fn requests(&self, kinds: &str, count: &str, bytes: &str) -> Result<()> {
        let mut command = Command::new("redis-benchmark");
        command.arg("-s").arg(&self.socket);
        command.args([
            "-q", "-t", kinds, "-n", count, "-d", bytes, "-r", "100000", "-P", "16",
        ]);
        let status = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("redis-benchmark ended with {status}");
        }
        Ok(())
    }
}

/// Time is the server's processor time: the clients have the other processor.
pub(crate) fn run(folder: &Path, allocator: &Allocator) -> Outcome {
    let server = Server::start(folder, allocator)?;
    server.requests("set,get", "300000", "100")?;
    server.requests("lpush,sadd,hset", "100000", "40")?;
    server.requests("set", "100000", "2000")?;
    let answer = server.ask(&["ping"])?;
    server.ask(&["flushall"])?;
    server.ask(&["shutdown", "nosave"])?;
    let (status, mut sample) = wait(&server.child)?;
    exited("redis-server", status)?;
    sample.wall = sample.processor;
    Ok((sample, answer.stdout))
}
