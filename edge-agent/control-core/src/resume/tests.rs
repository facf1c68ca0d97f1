//! One shuttle, three bays, a belt in and a belt out; the plant stands still, so only what is wanted of it is looked at.

extern crate std;

use super::*;
use crate::cycle::{Inputs, Request, Settings};
use crate::event::RunState;
use crate::floor::{DomainInfo, Link, MachineInfo, MachineKind, Mover, NEVER, Position, Tables, Zone};
use crate::image::{MachineStatus, Mode, Quality, Stamped};
use crate::limits::Capacity;
use crate::order::Stops;
use crate::rack::Axis;
use crate::storage::tests::Leak;
use crate::traffic::roads::{NO_PLACE, Roads};
use std::vec::Vec;

const BAYS: [PosId; 3] = [PosId(0), PosId(1), PosId(2)];
/// The belt out, then the belt in.
const OUT: [PosId; 2] = [PosId(3), PosId(4)];
const IN: [PosId; 2] = [PosId(5), PosId(6)];
const DECK: PosId = PosId(7);
const SENSED: usize = 7;
const SHUTTLE: MachineId = MachineId(0);

const fn pos(zone: u16) -> Position {
    Position { zone: ZoneId(zone), along_mm: 0, height_mm: 0, place: NO_PLACE, front: None, behind: None }
}

const fn zone(kind: ZoneKind, first: PosId, count: u16, beyond: Beyond) -> Zone {
    Zone { kind, first, count, beyond, feeds: None, deep: false, tier: None, closed: false, domain: DomainId(0) }
}

const fn link(to: u16) -> Link {
    Link { to: ZoneId(to), by: Mover::Machine(SHUTTLE) }
}

fn floor() -> Floor<'static> {
    static ZONES: [Zone; 4] = [
        zone(ZoneKind::Bays, BAYS[0], 3, Beyond::Nothing),
        zone(ZoneKind::Lane, OUT[0], 2, Beyond::Departures),
        zone(ZoneKind::Lane, IN[0], 2, Beyond::Arrivals),
        zone(ZoneKind::Deck(SHUTTLE), DECK, 1, Beyond::Nothing),
    ];
    let axis = Axis { speed_mm_s: 1_000, acceleration_mm_s2: 1_000 };
    let shuttle = MachineInfo { kind: MachineKind::Shuttle { rack: None }, deck: DECK, domain: DomainId(0), axis };
    let tables = Tables {
        positions: const { &[pos(0), pos(0), pos(0), pos(1), pos(1), pos(2), pos(2), pos(3)] },
        zones: &ZONES,
        links: const { &[link(1), link(0), link(1), link(0), link(1)] },
        link_start: &[0, 1, 1, 3, 5],
        hops: &[0, 1, NEVER, 0, 1, 1, 1, 1],
        columns: &[0, 1, u16::MAX, u16::MAX],
        goals: 2,
        machines: Vec::from([shuttle]).leak(),
        sources: &[ZoneId(0), ZoneId(2)],
        source_start: &[0, 2],
        domains: &[DomainInfo { machines: (SHUTTLE, 1), sensed: (PosId(0), SENSED as u16) }],
        exits: &[ZoneId(1), ZoneId(1), ZoneId(1), ZoneId(1)],
        exit_start: &[0, 1, 2, 3, 4],
        inwards: &[0, NEVER, 1, 1],
        ..Tables::default()
    };
    Floor::new(tables, Roads::default(), 0)
}

const LOAD: LoadId = LoadId::ONE;
const ID: OrderId = OrderId(9);

fn retrieve() -> Resume {
    left_behind(OrderRequest::new(ID, LOAD, Stops::RETRIEVE), BAYS[0], OUT[0])
}

/// An order under way from here to there.
fn left_behind(request: OrderRequest, at: PosId, to: PosId) -> Resume {
    let (at, to) = (Some(at), Some(to));
    Resume { request, age_ms: 0, stop: 0, started: true, withdrawn: false, held: None, at, to }
}

