//! Reads a floor, proves what can be proven of it, and makes the tables the core works on.

pub mod arena;
pub mod guidance;
pub mod map;
pub mod proof;
pub mod tables;

pub use arena::Arena;
pub use proof::Proof;
pub use tables::RoadTables;
