//! Grids in the MovingAI format: `type octile`, `height`, `width`, `map`, then rows in which `.`, `G` and `S` can be gone on.

use std::fmt;

/// A grid: rows of cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    free: Vec<bool>,
}

/// What is wrong with a map, and in which line, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapError {
    /// The line.
    pub line: usize,
    /// What was found, and what was expected.
    pub what: String,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for MapError {}

impl Grid {
    /// Reads a map.
    pub fn parse(text: &str) -> Result<Grid, MapError> {
        let mut lines = text.lines().enumerate().map(|(n, l)| (n + 1, l.trim_end()));
        let (mut height, mut width) = (None, None);
        for (line, text) in lines.by_ref() {
            let mut words = text.split_whitespace();
            let number = |word: Option<&str>| {
                let found = word.unwrap_or("nothing");
                found.parse::<usize>().ok().filter(|n| (1..=65_536).contains(n)).ok_or_else(|| MapError {
                    line,
                    what: format!("found \"{found}\", expected a number of cells, 1 to 65536"),
                })
            };
            match words.next() {
                Some("type") | None => {}
                Some("height") => height = Some(number(words.next())?),
                Some("width") => width = Some(number(words.next())?),
                Some("map") => break,
                Some(other) => {
                    let what = format!("found \"{other}\", expected type, height, width or map");
                    return Err(MapError { line, what });
                }
            }
        }
        let missing = |what: &str| MapError { line: 1, what: format!("there is no {what} before the map") };
        let (height, width) = (height.ok_or_else(|| missing("height"))?, width.ok_or_else(|| missing("width"))?);
        let mut free = Vec::new();
        let mut rows = 0;
        for (line, text) in lines.take(height) {
            let cells = text.chars().count();
            if cells != width {
                return Err(MapError { line, what: format!("found {cells} cells, expected {width}") });
            }
            free.extend(text.chars().map(|c| matches!(c, '.' | 'G' | 'S')));
            rows += 1;
        }
        if rows != height {
            return Err(MapError { line: text.lines().count(), what: format!("found {rows} rows, expected {height}") });
        }
        Ok(Grid { height, width, free })
    }

    /// A grid of which `free` says which cells can be gone on.
    pub fn from_fn(height: usize, width: usize, mut free: impl FnMut(usize, usize) -> bool) -> Grid {
        let cells = (0..height * width).map(|n| free(n / width, n % width)).collect();
        Grid { height, width, free: cells }
    }

    /// Whether a cell can be gone on; beyond the edge none can.
    pub fn is_free(&self, row: usize, column: usize) -> bool {
        row < self.height && column < self.width && self.free[row * self.width + column]
    }

    /// All cells that can be gone on, row by row.
    pub fn cells(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.free.len()).filter(|n| self.free[*n]).map(|n| (n / self.width, n % self.width))
    }
}
