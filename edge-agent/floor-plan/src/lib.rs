//! Reads a floor, proves what can be proven of it, and makes the tables the core works on.
//!
//! ```text
//!   floor file (TOML) ─┐                   ┌─> tables of zones, links, machines ─┐
//!   MovingAI map ──────┴─> FloorPlan ──────┼─> poses, ways, distances, guidance ─┼─> Floor (borrowed) ──> control-core
//!                                          └─> proof: blocks, regions, parts ────┘
//! ```
//!
//! Everything that takes memory or time is done here, once: the core asks for neither. [`Arena`] is the memory a core
//! lives in, [`image`] the process image as its keeper holds it, [`planviz`] the format in which others show what was driven.

pub mod arena;
pub mod bounds;
mod build;
pub mod file;
pub mod guidance;
pub mod image;
pub mod map;
pub mod near;
pub mod plan;
pub mod planviz;
pub mod proof;
pub mod tables;

pub use arena::Arena;
pub use build::sizes::PLACES_MAX;
pub use image::{InputBuffer, OutputBuffer};
pub use plan::{Closed, FloorPlan};
pub use proof::Proof;
pub use tables::RoadTables;
