//! Simulated programs: what they regret, and what stays with them.

use super::*;

const DELAY: u64 = 500;
const WINDOW: u64 = DELAY / 2;
const MIB: usize = 1 << 20;

/// A program whose heap is filled and emptied, and an allocator that gives back what is too much.
struct Program {
    demand: Demand,
    now: u64,
    /// Free bytes that are resident, and bytes in use.
    free: usize,
    used: usize,
    /// Bytes given back that were wanted again.
    faulted: usize,
}

impl Program {
    fn new() -> Self {
        Self {
            demand: Demand::new(),
            now: 100 * WINDOW,
            free: 0,
            used: 0,
            faulted: 0,
        }
    }

    fn give_back(&mut self, bytes: usize, cause: Cause) {
        self.free -= bytes;
        self.demand.note_return(bytes, cause);
        self.demand.note_more_dirty(self.free);
    }

    fn use_bytes(&mut self, used: usize) {
        if used > self.used {
            let more = used - self.used;
            let fresh = more.saturating_sub(self.free);
            self.free -= more - fresh;
            self.faulted += fresh;
            self.demand.note_fresh(fresh);
        } else {
            self.free += self.used - used;
        }
        self.used = used;
        self.demand.note_more_spans(self.used);
        self.demand.note_more_dirty(self.free);
        self.give_back(self.demand.beyond_budget(), Cause::Budget);
    }

    /// Lets time pass, in steps of a fifth of a window.
    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / (WINDOW / 5) {
            self.now += WINDOW / 5;
            self.demand.look(self.now, DELAY);
            self.give_back(self.demand.excess(DELAY), Cause::Age);
        }
    }

    /// Waves of a period; the bytes faulted in by all of them.
    fn waves(&mut self, count: usize, period: u64) -> usize {
        self.faulted = 0;
        for _ in 0..count {
            self.use_bytes(1024 * MIB);
            self.pass(WINDOW / 5);
            self.use_bytes(512 * MIB);
            self.pass(period - WINDOW / 5);
        }
        self.faulted
    }
}

#[test]
fn waves_within_a_delay_fault_in_the_first_two() {
    let mut program = Program::new();
    assert_eq!(program.waves(2, DELAY), (1024 + 512) * MIB - FLOOR);
    // Long enough for the budget to be halved again and again.
    assert_eq!(program.waves(1000, DELAY), 0);
}

#[test]
fn small_waves_fault_once() {
    let mut program = Program::new();
    for _ in 0..10 {
        program.use_bytes(FLOOR + MIB);
        program.use_bytes(MIB);
    }
    assert_eq!(program.faulted, FLOOR + MIB);
}

#[test]
fn slow_waves_stay_within_the_share() {
    for period in [2 * DELAY, 6 * DELAY, 20 * DELAY] {
        let mut program = Program::new();
        program.waves(5, period);
        let count = 200;
        let cost = cost(program.waves(count, period)).cast_unsigned();
        let time = count as u64 * period * 1000;
        assert!(cost <= time / SHARE, "{period}: {cost} of {time}");
    }
}

#[test]
fn what_is_free_for_good_goes_back() {
    let mut program = Program::new();
    program.waves(20, DELAY);
    program.use_bytes(MIB);
    program.pass(2 * DELAY);
    assert_eq!(program.free, 0);
    // However slow the waves were, in the end.
    program.waves(20, 6 * DELAY);
    program.use_bytes(MIB);
    program.pass(WINDOWS as u64 * WINDOW);
    assert_eq!(program.free, 0);
}

#[test]
fn growth_is_no_regret() {
    let mut program = Program::new();
    for used in 1..100 {
        program.use_bytes(used * MIB);
        program.pass(WINDOW);
    }
    assert_eq!(program.demand.memory(), LEAST);
    assert_eq!(program.demand.debt.load(Ordering::Relaxed), 0);
}

#[test]
fn idle_windows_were_as_the_present_one() {
    let mut program = Program::new();
    program.use_bytes(100 * MIB);
    program.pass(WINDOW);
    program.use_bytes(50 * MIB);
    program.now += 1000 * WINDOW;
    program.demand.look(program.now, DELAY);
    assert_eq!(program.demand.excess(DELAY), 50 * MIB);
    assert_eq!(program.demand.excess(0), 50 * MIB);
}