/// An order no machine was put to.
fn not_begun(request: OrderRequest) -> Resume {
    Resume { started: false, at: None, to: None, ..left_behind(request, DECK, DECK) }
}

struct Hall {
    floor: Floor<'static>,
    controller: Controller<'static>,
    loads: [Option<LoadId>; SENSED + 1],
    now: Millis,
    told: Vec<EventKind>,
}

impl Hall {
    /// The run begins soon after its clock, with the load at these places, and takes these orders back.
    fn new(places: &[PosId], orders: &[Resume]) -> Hall {
        let floor = floor();
        let controller = Controller::new(&Leak, &Capacity::of(&floor, 4), Settings::default());
        let mut hall = Hall { floor, controller, loads: [None; SENSED + 1], now: Millis(10), told: Vec::new() };
        for place in places {
            hall.loads[usize::from(place.0)] = Some(LOAD);
        }
        let mut events = Events::default();
        for order in orders {
            hall.controller.resume(hall.now, &hall.floor, order, &mut events);
        }
        hall.told.extend(events.iter().map(|e| e.kind));
        hall
    }

    fn live(&mut self, ms: u64, requests: &[Request]) {
        let mut events = Events::default();
        for n in 0..ms / 10 {
            self.now = self.now.plus(10);
            let (at, quality) = (self.now, Quality::Good);
            let token = self.controller.output().token;
            let status =
                MachineStatus { token, mode: Mode::Auto, load: self.loads[SENSED], ..MachineStatus::default() };
            let positions: Vec<_> =
                self.loads.iter().take(SENSED).map(|l| Stamped { value: *l, quality, at }).collect();
            let image = InputImage {
                machines: &[Stamped { value: status, quality, at }],
                written: &[0],
                positions: &positions,
            };
            let requests = if n == 0 { requests } else { &[] };
            let inputs = Inputs { floor: &self.floor, image, requests, degraded: false };
            self.controller.cycle(self.now, &inputs, &mut events);
            self.told.extend(events.iter().map(|e| e.kind));
        }
    }

    fn is_told(&self, kind: EventKind) -> bool {
        self.told.contains(&kind)
    }

    /// Whether a machine was put to the load.
    fn is_touched(&self) -> bool {
        self.told.iter().any(|k| matches!(k, EventKind::LegBegun { .. } | EventKind::CommandIssued { .. }))
    }

    fn held(&self) -> Option<Doubt> {
        self.controller.orders().by_id(ID).and_then(|o| o.held)
    }
}

#[test]
fn an_order_under_way_goes_on_from_wherever_its_leg_may_have_brought_its_load() {
    for (seen, from) in [(BAYS[0], BAYS[0]), (DECK, DECK)] {
        let mut hall = Hall::new(&[seen], &[retrieve()]);
        assert_eq!(hall.told, [EventKind::OrderAdopted(ID, LOAD)]);
        hall.live(1_000, &[]);
        assert_eq!(hall.held(), None, "seen at {seen:?}");
        assert!(hall.is_told(EventKind::LegBegun { id: ID, from, to: OUT[0] }), "seen at {seen:?}: {:?}", hall.told);
        assert!(!hall.is_told(EventKind::OrderStarted(ID)), "it was started before");
    }
    for seen in OUT {
        let mut hall = Hall::new(&[seen], &[retrieve()]);
        hall.live(1_000, &[]);
        assert_eq!((hall.held(), hall.is_touched()), (None, false), "seen at {seen:?}");
    }
    let mut at_the_end = Hall::new(&[OUT[1]], &[retrieve()]);
    at_the_end.live(1_000, &[]);
    assert!(at_the_end.is_told(EventKind::OrderCompleted(ID)));
}

#[test]
fn an_order_whose_load_is_where_no_leg_of_it_leads_is_held_and_nobody_touches_the_load() {
    for seen in [BAYS[1], IN[1]] {
        let mut hall = Hall::new(&[seen], &[retrieve()]);
        hall.live(60_000, &[]);
        assert_eq!(hall.held(), Some(Doubt::Elsewhere), "seen at {seen:?}");
        assert!(hall.is_told(EventKind::OrderHeld(ID, Doubt::Elsewhere)));
        assert!(!hall.is_touched(), "{:?}", hall.told);
        assert!(!hall.told.iter().any(|k| matches!(k, EventKind::OrderFound { .. })), "{:?}", hall.told);
    }
}

