//! libFuzzer target: bytes are an operation program, whose operations change between two threads.
//!
//! Only one of the two runs at a time, so that an input does the same every time; each run begins with
//! all memory given back.
#![no_main]

use core::cell::RefCell;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use flagstone::Flagstone;
use flagstone_fuzz::{Exchange, Op, Run, Turn, expect_nothing_live};
use libfuzzer_sys::fuzz_target;

const SLOTS: usize = 64;
/// Bytes that a program holds, about.
const MOST: usize = 32 << 20;

static EXCHANGE: Exchange = Exchange::new();

thread_local! {
    /// The other thread, seen from libFuzzer's.
    static HELPER: RefCell<Option<Helper>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let program = Program {
        words: words(data).collect(),
        next: 0,
        run: Run::new(0, SLOTS, MOST, &EXCHANGE),
    };
    if let Err(what) = HELPER.with_borrow_mut(|helper| all(program, helper)) {
        panic!("{what}");
    }
});

/// The operations' words; the last one may be short.
fn words(data: &[u8]) -> impl Iterator<Item = u64> {
    data.chunks(Op::BYTES).map(|bytes| {
        let mut word = [0; size_of::<u64>()];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    })
}

fn all(mut program: Program, helper: &mut Option<Helper>) -> Result<(), String> {
    let mut is_here = true;
    loop {
        let (back, turn) = if is_here {
            program.go_on()
        } else {
            helper.get_or_insert_with(Helper::start).go_on(program)
        };
        program = back;
        match turn? {
            Turn::Go => break,
            Turn::Switch => is_here = !is_here,
            Turn::Retire => helper.take().into_iter().for_each(Helper::end),
        }
    }
    program.run.finish()?;
    EXCHANGE.clear()?;
    // What this input left behind must not change what the next one does.
    Flagstone::purge();
    expect_nothing_live()
}

/// A program on its way from thread to thread.
struct Program {
    words: Vec<u64>,
    next: usize,
    run: Run<'static>,
}

/// [`Turn::Go`] is the end of the program.
type Outcome = (Program, Result<Turn, String>);

impl Program {
    /// As far as it goes in this thread.
    fn go_on(mut self) -> Outcome {
        while let Some(word) = self.words.get(self.next) {
            let op = Op::from_word(*word);
            self.next += 1;
            match self.run.step(op) {
                Ok(Turn::Go) => {}
                Ok(turn) => return (self, Ok(turn)),
                Err(what) => {
                    let fault = format!("operation {}, {op:?}: {what}", self.next);
                    return (self, Err(fault));
                }
            }
        }
        (self, Ok(Turn::Go))
    }
}

/// A thread that carries out its parts of programs.
struct Helper {
    thread: JoinHandle<()>,
    programs: Sender<Program>,
    outcomes: Receiver<Outcome>,
}

impl Helper {
    fn start() -> Self {
        let (programs, inbox) = mpsc::channel::<Program>();
        let (outbox, outcomes) = mpsc::channel();
        let work = move || {
            for program in inbox {
                if outbox.send(program.go_on()).is_err() {
                    break;
                }
            }
        };
        Self {
            thread: thread::spawn(work),
            programs,
            outcomes,
        }
    }

    fn go_on(&self, program: Program) -> Outcome {
        self.programs.send(program).expect("the helper waits");
        self.outcomes.recv().expect("the helper reports")
    }

    fn end(self) {
        drop(self.programs);
        self.thread.join().expect("the helper does not panic");
    }
}
