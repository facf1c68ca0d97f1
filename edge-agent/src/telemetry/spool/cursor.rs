//! The cursor of a stream: what is done, and which sequences may have been used. One file has two places; the one that was last made
//! durable is never written over, so that a crash leaves it whole. A cursor that is too old costs duplicates, never a record.

use super::disk::{Disk, DiskFile, read_up_to};
use super::done::{Done, ISLANDS_MAX};
use std::io;

const NAME: &str = "cursor";
const PLACE: usize = 4096;
const MAGIC: &[u8; 4] = b"LCUR";

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
}

/// The file.
pub(super) struct CursorFile {
    file: Box<dyn DiskFile>,
    turn: u64,
    /// The place that is durable.
    safe: usize,
}

impl Cursor {
    fn encode(&self, turn: u64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let islands = &self.done.islands[..self.done.islands.len().min(ISLANDS_MAX)];
        // A version that knows nothing of what is untold takes such a cursor for that of a run that was not stopped.
        let ended = u64::from(self.clean) | self.untold << 1;
        let numbers = [turn, self.done.first, self.next, self.reserved, ended, islands.len() as u64];
        let pairs = islands.iter().flat_map(|(from, to)| [*from, *to]);
        numbers.into_iter().chain(pairs).for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<(u64, Cursor)> {
        let mut numbers = bytes.strip_prefix(&MAGIC[..])?.chunks_exact(8).map_while(|c| c.try_into().ok());
        let mut number = || numbers.next().map(u64::from_le_bytes);
        let (turn, first, next, reserved, ended) = (number()?, number()?, number()?, number()?, number()?);
        let count = usize::try_from(number()?).ok().filter(|n| *n <= ISLANDS_MAX)?;
        let islands = (0..count).map(|_| Some((number()?, number()?))).collect::<Option<Vec<_>>>()?;
        let length = MAGIC.len() + (6 + 2 * count) * 8;
        let sum = bytes.get(length..length + 4)?.try_into().ok().map(u32::from_le_bytes)?;
        let sound = crc32c::crc32c(bytes.get(..length)?) == sum;
        let (clean, untold) = (ended & 1 == 1, ended >> 1);
        sound.then_some((turn, Cursor { done: Done { first, islands }, next, reserved, clean, untold }))
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
        disk.sync()?;
        Ok((CursorFile { file, turn: 0, safe: 0 }, None))
    }

    fn read(disk: &dyn Disk) -> io::Result<(CursorFile, Option<Cursor>)> {
        let file = disk.open(NAME)?;
        let mut bytes = Vec::new();
        read_up_to(&*file, 0, 2 * PLACE, &mut bytes)?;
        let sound = bytes.chunks(PLACE).enumerate().filter_map(|(n, place)| Some((n, Cursor::decode(place)?)));
        let Some((safe, (turn, cursor))) = sound.max_by_key(|(_, (turn, _))| *turn) else {
            // The first write goes into the second place: as long as there is nothing in the first, that one was torn, or never came.
            let is_new = bytes.iter().take(PLACE).all(|b| *b == 0);
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, "both its places are damaged");
            return if is_new { Ok((CursorFile { file, turn: 0, safe: 0 }, None)) } else { Err(damaged()) };
        };
        file.sync()?; // what was read may never have reached the disk
        Ok((CursorFile { file, turn, safe }, Some(cursor)))
    }

    /// Writes it; `durably` waits for the disk.
    pub(super) fn write(&mut self, cursor: &Cursor, durably: bool) -> io::Result<()> {
        let (turn, place) = (self.turn + 1, 1 - self.safe);
        self.file.write_at((place * PLACE) as u64, &cursor.encode(turn))?;
        self.turn = turn;
        if durably {
            self.file.sync()?;
            self.safe = place;
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
}
