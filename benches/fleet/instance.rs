//! A map with starts and tasks: from files, or drawn from a seed.

use crate::arguments::Arguments;
use control_core::traffic::roads::Place;
use floor_plan::map::Grid;
use floor_plan::{PLACES_MAX, RoadTables};
use plc_sim::floors;
use std::collections::BTreeMap;
use std::path::Path;

/// Rows of distances that are made at most, entries: half a gibibyte.
const TABLE_MAX: usize = 256 << 20;

/// What is played.
pub(crate) struct Instance {
    pub(crate) grid: Grid,
    /// The place of each cell, row by row.
    pub(crate) place_of: Vec<Option<Place>>,
    /// The cell of each place.
    pub(crate) cell_of: Vec<(usize, usize)>,
    pub(crate) starts: Vec<Place>,
    /// Goals by line of the task file.
    tasks: Vec<Place>,
    /// The row of distances of a place.
    goal_of: BTreeMap<Place, u16>,
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))
}

impl Instance {
    /// As the arguments say, for so many robots.
    pub(crate) fn read(arguments: &Arguments, robots: usize) -> Result<Instance, String> {
        let mut rng = fastrand::Rng::with_seed(arguments.number("--seed", 1));
        if let Some(file) = arguments.text("--problem") {
            return Instance::problem(Path::new(file), robots);
        }
        let grid = match arguments.text("--map") {
            Some(file) => Grid::parse(&read(Path::new(file))?).map_err(|e| format!("{file}: {e}"))?,
            None => drawn(arguments, &mut rng)?,
        };
        let mut instance = Instance::empty(grid)?;
        let agents = arguments.text("--agents");
        match agents {
            Some(file) if file.ends_with(".scen") => instance.scenario(Path::new(file), robots)?,
            Some(file) => {
                instance.starts = instance.cells(Path::new(file), |words, width| match words {
                    [_, row, column] => Some((*row, *column)),
                    [cell] => Some((cell / width, cell % width)),
                    _ => None,
                })?
            }
            None => {
                let mut all: Vec<Place> = (0..instance.cell_of.len() as Place).collect();
                rng.shuffle(&mut all);
                instance.starts = all;
            }
        }
        if instance.starts.len() < robots {
            return Err(format!("there are {} starts for {robots} robots", instance.starts.len()));
        }
        instance.starts.truncate(robots);
        if let Some(file) = arguments.text("--tasks") {
            instance.tasks = instance
                .cells(Path::new(file), |words, width| words.first().map(|cell| (cell / width, cell % width)))?;
        } else if instance.tasks.is_empty() {
            let count = instance.cell_of.len() as Place;
            instance.tasks = (0..160_000).map(|_| rng.u16(0..count)).collect();
        }
        Ok(instance)
    }

    fn empty(grid: Grid) -> Result<Instance, String> {
        let cells = grid.cells().count();
        if cells > PLACES_MAX {
            return Err(format!("this map has {cells} cells that can be gone on, expected at most {PLACES_MAX}"));
        }
        let (tables, place_of) = RoadTables::of_grid(&grid, false);
        let cell_of = grid.cells().take(tables.places).collect();
        Ok(Instance { grid, place_of, cell_of, starts: Vec::new(), tasks: Vec::new(), goal_of: BTreeMap::new() })
    }

    /// A League of Robot Runners problem: JSON that names its files, relative to itself.
    fn problem(file: &Path, robots: usize) -> Result<Instance, String> {
        let text: serde_json::Value =
            serde_json::from_str(&read(file)?).map_err(|e| format!("{}: {e}", file.display()))?;
        let beside = |key: &str| {
            let name = text[key].as_str().ok_or_else(|| format!("{}: there is no {key}", file.display()))?;
            Ok::<_, String>(file.parent().unwrap_or(Path::new(".")).join(name))
        };
        let map = beside("mapFile")?;
        let grid = Grid::parse(&read(&map)?).map_err(|e| format!("{}: {e}", map.display()))?;
        let mut instance = Instance::empty(grid)?;
        let first = |words: &[usize], width: usize| words.first().map(|cell| (cell / width, cell % width));
        // The first line of both is a count.
        instance.starts = instance.cells(&beside("agentFile")?, first)?;
        instance.tasks = instance.cells(&beside("taskFile")?, first)?;
        let team = text["teamSize"].as_u64().map_or(robots, |n| n as usize).min(instance.starts.len());
        instance.starts.truncate(team);
        Ok(instance)
    }

