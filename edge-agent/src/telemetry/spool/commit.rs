//! The commit: what waits in memory is put on disk, one write and one fsync a stream.
//!
//! ```text
//!   lanes ──batch──> writer ──ok──> segment, durable
//!                      ├── disk full ──> the oldest segment goes, once more
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
        let mut result = Ok(());
        for (stream, writer) in STREAMS.into_iter().zip(writers.iter_mut()) {
            if let Err(e) = self.commit_stream(stream, writer) {
                result = Err(e);
            }
        }
        self.stats.is_failing.store(result.is_err(), Relaxed);
        drop(writers);
        self.show(&lock(&self.state));
        result
    }

    fn commit_stream(&self, stream: Stream, writer: &mut LaneWriter) -> io::Result<()> {
        loop {
            let (batch, mark) = {
                let mut state = lock(&self.state);
                (state.lane_mut(stream).take_batch(), state.mark(stream))
            };
            let done = mark.done.clone();
            // Sequences that somebody may see are reserved before long.
            if writer.reserved < mark.next.saturating_add(writer::RESERVE / 2) {
                let _ = writer.save_cursor(mark, false, false);
            }
            if batch.parts.is_empty() {
                return Ok(());
            }
            match self.write_batch(stream, writer, batch, &done) {
                Err(e) if e.kind() == io::ErrorKind::StorageFull && self.make_room(writer, stream) => {}
                result => return result,
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
        let written = result.inspect_err(|e| {
            self.stats.disk_faults.fetch_add(1, Relaxed);
            if !self.stats.is_failing.load(Relaxed) && e.kind() != io::ErrorKind::StorageFull {
                tracing::error!("the spool's disk takes nothing: {e}; records wait in memory, it is tried again");
            }
        })?;
        let mut state = lock(&self.state);
        let lane = state.lane_mut(stream);
        if let Some(segment) = written.segment {
            lane.segments.retain(|s| !written.replaced.iter().any(|r| r.id == s.id) && s.id != segment.id);
            lane.segments.push_back(segment);
            self.stats.commits.fetch_add(1, Relaxed);
            self.stats.written_bytes.fetch_add(bytes as u64, Relaxed);
            self.stats.commit.record_ns(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        lane.committed(last);
        drop(state);
        for segment in &written.replaced {
            let _ = writer.disk.remove(&segment.name());
        }
        Ok(())
    }
}
