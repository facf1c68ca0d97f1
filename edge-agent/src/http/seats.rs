//! Seats: so many connections at once, and who leaves when the house is full.
//!
//! ```text
//!   somebody comes ── a seat is free ──> sits down
//!                          │no
//!                     whose place has most seats? (their own, if none has more) ──> of these the oldest that asks for nothing just now leaves
//! ```
//!
//! So nobody is kept out by others, however many connections one place opens: each newcomer finds a seat, and a place that has few keeps
//! them. A supervisor's question for `/healthz` is such a newcomer.

use crate::access::Neighbour;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What the door counts.
#[derive(Debug, Default)]
pub struct HttpStats {
    /// Whether passwords cross the network for all to read.
    pub is_unencrypted: bool,
    /// Why only this machine is served, if that was not wanted.
    pub closed: Option<String>,
    /// Connections served right now.
    pub connections: AtomicUsize,
    /// Connections that were closed to make room for others.
    pub displaced: AtomicU64,
}

/// One seat; free again when it goes.
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    sign: Arc<Sign>,
}

/// What is said between a seat and the house.
#[derive(Debug, Default)]
pub(super) struct Sign {
    /// A request is being answered, or somebody looks on live.
    pub(super) is_busy: AtomicBool,
    leave: Notify,
}

struct Taken {
    from: Neighbour,
    sign: Arc<Sign>,
}

#[derive(Default)]
struct House {
    /// By number: the oldest first.
    taken: BTreeMap<u64, Taken>,
    by_place: HashMap<Neighbour, usize>,
    next: u64,
}

/// All the seats.
pub(super) struct Seats {
    max: usize,
    house: Mutex<House>,
    stats: Arc<HttpStats>,
}

impl Seats {
    pub(super) fn new(max: usize, stats: Arc<HttpStats>) -> Arc<Seats> {
        Arc::new(Seats { max: max.max(1), house: Mutex::default(), stats })
    }

    fn house(&self) -> MutexGuard<'_, House> {
        self.house.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for somebody, if need be somebody else's. Looks through all seats once when the house is full.
    pub(super) fn take(self: &Arc<Self>, from: Neighbour) -> Seat {
        let mut house = self.house();
        if house.taken.len() >= self.max {
            self.displace(&mut house, Some(from));
        }
        let (number, sign) = (house.next, Arc::<Sign>::default());
        house.next += 1;
        house.taken.insert(number, Taken { from, sign: sign.clone() });
        *house.by_place.entry(from).or_default() += 1;
        self.stats.connections.store(house.taken.len(), Relaxed);
        Seat { seats: self.clone(), number, sign }
    }

    /// Somebody leaves, because there is no descriptor for anybody else.
    pub(super) fn make_room(&self) {
        let mut house = self.house();
        self.displace(&mut house, None);
        self.stats.connections.store(house.taken.len(), Relaxed);
    }

    fn displace(&self, house: &mut House, newcomer: Option<Neighbour>) {
        let own = newcomer.and_then(|from| house.by_place.get(&from)).copied().unwrap_or(0);
        let most = house.by_place.iter().max_by_key(|(_, n)| **n).map(|(from, n)| (*from, *n));
        let Some((largest, most)) = most else { return };
        let from = newcomer.filter(|_| own >= most).unwrap_or(largest);
        let mut theirs = house.taken.iter().filter(|(_, t)| t.from == from);
        let oldest = theirs.clone().next();
        let idle = theirs.find(|(_, t)| !t.sign.is_busy.load(Relaxed));
        let Some((number, taken)) = idle.or(oldest) else { return };
        let number = *number;
        taken.sign.leave.notify_one();
        house.leave(number);
        self.stats.displaced.fetch_add(1, Relaxed);
    }
}

impl House {
    fn leave(&mut self, number: u64) {
        let Some(taken) = self.taken.remove(&number) else { return };
        match self.by_place.get_mut(&taken.from) {
            Some(n) if *n > 1 => *n -= 1,
            _ => {
                self.by_place.remove(&taken.from);
            }
        }
    }
}

impl Seat {
    pub(super) fn sign(&self) -> Arc<Sign> {
        self.sign.clone()
    }

    /// Returns when somebody else needs it.
    pub(super) async fn is_needed(&self) {
        self.sign.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut house = self.seats.house();
        house.leave(self.number);
        self.seats.stats.connections.store(house.taken.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn place(n: u8) -> Neighbour {
        IpAddr::from([10, 0, 0, n]).into()
    }

    fn must_leave(seat: &Seat) -> bool {
        let leaving = std::pin::pin!(seat.sign.leave.notified());
        leaving.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn who_has_most_makes_room_and_of_theirs_the_oldest_that_is_not_busy() {
        let stats = Arc::new(HttpStats::default());
        let seats = Seats::new(10, stats.clone());
        let few: Vec<Seat> = (0..2).map(|_| seats.take(place(1))).collect();
        let many: Vec<Seat> = (0..8).map(|_| seats.take(place(2))).collect();
        many[0].sign.is_busy.store(true, Relaxed);
        let newcomer = seats.take(place(3));
        let greedy = seats.take(place(2));
        let leaving = |all: &[Seat]| all.iter().map(must_leave).collect::<Vec<_>>();
        assert_eq!(leaving(&many), [false, true, true, false, false, false, false, false]);
        assert_eq!(leaving(&few), [false, false]);
        assert!(!must_leave(&newcomer) && !must_leave(&greedy));
        assert_eq!((stats.connections.load(Relaxed), stats.displaced.load(Relaxed)), (10, 2));
        drop((few, many, newcomer, greedy));
        assert_eq!(stats.connections.load(Relaxed), 0);
        assert!(seats.house().by_place.is_empty());
    }

    #[test]
    fn among_equals_a_place_makes_room_for_its_own_and_a_stranger_finds_a_seat_all_the_same() {
        let seats = Seats::new(4, Arc::default());
        let all: Vec<Seat> = [1, 2, 1, 2].into_iter().map(|n| seats.take(place(n))).collect();
        let third = seats.take(place(2));
        assert!(must_leave(&all[1]) && !must_leave(&all[0]));
        all.iter().for_each(|s| s.sign.is_busy.store(true, Relaxed));
        let stranger = seats.take(place(9));
        assert_eq!(seats.house().taken.len(), 4);
        assert!(!must_leave(&stranger) && (must_leave(&all[0]) || must_leave(&third) || must_leave(&all[3])));
    }
}
