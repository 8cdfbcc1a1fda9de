//! `flagstone inspect` and `flagstone verify`: what a heap over a mapping is, who has it, and whether its tables agree.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use engine::mapped::{Kind, Span, SpanKind, User};
use engine::{Mapped, MappedError, Opened};

use crate::output::{Side, columns, size, tame, write};
use crate::place::Place;

/// Bytes of a unit.
const UNIT: usize = 64 << 10;
/// Characters of a line of the map, and lines of one at most.
const WIDTH: usize = 64;
const LINES: usize = 16;

#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// Draw which parts of the heap are in use, and how full its slabs are.
    #[arg(long)]
    map: bool,
    /// The heap's file: a path, /proc/PID/fd/N of a process that has it, or the number of a descriptor.
    #[arg(value_name = "PATH|FD", value_parser = Place::parser())]
    place: Place,
}

#[derive(clap::Args)]
pub(crate) struct Verify {
    /// The heap's file: a path, /proc/PID/fd/N of a process that has it, or the number of a descriptor.
    #[arg(value_name = "PATH|FD", value_parser = Place::parser())]
    place: Place,
}

pub(crate) fn inspect(arguments: &Inspect) -> Result<ExitCode> {
    let heap = arguments.place.open()?;
    let users: Vec<User> = heap.users()?.collect();
    let is_sound = is_sound(heap)?;
    let mut text = facts(&arguments.place, heap, &users, is_sound)?;
    text.push_str(&people(&users));
    text.push_str(&names(heap));
    if arguments.map {
        text.push_str(&map(heap));
    }
    write(&text)?;
    Ok(ExitCode::from(u8::from(!is_sound)))
}

