//! Tasks a step over robots, as SVG, beside what is published of others on the same instance.

use crate::Mode;
use plotters::prelude::*;
use std::error::Error;

/// PIBT, causal PIBT and EPIBT of depth 3 on random-32-32-20 with turning, 1000 steps.
const OTHERS: [(&str, [(usize, f64); 4]); 3] = [
    ("PIBT", [(100, 1.59), (200, 0.67), (300, 0.68), (400, 0.41)]),
    ("causal PIBT", [(100, 1.99), (200, 1.91), (300, 1.79), (400, 1.81)]),
    ("EPIBT", [(100, 2.788), (200, 3.823), (300, 3.655), (400, 3.349)]),
];

pub(crate) fn tasks_over_robots(file: &str, mode: Mode, points: &[(usize, f64)]) -> Result<(), Box<dyn Error>> {
    let most = points.iter().map(|p| p.1).fold(4.0, f64::max) * 1.1;
    let last = points.iter().map(|p| p.0).max().unwrap_or(400).max(400);
    let root = SVGBackend::new(file, (720, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(0..last, 0.0..most)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("robots on 819 places")
        .y_desc("tasks finished a step")
        .draw()?;
    let grey = [RGBColor(190, 190, 190), RGBColor(140, 140, 140), RGBColor(90, 90, 90)];
    for ((name, line), colour) in OTHERS.iter().zip(grey) {
        chart
            .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let blue = RGBColor(20, 90, 180);
    chart
        .draw_series(LineSeries::new(points.iter().copied(), blue.stroke_width(3)))?
        .label(format!("Lightsout, {}", mode.name()))
        .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], blue.stroke_width(3)));
    chart.draw_series(points.iter().map(|p| Circle::new(*p, 4, blue.filled())))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(TRANSPARENT)
        .draw()?;
    root.present()?;
    Ok(())
}