#[test]
fn a_held_order_keeps_a_bay_for_its_load() {
    let store = left_behind(OrderRequest::new(ID, LOAD, Stops::STORE), IN[1], BAYS[0]);
    let mut hall = Hall::new(&[OUT[0]], &[store]);
    hall.live(60_000, &[]);
    assert_eq!(hall.held(), Some(Doubt::Elsewhere));
    let home = hall.controller.orders().by_id(ID).and_then(|o| o.home);
    assert!(home.is_some_and(|bay| BAYS.contains(&bay)), "{home:?}");
}

#[test]
fn a_load_that_is_nowhere_holds_its_order_when_it_has_been_looked_for_long_enough() {
    let inside = left_behind(OrderRequest::new(ID, LOAD, Stops::STORE), IN[1], BAYS[0]);
    let asked_for = not_begun(OrderRequest::new(ID, LOAD, Stops::RETRIEVE));
    for order in [inside, asked_for] {
        let mut hall = Hall::new(&[], &[order]);
        hall.live(9_000, &[]);
        assert_eq!(hall.held(), None);
        hall.live(3_000, &[]);
        assert_eq!(hall.held(), Some(Doubt::Gone));
    }
}

#[test]
fn a_load_that_was_leaving_and_is_nowhere_has_left() {
    let mut hall = Hall::new(&[], &[retrieve()]);
    hall.live(9_000, &[]);
    assert!(!hall.is_told(EventKind::OrderCompleted(ID)), "a belt has places no sensor sees");
    hall.live(3_000, &[]);
    assert!(hall.is_told(EventKind::OrderCompleted(ID)));
}

#[test]
fn a_load_at_two_places_holds_its_order() {
    for places in [[BAYS[0], OUT[1]], [OUT[0], DECK]] {
        let mut hall = Hall::new(&places, &[retrieve()]);
        hall.live(10_000, &[]);
        assert_eq!(hall.held(), Some(Doubt::Twice), "{places:?}");
        assert!(!hall.is_touched(), "{:?}", hall.told);
    }
}

#[test]
fn what_had_not_begun_begins_wherever_its_load_is() {
    let mut hall = Hall::new(&[BAYS[2]], &[not_begun(OrderRequest::new(ID, LOAD, Stops::RETRIEVE))]);
    hall.live(1_000, &[]);
    assert!(hall.is_told(EventKind::OrderStarted(ID)), "{:?}", hall.told);
}

#[test]
fn what_waits_for_its_load_waits_for_the_rest_of_its_time() {
    let request = OrderRequest { wait_ms: 60_000, ..OrderRequest::new(ID, LOAD, Stops::STORE) };
    let mut hall = Hall::new(&[], &[Resume { age_ms: 40_000, ..not_begun(request) }]);
    hall.live(19_000, &[]);
    assert!(hall.controller.orders().by_id(ID).is_some());
    hall.live(2_000, &[]);
    assert!(hall.is_told(EventKind::OrderFailed(ID, OrderFault::NeverArrived)), "{:?}", hall.told);
}

#[test]
fn what_was_withdrawn_goes_on_being_withdrawn() {
    let mut hall = Hall::new(&[BAYS[0]], &[Resume { withdrawn: true, ..retrieve() }]);
    hall.live(1_000, &[]);
    assert!(hall.is_told(EventKind::OrderFailed(ID, OrderFault::Withdrawn)));
    assert!(!hall.is_touched());
}

#[test]
fn what_had_made_all_its_stops_is_done() {
    let hall = Hall::new(&[], &[Resume { stop: 1, ..retrieve() }]);
    assert_eq!(hall.told, [EventKind::OrderAdopted(ID, LOAD), EventKind::OrderCompleted(ID)]);
}

