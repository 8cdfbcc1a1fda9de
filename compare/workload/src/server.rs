//! m_server: the event loop of a server: connections in bursts, a cache, a log buffer.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use super::held::{Held, Touch};
use super::mapped::MappedArray;
use super::outcome::Outcome;
use super::random::Random;
use super::sampler::Sampler;
use super::setting::Setting;
use super::sizes::{Falling, between};
use super::wheel::Wheel;

const TICK: Duration = Duration::from_millis(10);
/// Connections of a quiet tick; a burst has so many times as many.
const QUIET: f64 = 40.0;
const BURST: usize = 20;
/// Blocks of a connection, in number, in size, and in ticks of life; one in so many lives long.
const BLOCKS: (usize, usize) = (4, 12);
const BLOCK_SIZES: (usize, usize) = (16, 32 << 10);
const SHORT: usize = 8;
const LONG: usize = 400;
const LONG_LIVED: usize = 5;
/// The cache: entries, and of how many the one unused for longest is evicted. One connection in
/// so many brings a new entry, the others look at one.
const ENTRIES: f64 = 40_000.0;
const CANDIDATES: usize = 5;
const MISS: usize = 2;
const ENTRY_SIZES: (usize, usize) = (64, 8 << 10);
/// The log: bytes of a connection's line, and of a buffer when it is written out and dropped.
const LINE: (usize, usize) = (100, 500);
const BUFFER: usize = 4 << 20;
/// Ticks between two readings in quiet.
const READ_EVERY: usize = 5;

/// The course of a run: cycles of a burst and a quiet phase, in ticks.
struct Course {
    cycles: usize,
    burst: usize,
    quiet: usize,
}

impl Course {
    fn of(setting: &Setting) -> Self {
        let (cycles, burst, quiet) = match (setting.soak, setting.scale < 1.0) {
            (true, _) => (60, 100, 400),
            (false, false) => (3, 50, 120),
            (false, true) => (3, 25, 40),
        };
        Self {
            cycles,
            burst,
            quiet,
        }
    }
}

/// Entries with the time of their last use, evicted as Redis does: of a few at random, the one
/// unused for longest.
struct Cache {
    entries: MappedArray<Held>,
    used: MappedArray<u64>,
    clock: u64,
    bytes: usize,
    sizes: Falling,
}

impl Cache {
    fn filled(count: usize, random: &mut Random) -> Result<Self, String> {
        let mut cache = Self {
            entries: MappedArray::new(count)?,
            used: MappedArray::new(count)?,
            clock: 0,
            bytes: 0,
            sizes: Falling::new(ENTRY_SIZES.0, ENTRY_SIZES.1),
        };
        for index in 0..count {
            cache.store(index, random)?;
        }
        Ok(cache)
    }

    /// Puts a new entry in the place of another one.
    fn store(&mut self, index: usize, random: &mut Random) -> Result<(), String> {
        self.bytes -= mem::take(&mut self.entries[index]).free()?;
        let size = self.sizes.draw(random);
        self.entries[index] = Held::alloc(size, random.next() as u32, Touch::All);
        self.bytes += size;
        self.touch(index);
        Ok(())
    }

    fn touch(&mut self, index: usize) {
        self.clock += 1;
        self.used[index] = self.clock;
    }

    fn serve(&mut self, random: &mut Random) -> Result<(), String> {
        let count = self.entries.len();
        if random.below(MISS) != 0 {
            // low numbers are popular
            let bound = random.below(count) + 1;
            let index = random.below(bound);
            self.touch(index);
            return Ok(());
        }
        let candidates = (0..CANDIDATES).map(|_| random.below(count));
        let oldest = candidates.min_by_key(|&index| self.used[index]);
        self.store(oldest.unwrap_or(0), random)
    }

    fn empty(&mut self) -> Result<(), String> {
        for entry in self.entries.iter_mut() {
            self.bytes -= mem::take(entry).free()?;
        }
        Ok(())
    }
}

struct Server {
    random: Random,
    blocks: Falling,
    wheel: Wheel,
    cache: Cache,
    log: Vec<u8>,
}

impl Server {
    fn live(&self) -> usize {
        self.wheel.bytes() + self.cache.bytes + self.log.len()
    }

    fn connection(&mut self) -> Result<(), String> {
        for _ in 0..between(BLOCKS.0, BLOCKS.1, &mut self.random) {
            let size = self.blocks.draw(&mut self.random);
            let held = Held::alloc(size, self.random.next() as u32, Touch::All);
            let long = self.random.below(LONG_LIVED) == 0;
            let ticks = 1 + self.random.below(if long { LONG } else { SHORT });
            self.wheel.keep(held, ticks);
        }
        self.cache.serve(&mut self.random)?;
        let line = between(LINE.0, LINE.1, &mut self.random);
        self.log.resize(self.log.len() + line, b'.');
        if self.log.len() >= BUFFER {
            let log = mem::take(&mut self.log);
            if log.iter().any(|&byte| byte != b'.') {
                return Err("the log has been overwritten".into());
            }
        }
        Ok(())
    }
}

pub(crate) fn serve(setting: &Setting) -> Result<Outcome, String> {
    let course = Course::of(setting);
    let quiet = ((QUIET * setting.scale) as usize).max(1);
    let entries = ((ENTRIES * setting.scale) as usize).max(1);
    let ticks = course.cycles * (course.burst + course.quiet);
    // blocks of one turn of the wheel, most of them in a burst
    let turn = (course.burst * BURST + LONG) * quiet * BLOCKS.1;
    let mut random = Random::new(25);
    let wheel = Wheel::new(turn, LONG + 1)?;
    let mut sampler = Sampler::begin()?;
    let mut server = Server {
        cache: Cache::filled(entries, &mut random)?,
        random,
        blocks: Falling::new(BLOCK_SIZES.0, BLOCK_SIZES.1),
        wheel,
        log: Vec::new(),
    };
    let filled_kb = sampler.measure(server.live())?.resident_kb;
    let begun = Instant::now();
    let (mut peak_live, mut ratios, mut readings) = (0, 0.0, 0);
    for tick in 0..ticks {
        let since = tick % (course.burst + course.quiet);
        let burst = since < course.burst;
        for _ in 0..quiet * if burst { BURST } else { 1 } {
            server.connection()?;
        }
        peak_live = peak_live.max(server.live());
        if !burst && since.is_multiple_of(READ_EVERY) {
            let sample = sampler.measure(server.live())?;
            ratios += sampler.ratio(&sample);
            readings += 1;
        }
        sampler.look(server.live())?;
        server.wheel.turn()?;
        thread::sleep((TICK * (tick as u32 + 1)).saturating_sub(begun.elapsed()));
    }
    let end = sampler.measure(server.live())?;
    let peak_live_kb = peak_live as f64 / 1024.0;
    let outcome = sampler.outcome(vec![
        ("peak_ratio", sampler.peak_kb()? / peak_live_kb),
        ("quiet_ratio", ratios / f64::from(readings)),
        ("end_ratio", sampler.ratio(&end)),
        ("end_committed_ratio", end.committed_kb / end.live_kb),
        ("filled_kb", filled_kb),
        ("peak_live_kb", peak_live_kb),
        ("live_kb", end.live_kb),
        ("resident_kb", end.resident_kb),
        ("mappings", end.mappings),
    ]);
    for _ in 0..=LONG {
        server.wheel.turn()?;
    }
    server.cache.empty()?;
    Ok(outcome)
}