/// Whether the tables agree.
fn is_sound(heap: Mapped) -> Result<bool> {
    match heap.verify() {
        Ok(()) => Ok(true),
        Err(MappedError::Damaged) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn facts(place: &Place, heap: Mapped, users: &[User], is_sound: bool) -> Result<String> {
    let stats = heap.stats();
    let kind = match heap.kind() {
        Kind::Object => "a file of memory",
        Kind::Spill => "a file without a name",
        Kind::File => "a file with a path",
        Kind::Committed => "a file that commits",
        _ => "unknown",
    };
    let bytes = |bytes: usize| format!("{bytes} bytes, {}", size(bytes));
    let units = stats.capacity / UNIT;
    let capacity = format!("{}, {units} units of 64 KiB", bytes(stats.capacity));
    let rows = [
        ("file", place.to_string()),
        ("kind", kind.into()),
        ("capacity", capacity),
        ("base", format!("{:#x}", heap.home())),
        ("state", state(heap, users)?),
        ("check", if is_sound { "sound" } else { "damaged" }.into()),
        ("tables", bytes(stats.tables)),
        ("held", bytes(stats.held)),
        ("live", bytes(stats.live)),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    Ok(columns(&[Side::Left; 2], &rows))
}

/// How the heap was left, or who has it.
fn state(heap: Mapped, users: &[User]) -> Result<String> {
    let living = users.iter().filter(|user| user.lives).count();
    let (is_file, commits) = (heap.kind() == Kind::File, heap.kind() == Kind::Committed);
    let gone = count(users.len() - living, "process", "processes");
    let gone = (users.len() != living).then(|| format!("{gone} ended without closing"));
    let condition = heap.condition()?;
    if let (true, Opened::Recovered, Some(gone)) = (is_file, condition, &gone) {
        return Ok(format!("not closed: {gone}"));
    }
    let text: String = match condition {
        // Somebody opens or closes it at the moment.
        Opened::Joined if living == 0 => "in use".into(),
        Opened::Joined => format!("in use by {}", count(living, "process", "processes")),
        Opened::Clean if is_file => "clean: closed by all who used it".into(),
        Opened::Clean if commits => "clean: the file has all that was committed".into(),
        Opened::Recovered if commits => "not closed: its log has the last commits".into(),
        Opened::Clean if is_frozen(heap) => "frozen: nobody can change it".into(),
        Opened::Clean => "in use by nobody".into(),
        Opened::Recovered if is_file => "not closed: its last users ended without".into(),
        Opened::Recovered => "in use by nobody".into(),
        _ => "dirty: in use when the machine went down".into(),
    };
    Ok(match gone {
        Some(gone) => format!("{text}; {gone}"),
        None => text,
    })
}

fn is_frozen(heap: Mapped) -> bool {
    // SAFETY: 1. asks for a number.
    let seals = unsafe { libc::fcntl(heap.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_WRITE != 0
}

fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

fn section(title: &str, sides: &[Side], rows: &[Vec<String>]) -> String {
    let mut text = format!("\n{title}\n");
    for line in columns(sides, rows).lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

fn people(users: &[User]) -> String {
    if users.is_empty() {
        return String::new();
    }
    let head = ["PROCESS", "STATE"].map(String::from).to_vec();
    let rows = users.iter().map(|user| {
        let state = if user.lives { "lives" } else { "gone" };
        vec![user.process.to_string(), state.to_owned()]
    });
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    section("users", &[Side::Right, Side::Left], &rows)
}

fn names(heap: Mapped) -> String {
    let base = heap.base().addr().get();
    let rows = heap.roots().map(|root| {
        let place = heap.root(root.name());
        let place = place.map(|(place, _)| format!("{:#x}", place.addr().get() - base));
        let name = Some(root.name()).filter(|name| !name.is_empty());
        vec![
            name.map_or("(no text)".into(), tame),
            format!("{:#018x}", root.kind),
            place.unwrap_or("nowhere".into()),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["NAME", "KIND", "AT"].map(String::from).to_vec();
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    section("names", &[Side::Left, Side::Left, Side::Right], &rows)
}

/// What the characters of the map stand for, those that win over others last.
const SIGNS: [(&str, &str); 7] = [
    ("-", "never used"),
    (".", "free"),
    ("T", "tables"),
    ("g", "long block on its way back"),
    ("R", "long block"),
    ("0-9#", "slab, by tenths of its blocks in use"),
    ("?", "unknown"),
];
const SLAB: usize = 5;
const UNKNOWN: usize = 6;

fn sign_of(span: &Span) -> usize {
    let sign = match span.kind {
        SpanKind::Fresh => "-",
        SpanKind::Free => ".",
        SpanKind::Tables => "T",
        SpanKind::Going => "g",
        SpanKind::Run => "R",
        SpanKind::Slab { .. } => return SLAB,
        _ => return UNKNOWN,
    };
    let place = SIGNS.iter().position(|(other, _)| *other == sign);
    place.unwrap_or(UNKNOWN)
}

/// Of a slab's blocks, as many tenths as are in use.
fn tenths_of(span: &Span) -> usize {
    match span.kind {
        SpanKind::Slab { block } if block != 0 => 10 * (span.live / block) / (UNIT / block).max(1),
        _ => 0,
    }
}

/// What lies in the units of one character.
#[derive(Clone, Default)]
struct Cell {
    /// Units of each sign.
    units: [usize; SIGNS.len()],
    /// Tenths in use, of all slabs together.
    tenths: usize,
}

impl Cell {
    /// The sign of most units. What no heap would have left is shown however little it is.
    fn sign(&self) -> usize {
        match self.units[UNKNOWN] {
            0 => (0..SIGNS.len())
                .max_by_key(|sign| self.units[*sign])
                .unwrap_or(UNKNOWN),
            _ => UNKNOWN,
        }
    }

    fn character(&self) -> char {
        let sign = self.sign();
        if sign != SLAB {
            return SIGNS[sign].0.chars().next().unwrap_or('?');
        }
        let tenths = self.tenths / self.units[SLAB].max(1);
        let digit = u32::try_from(tenths)
            .ok()
            .and_then(|tenths| char::from_digit(tenths, 10));
        digit.unwrap_or('#')
    }
}

/// A picture of the heap up to the last unit that was ever used: a character for what most of so many units are.
fn map(heap: Mapped) -> String {
    let mut spans: Vec<Span> = heap.occupancy().collect();
    let fresh = spans.pop_if(|span| span.kind == SpanKind::Fresh);
    let used = spans.iter().map(|span| span.bytes / UNIT).sum::<usize>();
    let step = used.div_ceil(WIDTH * LINES).max(1);
    let mut cells = vec![Cell::default(); used.div_ceil(step)];
    for span in &spans {
        let (first, sign) = (span.offset / UNIT, sign_of(span));
        let end = (first + span.bytes / UNIT).min(used);
        let mut unit = first;
        while unit < end {
            let next = ((unit / step + 1) * step).min(end);
            let cell = &mut cells[unit / step];
            cell.units[sign] += next - unit;
            cell.tenths += tenths_of(span);
            unit = next;
        }
    }
    let legend = SIGNS.iter().enumerate();
    let legend = legend.filter(|(sign, _)| cells.iter().any(|cell| cell.sign() == *sign));
    let legend = legend.map(|(_, (sign, means))| format!("{sign} {means}"));
    let legend = legend.collect::<Vec<_>>().join("; ");
    let mut text = format!(
        "\nmap, a character for {}: {legend}\n",
        count(step, "unit", "units")
    );
    for (number, line) in cells.chunks(WIDTH).enumerate() {
        let line: String = line.iter().map(Cell::character).collect();
        let _ = writeln!(text, "  {:>#14x}  {line}", number * WIDTH * step * UNIT);
    }
    if let Some(fresh) = fresh {
        let units = count(fresh.bytes / UNIT, "unit", "units");
        let _ = writeln!(
            text,
            "  {:>#14x}  {units} that nobody ever used",
            fresh.offset
        );
    }
    text
}

pub(crate) fn verify(arguments: &Verify) -> Result<ExitCode> {
    let place = &arguments.place;
    let heap = place.open()?;
    let users: Vec<User> = heap.users()?.collect();
    let condition = heap.condition()?;
    if !is_sound(heap)? {
        let text = format!("{place}: damaged, its tables contradict each other\n");
        write(&text)?;
        return Ok(ExitCode::from(1));
    }
    let mut text = format!("{place}: sound\n");
    let living = users.iter().filter(|user| user.lives).count();
    if condition == Opened::Joined {
        let who = count(living.max(1), "process that has", "processes that have");
        let _ = writeln!(text, "not judged: what {who} the heap may be changing");
    }
    if living != users.len() || matches!(condition, Opened::Recovered | Opened::Dirty) {
        text.push_str("not judged: what processes left half done that ended without closing; ");
        text.push_str("who uses the heap next mends it\n");
    }
    write(&text)?;
    Ok(ExitCode::SUCCESS)
}
