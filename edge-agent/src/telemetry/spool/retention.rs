//! What goes when the spool is full or records are too old.
//!
//! | retention | what goes first |
//! |---|---|
//! | `oldest` | the oldest segment, whichever stream it is of |
//! | `drop-low-priority` | the oldest segment of `low`, then of `normal`, then of `high` |
//! | `thin` | of the oldest segments of `low`, then of `normal`, all but every n-th record of each series, up to three times; then as above |
//!
//! A notice about a loss is not lost with the segment it lies in: it moves on to the newest. Nor is what is on its way: of its segment the rest
//! goes.

use super::anew::Anew;
use super::lane::{Lane, Waiting};
use super::record::{self, Kind};
use super::segment::{self, Segment};
use super::spared::Spared;
use super::writer::LaneWriter;
use super::{Loss, Reason, STREAMS, Spool, Stream, lock};
use std::collections::HashMap;
use std::io;

/// How often a segment is thinned before it is dropped.
const LEVEL_MAX: u32 = 3;

/// What goes first when the spool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// The oldest.
    Oldest,
    /// Of the less important streams all but every n-th record of a series.
    Thin(u32),
    /// The less important streams.
    DropLowPriority,
}

/// Losses in some bytes that this process wrote or has checked: every stretch that is neither done nor on its way, apart from others.
pub(super) fn losses_of(bytes: &[u8], stream: Stream, spared: Spared<'_>, reason: Reason) -> Vec<Loss> {
    let mut stretches = Stretches::new(stream, reason);
    record::walk(bytes).for_each(|(range, r)| stretches.take(&Seen::of(&r, range.len()), spared));
    stretches.losses
}

/// A record that was seen in a segment.
#[derive(Clone, Copy, Debug)]
struct Seen {
    sequence: u64,
    /// The same, but of a [`Kind::Skip`] the first of its numbers, if it says so.
    from: Option<u64>,
    values: u32,
    bytes: usize,
    kind: Kind,
}

impl Seen {
    fn of(record: &record::Record<'_>, bytes: usize) -> Seen {
        let from = if record.kind == Kind::Skip { record.skips_from() } else { Some(record.sequence) };
        Seen { sequence: record.sequence, from, values: record.values, bytes, kind: record.kind }
    }
}

/// Puts lost records together to stretches. Records between which something was delivered are apart.
struct Stretches {
    stream: Stream,
    reason: Reason,
    losses: Vec<Loss>,
}

impl Stretches {
    fn new(stream: Stream, reason: Reason) -> Stretches {
        Stretches { stream, reason, losses: Vec::new() }
    }

    fn take(&mut self, seen: &Seen, spared: Spared<'_>) {
        let Seen { sequence, kind, .. } = *seen;
        if kind == Kind::Skip || spared.has(sequence) {
            return;
        }
        let (values, bytes, is_notice) = (u64::from(seen.values), seen.bytes as u64, kind == Kind::Loss);
        // Sequences that are not there and were not delivered have been thinned out, and told then.
        let joined = |loss: &&mut Loss| loss.is_notice == is_notice && spared.is_open(loss.to, sequence);
        match self.losses.last_mut().filter(joined) {
            Some(loss) => {
                (loss.to, loss.records) = (sequence, loss.records + 1);
                (loss.values, loss.bytes) = (loss.values + values, loss.bytes + bytes);
            }
            None => {
                let (stream, reason) = (self.stream, self.reason);
                let (from, to) = (sequence, sequence);
                self.losses.push(Loss { stream, from, to, records: 1, values, bytes, reason, is_notice });
            }
        }
    }
}

/// Stretches of a segment that are neither there nor done nor on their way nor left out on purpose.
fn damaged<'a>(seen: &'a [Seen], segment: &Segment, spared: Spared<'a>) -> impl Iterator<Item = (u64, u64)> + 'a {
    let (mut behind, last) = (segment.first.saturating_sub(1), segment.last);
    let end = Seen { sequence: last + 1, from: Some(last + 1), values: 0, bytes: 0, kind: Kind::Json };
    seen.iter().copied().chain([end]).flat_map(move |s| {
        let gap = (behind + 1, s.from.map_or(behind, |from| from.saturating_sub(1).min(last)));
        behind = behind.max(s.sequence);
        (gap.0 <= gap.1).then(|| spared.gaps(gap.0, gap.1)).into_iter().flatten()
    })
}

/// What is to be done to make room.
#[derive(Clone, Copy, Debug)]
enum Step {
    Drop(Stream, Segment),
    Thin(Stream, Segment, u32),
}

/// The oldest segment of which something can go.
fn oldest((stream, lane): (Stream, &Lane)) -> Option<(Stream, Segment)> {
    lane.can_go().next().map(|s| (stream, s))
}

/// The oldest segment of the least important stream that has one.
fn least(lanes: &[Lane; 3]) -> Option<(Stream, Segment)> {
    STREAMS.into_iter().zip(lanes).rev().find_map(oldest)
}

