//! The cursor of a stream: what is done, what has to be on disk, and which sequences may have been used. One file has two places of each
//! size; the one that was last made durable is never written over, so that a crash leaves it whole. A cursor that is too old costs
//! duplicates, never a record.
//!
//! ```text
//!   | 4 KiB | 4 KiB | 8 KiB  | 8 KiB  | 16 KiB ..         what is longer goes into a larger place; the newest sound one counts
//!
//!   a place:  "LCUR" turn first next reserved ended islands | island .. | CRC32C | turn promised_to records bytes values | CRC32C
//!                                                            of an earlier version it ends here ^
//! ```

use super::disk::{Disk, DiskFile, read_up_to};
use super::done::Done;
use super::lane::{Kept, Waiting};
use std::io;

const NAME: &str = "cursor";
const PLACE: usize = 4096;
/// Places of so many sizes, each twice the one before: up to 2 MiB.
const SIZES: u32 = 10;
const MAGIC: &[u8; 4] = b"LCUR";
/// Bytes of a cursor without islands.
const BARE: usize = MAGIC.len() + (6 + 5) * 8 + 2 * 4;
/// Islands that have room in the largest place: twice as many as any broker lets be on their way at once.
const ISLANDS_MAX: usize = ((PLACE << (SIZES - 1)) - BARE) / 16;

/// Where a place is, and how long.
const fn place((size, nth): (u32, usize)) -> (usize, usize) {
    let length = PLACE << size;
    (2 * (length - PLACE) + nth * length, length)
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// What is done.
    pub done: Done,
    /// The next sequence.
    pub next: u64,
    /// Sequences below this may have been seen by somebody, although they are not on disk.
    pub reserved: u64,
    /// Written by a stop: `next` is exact.
    pub clean: bool,
    /// Above this, numbers were left out after a run that was not stopped, and nobody has been told yet; 0: no such.
    pub untold: u64,
    /// What has to be on disk; `None`: written by a version that did not say.
    pub kept: Option<Kept>,
}

/// The file.
pub(super) struct CursorFile {
    file: Box<dyn DiskFile>,
    turn: u64,
    /// The place that is durable: which size, and which of the two.
    safe: (u32, usize),
}

