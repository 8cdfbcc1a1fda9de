//! Functions of the kernel's own library, which it maps into every process, by their names. Every read stays inside
//! the image, and whatever it says, an answer lies in it.
#![forbid(unsafe_code)]

/// Bytes of the image that are read before its length is known.
pub(super) const HEAD: usize = 4096;
/// Longer ones are not believed in.
const MOST: usize = 1 << 20;

const LOADED: u32 = 1;
const DYNAMIC: u32 = 2;

const TABLE_OF_HASHES: u64 = 4;
const STRINGS: u64 = 5;
const SYMBOLS: u64 = 6;
const TABLE_OF_GNU_HASHES: u64 = 0x6fff_fef5;

/// Bytes of a program header, an entry of the dynamic section, and a symbol.
const HEADER: usize = 56;
const ENTRY: usize = 16;
const SYMBOL: usize = 24;

/// The kind of a symbol that is a function.
const FUNCTION: u8 = 2;

fn bytes<const N: usize>(image: &[u8], offset: usize) -> Option<[u8; N]> {
    image.get(offset..)?.first_chunk().copied()
}

fn half(image: &[u8], offset: usize) -> Option<usize> {
    bytes(image, offset).map(|bytes| usize::from(u16::from_le_bytes(bytes)))
}

fn word(image: &[u8], offset: usize) -> Option<u32> {
    bytes(image, offset).map(u32::from_le_bytes)
}

fn index(image: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(word(image, offset)?).ok()
}

fn long(image: &[u8], offset: usize) -> Option<u64> {
    bytes(image, offset).map(u64::from_le_bytes)
}

fn address(image: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(long(image, offset)?).ok()
}

/// Where element `number` of a table begins.
fn element(table: usize, number: usize, size: usize) -> Option<usize> {
    table.checked_add(number.checked_mul(size)?)
}

/// The program header of this kind.
fn header(head: &[u8], kind: u32) -> Option<usize> {
    if bytes(head, 0)? != *b"\x7fELF\x02\x01" {
        return None;
    }
    let (first, count) = (address(head, 32)?, half(head, 56)?);
    let mut headers = (0..count).map_while(|number| element(first, number, HEADER));
    headers.find(|header| word(head, *header) == Some(kind))
}

/// Bytes of the image that begins with `head`, if it is one.
pub(super) fn length(head: &[u8]) -> Option<usize> {
    let loaded = header(head, LOADED)?;
    let is_whole = address(head, loaded + 8)? == 0;
    let length = address(head, loaded + 32)?;
    (is_whole && length <= MOST).then_some(length)
}

/// Where the function of this name is in the image.
pub(super) fn find(image: &[u8], name: &[u8]) -> Option<usize> {
    // Addresses in it are those of the place that it was linked for.
    let linked_for = address(image, header(image, LOADED)? + 16)?;
    let section = address(image, header(image, DYNAMIC)? + 8)?;
    let entry = |tag: u64| {
        let entries = (0..).map_while(|number| element(section, number, ENTRY));
        let mut entries = entries.map_while(|entry| Some((long(image, entry)?, entry)));
        let (_, entry) = entries.find(|(found, _)| *found == tag || *found == 0)?;
        (long(image, entry)? == tag).then_some(entry)
    };
    let table = |tag| address(image, entry(tag)? + 8)?.checked_sub(linked_for);
    let (symbols, strings) = (table(SYMBOLS)?, table(STRINGS)?);
    let function = |number: usize| {
        let symbol = element(symbols, number, SYMBOL)?;
        let text = image.get(strings.checked_add(index(image, symbol)?)?..)?;
        let is_it = text.strip_prefix(name)?.first() == Some(&0)
            && image.get(symbol + 4)? & 15 == FUNCTION
            && half(image, symbol + 6)? != 0;
        let place = address(image, symbol + 8)?.checked_sub(linked_for)?;
        (is_it && place < image.len()).then_some(place)
    };
    // Old kernels have the one table of hashes, new ones the other.
    if let Some(table) = table(TABLE_OF_GNU_HASHES) {
        return chain(image, table, hash(name))?.find_map(function);
    }
    let count = index(image, table(TABLE_OF_HASHES)?.checked_add(4)?)?;
    (0..count.min(image.len() / SYMBOL)).find_map(function)
}

fn hash(name: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(33).wrapping_add(u32::from(*byte));
    name.iter().fold(5381, step)
}

/// The numbers of the symbols whose names may have this hash.
fn chain(image: &[u8], table: usize, hash: u32) -> Option<impl Iterator<Item = usize>> {
    let part = |number| element(table, number, 4);
    let buckets = word(image, table)?;
    let first = index(image, part(1)?)?;
    let filter = index(image, part(2)?)?;
    let bucket_table = element(part(4)?, filter, 8)?;
    let bucket = usize::try_from(hash.checked_rem(buckets)?).ok()?;
    let hashes = element(bucket_table, usize::try_from(buckets).ok()?, 4)?;
    let mut next = Some(index(image, element(bucket_table, bucket, 4)?)?);
    let found = core::iter::from_fn(move || {
        loop {
            let number = next?;
            let entry = element(hashes, number.checked_sub(first)?, 4)?;
            let known = word(image, entry)?;
            // The last of a bucket is marked in the lowest bit.
            next = if known & 1 == 0 {
                Some(number + 1)
            } else {
                None
            };
            if known | 1 == hash | 1 {
                return Some(number);
            }
        }
    });
    Some(found)
}