impl Spool {
    /// Drops what is too old, and what does not fit.
    pub(super) fn keep_to_limits(&self, writers: &mut [LaneWriter; 3]) {
        let now = (self.wall)();
        let age = u64::try_from(self.options.age_max.as_millis()).unwrap_or(u64::MAX);
        for stream in STREAMS {
            let too_old = |s: &Segment| s.span_ms.1 > 0 && crate::clock::age_ms(s.span_ms.1, now) > age;
            loop {
                let old = lock(&self.state).lane(stream).can_go().next().filter(too_old);
                let (Some(old), Some(writer)) = (old, writers.get_mut(stream.index())) else { break };
                self.drop_segment(writer, stream, old, Reason::Age);
            }
        }
        // Notices move on, and take room again: what is there now is looked at once.
        let segments: usize = lock(&self.state).lanes.iter().map(|l| l.segments.len()).sum();
        for _ in 0..=segments * (1 + LEVEL_MAX as usize) {
            let step = {
                let state = lock(&self.state);
                let used: u64 = state.lanes.iter().map(Lane::disk_bytes).sum();
                if used <= self.options.capacity {
                    return;
                }
                self.step(&state.lanes)
            };
            match step {
                None => return,
                Some(Step::Drop(stream, segment)) => {
                    let Some(writer) = writers.get_mut(stream.index()) else { return };
                    self.drop_segment(writer, stream, segment, Reason::Full);
                }
                Some(Step::Thin(stream, segment, keep)) => {
                    let Some(writer) = writers.get_mut(stream.index()) else { return };
                    if !self.thin(writer, stream, segment, keep) {
                        self.drop_segment(writer, stream, segment, Reason::Full);
                    }
                }
            }
        }
    }

    /// The disk is full although the spool is not. What waits does so in memory; when there is no room there either, so many bytes on disk give
    /// way, the least important first. Once, until a write succeeds: what is freed may be taken by whoever has filled the disk, and the rest would follow for
    /// nothing. False when nothing was freed.
    pub(super) fn make_room(&self, writers: &mut [LaneWriter; 3], bytes: u64) -> bool {
        let (mut freed, mut state) = (0, lock(&self.state));
        if !self.is_crowded(&state) || std::mem::replace(&mut state.gave_way, true) {
            return false;
        }
        while freed < bytes {
            // What is less important than the next, and in memory, goes before it.
            let less =
                STREAMS.into_iter().zip(&state.lanes).rev().find(|(_, l)| !l.segments.is_empty() || l.volatile() > 0);
            let Some((stream, segment)) = less.and_then(oldest) else { break };
            drop(state);
            let writer = writers.get_mut(stream.index());
            let more = writer.map_or(0, |writer| self.drop_segment(writer, stream, segment, Reason::Disk));
            if more == 0 {
                return freed > 0;
            }
            freed += more;
            state = lock(&self.state);
        }
        freed > 0
    }

    fn step(&self, lanes: &[Lane; 3]) -> Option<Step> {
        let streams = || STREAMS.into_iter().zip(lanes);
        let least = || least(lanes).map(|(stream, s)| Step::Drop(stream, s));
        match self.options.retention {
            Retention::Oldest => {
                let oldest = streams().filter_map(oldest).min_by_key(|(_, s)| s.span_ms.0);
                oldest.map(|(stream, s)| Step::Drop(stream, s))
            }
            Retention::DropLowPriority => least(),
            Retention::Thin(keep) => {
                let thinner =
                    streams().rev().filter(|(stream, _)| *stream != Stream::High).find_map(|(stream, lane)| {
                        // The newest is still being written.
                        let closed = lane.segments.len().saturating_sub(1);
                        let may = |s: &&Segment| s.level < LEVEL_MAX && !lane.is_handed_out(s);
                        let segment = lane.segments.iter().take(closed).filter(may).min_by_key(|s| s.level)?;
                        Some(Step::Thin(stream, *segment, keep))
                    });
                thinner.or_else(least)
            }
        }
    }

    /// Drops a segment: what is not done in it is counted and told. What is on its way stays, in a segment of its own. Gives the bytes that
    /// are free now.
    fn drop_segment(&self, writer: &mut LaneWriter, stream: Stream, segment: Segment, reason: Reason) -> u64 {
        if writer.active_id() == Some(segment.id) {
            writer.rotate();
        }
        let (mut seen, mut notices) = (Vec::new(), Vec::new());
        if let Ok(file) = writer.disk.open(&segment.name()) {
            let _ = segment::scan(&*file, (0, segment.length), |record, bytes, _| {
                seen.push(Seen::of(&record, bytes.len()));
                if record.kind == Kind::Loss {
                    notices.extend_from_slice(bytes);
                }
            });
        }
        let mut state = lock(&self.state);
        let lane = state.lane_mut(stream);
        let around = lane.around(&segment);
        // As it is now: some may have been sent or acknowledged while the segment was read.
        let spared = lane.spared();
        let mut losses: Vec<Loss> =
            damaged(&seen, &segment, spared).map(|(a, b)| Loss::of_damage(stream, a, b)).collect();
        let mut stretches = Stretches::new(stream, reason);
        seen.iter().filter(|s| s.kind != Kind::Loss).for_each(|s| stretches.take(s, spared));
        let stays = lane.flying.is_any(segment.first, segment.last);
        if !stays {
            lane.segments.retain(|s| s.id != segment.id);
        }
        self.move_notices(&mut state, stream, &notices);
        losses.append(&mut stretches.losses);
        self.lose(&mut state, &losses);
        let lane = state.lane_mut(stream);
        // What is not on its way is nowhere now.
        lane.flying.gaps(around.0, around.1).for_each(|(from, to)| lane.done.add(from, to));
        let unknown = lane.waiting.take(Waiting::default());
        self.stats.lost.damaged_values(unknown);
        let mark = state.mark(stream);
        self.show(&state);
        drop(state);
        let _ = writer.save_cursor(mark, true, false);
        if stays {
            return self.pare(writer, stream, segment).unwrap_or(0);
        }
        writer.disk.remove(&segment.name()).map_or(0, |()| segment.length)
    }

