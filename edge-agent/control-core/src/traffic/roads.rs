//! The road map as tables: which pose follows from which, and how far every pose is from every goal.
//!
//! A **place** holds one vehicle. A **pose** is a place with a heading; a vehicle that needs no time to turn has one pose a
//! place. From a pose at most four others can be reached in one step. With headings these are: forward, turned to the
//! right, turned to the left. Without: the places next to it.
//!
//! ```text
//!      pose 8 (place 2, east)
//!        forward ─> pose 12 (place 3, east)
//!        right   ─> pose 9  (place 2, south)        a place next to a wall has its headings too:
//!        left    ─> pose 11 (place 2, north)        forward leads to none there
//! ```
//!
//! The tables are made outside, when the floor is loaded or a road is closed, and handed in with every call.

/// A place; at most 65,535 of them.
pub type Place = u16;
/// A place with a heading.
pub type Pose = u32;
/// A set of places with a table of distances.
pub type Goal = u16;

/// A part of the floor that is entered with a pass only.
pub type Region = u16;

/// No region: anybody may be there.
pub const OPEN: Region = Region::MAX;
/// No place.
pub const NO_PLACE: Place = Place::MAX;
/// No pose: the action is not possible.
pub const NO_POSE: Pose = Pose::MAX;
/// No goal: the vehicle has nothing to do.
pub const NO_GOAL: Goal = Goal::MAX;
/// A distance that cannot be gone.
pub const FAR: u16 = u16::MAX;
/// Poses that one pose leads to.
pub const WAYS: usize = 4;

/// The road map, borrowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roads<'f> {
    next: &'f [[Pose; WAYS]],
    place: &'f [Place],
    distance: &'f [u16],
    places: usize,
    first_pose: &'f [Pose],
    beside_start: &'f [u32],
    beside: &'f [Place],
    near_start: &'f [u32],
    near: &'f [Place],
    region: &'f [Region],
    capacity: &'f [u16],
    unit: u16,
    shortest_ms: u16,
}

impl<'f> Roads<'f> {
    /// Tables that fit together: `place` as long as `next`, `distance` a row of that length for each goal.
    pub fn new(places: usize, next: &'f [[Pose; WAYS]], place: &'f [Place], distance: &'f [u16]) -> Roads<'f> {
        Roads { next, place, distance, places, ..Roads::default() }
    }

    /// The same roads with what is known of places: the first pose of each and, as one more, the number of poses; and the
    /// places next to each, from `beside_start[place]` to `beside_start[place + 1]`.
    pub fn with_places(self, first_pose: &'f [Pose], beside_start: &'f [u32], beside: &'f [Place]) -> Roads<'f> {
        Roads { first_pose, beside_start, beside, ..self }
    }

    /// The same roads where vehicles at some places are in each other's way: `near` holds for each place the others, from
    /// `near_start[place]` to `near_start[place + 1]`.
    pub fn with_near(self, near_start: &'f [u32], near: &'f [Place]) -> Roads<'f> {
        Roads { near_start, near, ..self }
    }

    /// The same roads where some places are in regions, which a vehicle enters with a pass only; and how many may be in each.
    pub fn with_regions(self, region: &'f [Region], capacity: &'f [u16]) -> Roads<'f> {
        Roads { region, capacity, ..self }
    }

    /// The same roads, where distances count so much for a plain step.
    pub fn with_unit(self, unit: u16) -> Roads<'f> {
        Roads { unit, ..self }
    }

    /// The same roads, of which the fastest vehicle drives along the shortest in so many milliseconds.
    pub fn with_shortest(self, shortest_ms: u16) -> Roads<'f> {
        Roads { shortest_ms, ..self }
    }

    /// What the fastest vehicle takes at least from one place to another, milliseconds; where nobody has said so, next to nothing.
    pub fn shortest_ms(&self) -> u64 {
        u64::from(self.shortest_ms.max(1))
    }

    /// What a plain step counts in distances.
    pub fn unit(&self) -> u16 {
        self.unit.max(1)
    }

    /// How many vehicles may be in each region.
    pub fn capacities(&self) -> &'f [u16] {
        self.capacity
    }

    /// Number of places.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Number of poses.
    pub fn poses(&self) -> usize {
        self.next.len()
    }

    /// Number of goals.
    pub fn goals(&self) -> usize {
        self.distance.len().checked_div(self.poses()).unwrap_or(0)
    }

    /// The pose that a way leads to, or [`NO_POSE`].
    pub fn after(&self, pose: Pose, way: usize) -> Pose {
        self.next.get(pose as usize).and_then(|ways| ways.get(way)).copied().unwrap_or(NO_POSE)
    }

    /// The place of a pose, or [`NO_PLACE`].
    pub fn place(&self, pose: Pose) -> Place {
        self.place.get(pose as usize).copied().unwrap_or(NO_PLACE)
    }

    /// Places that can be reached from one in one move.
    pub fn beside(&self, place: Place) -> &'f [Place] {
        row(self.beside_start, self.beside, place)
    }

    /// The poses of a place.
    pub fn poses_of(&self, place: Place) -> core::ops::Range<Pose> {
        let n = usize::from(place);
        match (self.first_pose.get(n), self.first_pose.get(n + 1)) {
            (Some(from), Some(to)) => *from..*to,
            _ => 0..0,
        }
    }

    /// The pose in which a vehicle comes from one place to the next, or [`NO_POSE`].
    pub fn arriving(&self, from: Place, to: Place) -> Pose {
        let ways = self.poses_of(from).flat_map(|pose| self.next.get(pose as usize).into_iter().flatten().copied());
        ways.into_iter().find(|pose| *pose != NO_POSE && self.place(*pose) == to).unwrap_or(NO_POSE)
    }

    /// How far a place is from a goal, in the best of its poses.
    pub fn from_place(&self, goal: Goal, place: Place) -> u16 {
        self.poses_of(place).map(|pose| self.distance(goal, pose)).min().unwrap_or(FAR)
    }

    /// Places at which nobody may be while somebody is at this one. Most floors have none.
    pub fn near(&self, place: Place) -> &'f [Place] {
        row(self.near_start, self.near, place)
    }

    /// The region of a place, or [`OPEN`].
    pub fn region(&self, place: Place) -> Region {
        self.region.get(usize::from(place)).copied().unwrap_or(OPEN)
    }

    /// The distances of every pose to a goal; empty for [`NO_GOAL`].
    pub fn distances(&self, goal: Goal) -> &'f [u16] {
        let from = usize::from(goal) * self.poses();
        self.distance.get(from..from + self.poses()).unwrap_or_default()
    }

    /// How far a pose is from a goal: 0 at it, [`FAR`] when it cannot be reached.
    pub fn distance(&self, goal: Goal, pose: Pose) -> u16 {
        self.distances(goal).get(pose as usize).copied().unwrap_or(FAR)
    }
}

fn row<'f>(start: &'f [u32], list: &'f [Place], place: Place) -> &'f [Place] {
    let n = usize::from(place);
    let (Some(from), Some(to)) = (start.get(n), start.get(n + 1)) else { return &[] };
    list.get(*from as usize..*to as usize).unwrap_or_default()
}