    /// A MovingAI scenario: columns bucket, map, width, height, x, y, goal x, goal y, length.
    fn scenario(&mut self, file: &Path, robots: usize) -> Result<(), String> {
        for (n, line) in read(file)?.lines().enumerate().skip(1).filter(|(_, l)| !l.trim().is_empty()) {
            let words: Vec<usize> = line.split_whitespace().skip(4).take(4).filter_map(|w| w.parse().ok()).collect();
            let [x, y, u, v] = words[..] else {
                return Err(format!("{} line {}: expected nine columns", file.display(), n + 1));
            };
            let place = |row: usize, column: usize| self.place(file, n + 1, row, column);
            let (start, goal) = (place(y, x)?, place(v, u)?);
            self.starts.push(start);
            self.tasks.push(goal);
        }
        // Robot r's only goal is line r.
        self.tasks.truncate(robots);
        Ok(())
    }

    fn place(&self, file: &Path, line: usize, row: usize, column: usize) -> Result<Place, String> {
        let inside = row < self.grid.height && column < self.grid.width;
        let place = inside.then(|| self.place_of[row * self.grid.width + column]).flatten();
        place.ok_or_else(|| {
            format!("{} line {line}: row {row}, column {column} is no cell that can be gone on", file.display())
        })
    }

    /// One cell a line; lines without numbers, and a count at the top, are passed over.
    fn cells(
        &self,
        file: &Path,
        cell: impl Fn(&[usize], usize) -> Option<(usize, usize)>,
    ) -> Result<Vec<Place>, String> {
        let text = read(file)?;
        let mut found = Vec::new();
        let lines = text.lines().count();
        for (n, line) in text.lines().enumerate() {
            let words: Vec<usize> = line.split(',').filter_map(|w| w.trim().parse().ok()).collect();
            let is_count = words.len() == 1 && found.is_empty() && words[0] <= lines && words[0] + 2 >= lines - n;
            if words.is_empty() || is_count {
                continue;
            }
            let (row, column) = cell(&words, self.grid.width)
                .ok_or_else(|| format!("{} line {}: found {line:?}, expected a cell", file.display(), n + 1))?;
            found.push(self.place(file, n + 1, row, column)?);
        }
        Ok(found)
    }

    /// The road map.
    pub(crate) fn tables(&self, turning: bool) -> RoadTables {
        RoadTables::of_grid(&self.grid, turning).0
    }

    /// The k-th goal of a robot.
    pub(crate) fn task(&self, robot: usize, k: usize) -> Place {
        self.tasks[(k * self.starts.len() + robot) % self.tasks.len()]
    }

    /// Every place that can become a goal in so many steps; remembers the row of each.
    pub(crate) fn goals(&mut self, steps: usize) -> Vec<Vec<Place>> {
        let robots = self.starts.len();
        let reachable = self.tasks.iter().take(robots.saturating_mul(steps + 2));
        let mut goals: Vec<Place> = reachable.copied().collect();
        goals.sort_unstable();
        goals.dedup();
        let poses = self.cell_of.len() * 4;
        if goals.len() * poses > TABLE_MAX {
            let most = TABLE_MAX / poses;
            crate::arguments::refuse(&format!("{} goals are too many for the tables of this map: {most}", goals.len()));
        }
        self.goal_of = (0u16..).zip(&goals).map(|(n, p)| (*p, n)).collect();
        goals.into_iter().map(|p| vec![p]).collect()
    }

    /// The row of distances of a place.
    pub(crate) fn goal(&self, place: Place) -> u16 {
        self.goal_of.get(&place).copied().unwrap_or(control_core::traffic::roads::NO_GOAL)
    }
}

/// A grid from the seed.
fn drawn(arguments: &Arguments, rng: &mut fastrand::Rng) -> Result<Grid, String> {
    let size = arguments.text("--size").unwrap_or("32x32");
    let (height, width) = size
        .split_once('x')
        .and_then(|(h, w)| Some((h.parse::<usize>().ok()?, w.parse::<usize>().ok()?)))
        .filter(|(h, w)| (2..=1024).contains(h) && (2..=1024).contains(w))
        .ok_or_else(|| format!("--size {size}: expected rows x columns, as in 32x32"))?;
    let grid = match arguments.text("--draw") {
        Some("random") | None => Grid::from_fn(height, width, |_, _| rng.f64() >= 0.2),
        Some("warehouse") => floors::warehouse(height / 3, width / 12, 10),
        // A tier of a rack for four-way shuttles: lanes between bays, cross lanes at the ends and in the middle.
        Some("rack") => Grid::from_fn(height, width, |r, c| r % 2 == 0 || c < 2 || c + 2 >= width || c == width / 2),
        Some(other) => return Err(format!("--draw {other}: expected random, warehouse or rack")),
    };
    Ok(floors::largest_part(&grid))
}