    /// Writes a segment anew without what is done: only what is on its way is left.
    fn pare(&self, writer: &mut LaneWriter, stream: Stream, segment: Segment) -> io::Result<u64> {
        let done = lock(&self.state).lane(stream).done.clone();
        let mut anew = Anew::of(&segment);
        let file = writer.disk.open(&segment.name())?;
        segment::scan(&*file, (0, segment.length), |record, bytes, _| {
            if record.kind == Kind::Skip || done.has(record.sequence) {
                anew.leave_out(&record);
            } else {
                anew.keep(&record, bytes);
            }
        })?;
        let left = if anew.is_empty() { None } else { Some(anew.write(&*writer.disk, segment.last)?) };
        let mut state = lock(&self.state);
        let segments = &mut state.lane_mut(stream).segments;
        match left {
            Some(left) => segments.iter_mut().filter(|s| s.id == segment.id).for_each(|s| *s = left),
            None => segments.retain(|s| s.id != segment.id),
        }
        self.show(&state);
        drop(state);
        writer.disk.remove(&segment.name())?;
        Ok(segment.length.saturating_sub(left.map_or(0, |left| left.length)))
    }

    /// Keeps every n-th record of each series; they are counted from one segment to the next, for one alone may hold fewer than n of a series.
    /// False when that is not possible.
    fn thin(&self, writer: &mut LaneWriter, stream: Stream, segment: Segment, keep: u32) -> bool {
        let done = lock(&self.state).lane(stream).done.clone();
        let Ok(file) = writer.disk.open(&segment.name()) else { return false };
        let before = writer.thinning.entry(segment.level).or_default();
        let mut series: HashMap<String, u32> = HashMap::new();
        let mut anew = Anew::of(&segment);
        let mut loss = Loss {
            stream,
            from: segment.first,
            to: segment.last,
            records: 0,
            values: 0,
            bytes: 0,
            reason: Reason::Thinned(keep),
            is_notice: false,
        };
        let read = segment::scan(&*file, (0, segment.length), |record, bytes, _| {
            if record.kind == Kind::Skip || done.has(record.sequence) {
                return anew.leave_out(&record);
            }
            let nth = match series.get_mut(record.topic) {
                Some(nth) => nth,
                None => {
                    let nth = before.get(record.topic).copied().unwrap_or(0);
                    series.entry(record.topic.to_string()).or_insert(nth)
                }
            };
            *nth = (*nth + 1) % keep.max(1);
            // The newest of a stretch says most: it is the one that is kept.
            if *nth != 0 {
                loss.records += 1;
                loss.values += u64::from(record.values);
                loss.bytes += bytes.len() as u64;
                return anew.leave_out(&record);
            }
            anew.keep(&record, bytes);
        });
        // What damage has taken is found and told when the segment is read or dropped.
        if !read.is_ok_and(|scan| scan.damaged == 0) || lock(&self.state).lane(stream).is_handed_out(&segment) {
            return false;
        }
        if anew.is_empty() {
            before.extend(series);
            return self.drop_segment(writer, stream, segment, Reason::Thinned(keep)) > 0;
        }
        let Ok(thinned) = anew.write(&*writer.disk, segment.last) else { return false };
        let mut state = lock(&self.state);
        let lane = state.lane_mut(stream);
        if lane.is_handed_out(&segment) {
            // Meanwhile: what is left out may be delivered all the same, and would be both.
            let _ = writer.disk.remove(&thinned.name());
            return false;
        }
        lane.segments.iter_mut().filter(|s| s.id == segment.id).for_each(|s| *s = thinned);
        lane.forget(segment.last);
        let went = Waiting { records: loss.records, bytes: loss.bytes, values: loss.values };
        let unknown = lane.waiting.take(went);
        self.stats.lost.damaged_values(unknown);
        self.note(&mut state, &loss);
        let mark = state.mark(stream);
        drop(state);
        before.extend(series);
        // As long as the whole one is there, it is the one that counts.
        let _ = writer.save_cursor(mark, false, false);
        let _ = writer.disk.remove(&segment.name());
        true
    }
}
