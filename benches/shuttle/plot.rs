//! Loads an hour over the size of the buffer, as SVG: free order, the sequence rule, first come.

use crate::model::{Order, Setting};
use crate::rack::{Rule, Storage};
use crate::run::rate;
use plotters::prelude::*;
use std::error::Error;

pub(crate) fn rate_over_buffer(file: &str, setting: &Setting, seed: u64) -> Result<(), Box<dyn Error>> {
    let bound = setting.bound();
    let sizes = [1usize, 2, 3, 4, 6];
    let line = |order: Order, rule: Rule| -> Vec<(f64, f64)> {
        let at = |n: &usize| Setting { buffer: *n, order, ..*setting };
        sizes.iter().map(|n| (*n as f64, rate(&at(n), rule, Storage::None, 20_000, seed).0)).collect()
    };
    let root = SVGBackend::new(file, (720, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.5f64..6.5, 0.0..bound * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("buffer places a tier")
        .y_desc("loads an hour")
        .draw()?;
    let lines = [
        ("free order", line(Order::Free, Rule::Core), RGBColor(20, 90, 180)),
        ("in sequence", line(Order::Strict, Rule::Core), RGBColor(200, 100, 20)),
        ("first come", line(Order::Free, Rule::FirstCome), RGBColor(140, 140, 140)),
        ("bound", vec![(0.5, bound), (6.5, bound)], RGBColor(60, 60, 60)),
    ];
    for (name, points, colour) in lines {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(3)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(TRANSPARENT)
        .draw()?;
    root.present()?;
    Ok(())
}
