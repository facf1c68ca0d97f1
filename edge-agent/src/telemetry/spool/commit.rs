//! The commit: what waits in memory is put on disk, one write and one fsync a stream.
//!
//! ```text
//!   lanes ──batch──> writer ──ok──> segment, durable
//!                      ├── disk full, memory too ──> something on disk gives way, once more
//!                      └── error ──> still in memory; tried again
//! ```

use super::lane::Batch;
use super::writer::{self, LaneWriter};
use super::{STREAMS, Spool, Stream, done, lock};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

impl Spool {
    /// Puts everything that waits for a commit on disk. Blocks. An error says that it is still in memory only.
    pub fn commit(&self) -> io::Result<()> {
        let mut writers = lock(&self.writers);
        STREAMS.iter().for_each(|stream| lock(&self.state).lane_mut(*stream).close_block());
        let Some(own) = writers.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut result = Ok(());
        for stream in STREAMS {
            if let Err(e) = self.commit_stream(stream, own) {
                result = Err(e);
            }
        }
        self.stats.is_failing.store(result.is_err(), Relaxed);
        drop(writers);
        self.show(&lock(&self.state));
        result
    }

    fn commit_stream(&self, stream: Stream, writers: &mut [LaneWriter; 3]) -> io::Result<()> {
        lock(&self.state).lane_mut(stream).close_block();
        loop {
            let Some(writer) = writers.get_mut(stream.index()) else { return Ok(()) };
            let (batch, done, next) = {
                let state = lock(&self.state);
                let lane = state.lane(stream);
                (lane.take_batch(self.options.segment_bytes()), lane.done.clone(), lane.next)
            };
            // Sequences that somebody may see are reserved before long.
            if writer.reserved < next.saturating_add(writer::RESERVE / 2) {
                let mark = lock(&self.state).mark(stream);
                let _ = writer.save_cursor(mark, false, false);
            }
            if batch.parts.is_empty() {
                return Ok(());
            }
            let bytes = batch.bytes() as u64 + writer::SPARE;
            match self.write_batch(stream, writer, batch, &done) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::StorageFull && self.make_room(writers, bytes) => {}
                Err(e) => {
                    if !self.stats.is_failing.swap(true, Relaxed) {
                        tracing::error!(
                            "the spool's disk takes nothing: {e}; records wait in memory, it is tried again"
                        );
                    }
                    return Err(e);
                }
            }
        }
    }

    fn write_batch(&self, stream: Stream, writer: &mut LaneWriter, batch: Batch, done: &done::Done) -> io::Result<()> {
        let (start, bytes, last) = (Instant::now(), batch.bytes(), batch.last);
        let (result, first_error) = writer.write(&batch, done);
        drop(batch); // its blocks are used again
        if let Some(e) = first_error {
            self.stats.disk_faults.fetch_add(1, Relaxed);
            tracing::error!(
                "the spool's disk failed: {e}; the segment is left, what is not acknowledged is written anew"
            );
        }
        let written = result.inspect_err(|_| {
            self.stats.disk_faults.fetch_add(1, Relaxed);
        })?;
        let mut state = lock(&self.state);
        let is_written = written.segment.is_some();
        state.gave_way &= !is_written;
        let lane = state.lane_mut(stream);
        if let Some(segment) = written.segment {
            lane.segments.retain(|s| !written.replaced.iter().any(|r| r.id == s.id) && s.id != segment.id);
            lane.segments.push_back(segment);
            self.stats.commits.fetch_add(1, Relaxed);
            self.stats.written_bytes.fetch_add(bytes as u64, Relaxed);
            self.stats.commit.record_ns(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        lane.committed(last);
        let mark = is_written.then(|| state.mark(stream));
        drop(state);
        // Who reads the disk next knows what has to be there. Nobody waits for that: a cursor that is a little older is worth as much.
        mark.into_iter().for_each(|mark| drop(writer.save_cursor(mark, false, false)));
        for segment in &written.replaced {
            let _ = writer.disk.remove(&segment.name());
        }
        Ok(())
    }
}