#[test]
fn what_cannot_be_taken_back_fails_with_the_reason() {
    let request = |id, load, stops| OrderRequest::new(OrderId(id), LoadId::new(load).unwrap(), stops);
    let orders = [
        request(1, 1, Stops::RETRIEVE),
        request(1, 2, Stops::RETRIEVE),
        request(2, 1, Stops::RETRIEVE),
        request(3, 3, Stops::process(7, 1)),
        request(FOUND | 4, 4, Stops::STORE),
        request(5, 5, Stops::STORE),
        request(6, 6, Stops::STORE),
        request(7, 7, Stops::STORE),
        request(8, 8, Stops::STORE),
    ];
    let hall = Hall::new(&[], &orders.map(not_begun));
    let failed: Vec<_> = hall
        .told
        .iter()
        .filter_map(|k| if let EventKind::OrderFailed(id, why) = k { Some((id.0, *why)) } else { None })
        .collect();
    let expected = [
        (1, OrderFault::DuplicateId),
        (2, OrderFault::LoadBusy),
        (3, OrderFault::NoStation),
        (FOUND | 4, OrderFault::DuplicateId),
        (8, OrderFault::TableFull),
    ];
    assert_eq!(failed, expected);
}

#[test]
fn a_place_that_is_gone_holds_the_order_until_a_person_decides() {
    let order = Resume { held: Some(Doubt::NoSuchPlace), at: None, to: None, ..retrieve() };
    let decided = |what| {
        let mut hall = Hall::new(&[BAYS[1]], &[order]);
        hall.live(20_000, &[]);
        assert_eq!((hall.held(), hall.is_touched()), (Some(Doubt::NoSuchPlace), false));
        hall.live(1_000, &[Request::Decide(OrderId(1), what), Request::Decide(ID, what)]);
        hall
    };
    let on = decided(Decision::GoOn);
    assert!(on.is_told(EventKind::OrderReleased(ID, Some(BAYS[1]))));
    assert!(on.is_told(EventKind::LegBegun { id: ID, from: BAYS[1], to: OUT[0] }), "{:?}", on.told);
    let done = decided(Decision::Done);
    assert!(done.is_told(EventKind::OrderCompleted(ID)) && !done.is_touched());
    let given_up = decided(Decision::GiveUp);
    assert!(given_up.is_told(EventKind::OrderFailed(ID, OrderFault::GivenUp)) && !given_up.is_touched());
}

#[test]
fn a_decision_on_an_order_that_is_not_held_means_nothing() {
    let mut hall = Hall::new(&[BAYS[0]], &[retrieve()]);
    hall.live(1_000, &[Request::Decide(ID, Decision::GiveUp)]);
    hall.live(100, &[Request::Decide(ID, Decision::Done)]);
    assert!(hall.controller.orders().by_id(ID).is_some());
}

#[test]
fn nothing_moves_before_the_plant_is_read() {
    let mut hall = Hall::new(&[BAYS[0]], &[retrieve()]);
    while hall.controller.run_state() != RunState::Running {
        assert!(!hall.is_touched() && hall.held().is_none());
        hall.live(10, &[]);
    }
}

#[test]
fn an_order_older_than_the_run_keeps_its_age_and_its_urgency() {
    let request = OrderRequest { class: 3, due_ms: 600_000, ..OrderRequest::new(ID, LOAD, Stops::RETRIEVE) };
    let (now, old) = (Millis(10), 500_000);
    let hall = Hall::new(&[], &[Resume { age_ms: old, ..not_begun(request) }]);
    let taken_back = hall.controller.orders().by_id(ID).unwrap();
    // The same order of a run that has lived on.
    let lived_on = Order::new(request, now);
    let later = now.plus(old);
    assert_eq!(taken_back.effective_class(now), lived_on.effective_class(later));
    assert_eq!(taken_back.urgency(now) >> 32, lived_on.urgency(later) >> 32);
    assert!(taken_back.urgency(now) < Order::new(OrderRequest { due_ms: 100_000, ..request }, now).urgency(now));
}
