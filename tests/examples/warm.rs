//! Without this, a server could forget what the one before it knew, or give way to a client that talks nonsense.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::store::Folder;
use crate::{expect_refusal, lines, program, run};

/// A server, killed when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn warm_refuses_numbers_that_are_none() {
    expect_refusal("warm", &["ask", "many"], "many");
    expect_refusal("warm", &["demo", "9999999999"], "9999999999");
    expect_refusal("warm", &["serve", "--port", "99999"], "99999");
}

#[test]
fn warm_says_what_it_cannot_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    for (arguments, words) in [
        (["serve", "--port", &port], port.as_str()),
        (["serve", "--port=0", "--cache=/dev/null"], "/dev/null"),
        (["serve", "--port=0", "--cache=/no/such"], "/no/such"),
        (["ask", "7", "--port=1"], "127.0.0.1:1"),
    ] {
        let Some(output) = run("warm", &arguments) else {
            return;
        };
        assert!(lines(&output, 1).is_empty(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.lines().count() == 1 && said.contains(words), "{said}");
    }
}

#[test]
fn warm_knows_what_a_killed_server_found() {
    let Some(output) = run("warm", &["demo", "10000"]) else {
        return;
    };
    let lines = lines(&output, 0);
    let answers: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("1229 primes below 10000"))
        .collect();
    let [first, second] = answers[..] else {
        panic!("{lines:?}");
    };
    assert!(
        first.contains(": found in") && second.contains(": known in"),
        "{lines:?}"
    );
}

#[test]
fn warm_goes_on_after_nonsense() {
    let Some(program) = program("warm") else {
        return;
    };
    let folder = Folder::new("warm");
    let mut command = Command::new(program);
    command.args(["serve", "--port", "0", "--cache", &folder.path("cache")]);
    let mut server = Server(command.stdout(Stdio::piped()).spawn().expect("a process"));
    let out = server.0.stdout.take().expect("a pipe");
    let said = BufReader::new(out)
        .lines()
        .next()
        .expect("a line")
        .expect("text");
    let address = said
        .strip_prefix("serving ")
        .and_then(|rest| rest.split_once(": "));
    let (address, _) = address.expect("an address");
    let ask = |request: &[u8]| {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.write_all(request).expect("a server");
        let mut line = String::new();
        // A server that hangs up before it has read all may end this with an error.
        let _ = BufReader::new(stream).read_line(&mut line);
        line
    };
    assert!(ask(b"nonsense\n").starts_with("error: "));
    assert!(ask(b"GET 999999999\n").starts_with("error: "));
    assert_eq!(ask(&[b'x'; 1000]), "");
    assert!(ask(b"GET 10\n").starts_with("4 primes"));
}