impl Cursor {
    fn encode(&self, turn: u64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let islands = self.done.islands.get(..ISLANDS_MAX).unwrap_or(&self.done.islands);
        if islands.len() < self.done.islands.len() {
            tracing::error!("the spool's cursor has no room for all that is done out of order: some may be sent again");
        }
        // A version that knows nothing of what is untold takes such a cursor for that of a run that was not stopped.
        let ended = u64::from(self.clean) | self.untold << 1;
        let numbers = [turn, self.done.first, self.next, self.reserved, ended, islands.len() as u64];
        let pairs = islands.iter().flat_map(|(from, to)| [*from, *to]);
        numbers.into_iter().chain(pairs).for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        if let Some(Kept { promised_to, waiting }) = self.kept {
            let numbers = [turn, promised_to, waiting.records, waiting.bytes, waiting.values];
            let rest = numbers.map(u64::to_le_bytes).concat();
            out.extend_from_slice(&rest);
            out.extend_from_slice(&crc32c::crc32c(&rest).to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<(u64, Cursor)> {
        let mut numbers = bytes.strip_prefix(&MAGIC[..])?.chunks_exact(8).map_while(|c| c.try_into().ok());
        let mut number = || numbers.next().map(u64::from_le_bytes);
        let (turn, first, next, reserved, ended) = (number()?, number()?, number()?, number()?, number()?);
        let count = usize::try_from(number()?).ok().filter(|n| *n <= ISLANDS_MAX)?;
        let islands = (0..count).map(|_| Some((number()?, number()?))).collect::<Option<Vec<_>>>()?;
        let length = MAGIC.len() + (6 + 2 * count) * 8;
        let (head, rest) = bytes.split_at_checked(length)?;
        let (sum, rest) = rest.split_first_chunk()?;
        if crc32c::crc32c(head) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (clean, untold) = (ended & 1 == 1, ended >> 1);
        let kept = rest.split_at_checked(5 * 8).and_then(|(rest, sum)| {
            let mut numbers = rest.chunks_exact(8).map_while(|c| c.try_into().ok()).map(u64::from_le_bytes);
            let mut number = || numbers.next();
            // What is left of an older cursor has another turn.
            let is_ours = u32::from_le_bytes(*sum.first_chunk()?) == crc32c::crc32c(rest) && number()? == turn;
            let promised_to = number()?;
            let waiting = Waiting { records: number()?, bytes: number()?, values: number()? };
            is_ours.then_some(Kept { promised_to, waiting })
        });
        Some((turn, Cursor { done: Done { first, islands }, next, reserved, clean, untold, kept }))
    }
}

impl CursorFile {
    /// Opens or makes it; the cursor is that of the newer sound place.
    pub(super) fn open(disk: &dyn Disk) -> io::Result<(CursorFile, Option<Cursor>)> {
        if disk.list()?.iter().any(|(name, _)| name == NAME) {
            match CursorFile::read(disk) {
                Ok(found) => return Ok(found),
                Err(why) => {
                    tracing::error!("the spool's cursor cannot be read: {why}; what was delivered may be sent again");
                    disk.set_aside(NAME)?;
                }
            }
        }
        let file = disk.create(NAME)?;
        file.set_len(2 * PLACE as u64)?; // a disk that is full later still takes a cursor
        disk.sync()?;
        Ok((CursorFile { file, turn: 0, safe: (0, 0) }, None))
    }

    fn read(disk: &dyn Disk) -> io::Result<(CursorFile, Option<Cursor>)> {
        let file = disk.open(NAME)?;
        let mut bytes = Vec::new();
        read_up_to(&*file, 0, place((SIZES, 0)).0, &mut bytes)?;
        let sound = (0..SIZES).flat_map(|size| [(size, 0), (size, 1)]).filter_map(|which| {
            let (at, length) = place(which);
            let bytes = bytes.get(at..)?;
            Some((which, Cursor::decode(bytes.get(..length).unwrap_or(bytes))?))
        });
        let Some((safe, (turn, cursor))) = sound.max_by_key(|(_, (turn, _))| *turn) else {
            // The first write goes into the second place: as long as there is nothing in the first, that one was torn, or never came.
            let is_new = bytes.iter().take(PLACE).all(|b| *b == 0);
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, "both its places are damaged");
            return if is_new { Ok((CursorFile { file, turn: 0, safe: (0, 0) }, None)) } else { Err(damaged()) };
        };
        file.sync()?; // what was read may never have reached the disk
        Ok((CursorFile { file, turn, safe }, Some(cursor)))
    }

    /// Writes it; `durably` waits for the disk.
    pub(super) fn write(&mut self, cursor: &Cursor, durably: bool) -> io::Result<()> {
        let turn = self.turn + 1;
        let bytes = cursor.encode(turn);
        let size = (0..SIZES).find(|size| PLACE << size >= bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let which = (size, usize::from(self.safe == (size, 0)));
        self.file.write_at(place(which).0 as u64, &bytes)?;
        self.turn = turn;
        if durably {
            self.file.sync()?;
            self.safe = which;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Memory;
    use super::*;

    #[test]
    fn the_newer_sound_place_counts() {
        let disk = Memory::default();
        let (mut file, none) = CursorFile::open(&disk).unwrap();
        assert_eq!(none, None);
        let at = |first| Cursor {
            done: Done { first, islands: vec![(first + 3, first + 9)] },
            next: 90,
            reserved: 99,
            clean: false,
            untold: first - 1,
            kept: Some(Kept { promised_to: 80, waiting: Waiting { records: 3, bytes: 300, values: first } }),
        };
        for first in 1..=5 {
            file.write(&at(first), true).unwrap();
        }
        assert_eq!(CursorFile::open(&disk).unwrap().1, Some(at(5)));
        file.write(&at(6), false).unwrap();
        file.write(&at(7), false).unwrap();
        disk.open(NAME).unwrap().write_at(20, &[0xFF]).unwrap(); // the sixth and seventh were written there
        assert_eq!(CursorFile::open(&disk).unwrap().1, Some(at(5)), "the durable one is still whole");
    }

    #[test]
    fn a_cursor_forgets_no_island_however_many_there_are() {
        let disk = Memory::default();
        let (mut file, _) = CursorFile::open(&disk).unwrap();
        for (turn, count) in [3, 64, 65, 240, 250, 251, 10_000, 5, 600, 100_000, 7].into_iter().enumerate() {
            let islands = (0..count).map(|n| (10 + 10 * n, 15 + 10 * n)).collect();
            let cursor = Cursor { done: Done { first: 3, islands }, next: turn as u64, ..Cursor::default() };
            let cursor = Cursor { kept: Some(Kept { promised_to: count, waiting: Waiting::default() }), ..cursor };
            file.write(&cursor, turn % 2 == 0).unwrap();
            assert!(CursorFile::open(&disk).unwrap().1.as_ref() == Some(&cursor), "{count}");
        }
    }

    /// A place that an earlier version has written over what this one wrote, and one as it wrote it.
    #[test]
    fn a_cursor_of_an_earlier_version_says_nothing_of_what_it_did_not_know() {
        let cursor = Cursor { next: 7, kept: Some(Kept::default()), ..Cursor::default() };
        let old = Cursor { kept: None, ..cursor.clone() };
        assert_eq!(Cursor::decode(&old.encode(2)), Some((2, old.clone())));
        let over = [old.encode(2), cursor.encode(1).split_off(old.encode(1).len())].concat();
        assert_eq!(Cursor::decode(&over), Some((2, old)));
    }
}
