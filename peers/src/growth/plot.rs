//! Lines over a logarithmic axis, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

/// A line: what it is, and its points.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What is shown.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) across: &'a str,
    pub(crate) up: &'a str,
    /// Of the logarithmic axis across.
    pub(crate) base: f64,
    pub(crate) lines: &'a [Line],
}

/// Told apart by shade as well as by hue.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 90, 160), RGBColor(215, 95, 0), RGBColor(0, 135, 95), RGBColor(120, 60, 140)];

impl Plot<'_> {
    /// The axis upwards begins at zero, so that what is flat looks flat and what doubles looks doubled.
    pub(crate) fn draw(&self, file: &Path) -> Result<(), Box<dyn Error>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        if points().next().is_none() {
            return Err(format!("{}: the machine was too busy to measure anything", self.title).into());
        }
        let left = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
        let right = points().map(|(x, _)| *x).fold(1.0, f64::max);
        // The names of the lines have their place above them.
        let top = 1.5 * points().map(|(_, y)| *y).fold(1.0, f64::max);
        let area = SVGBackend::new(file, (800, 450)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 20))
            .margin(14)
            .margin_right(28)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((left..right).log_scale().base(self.base), 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(self.across)
            .y_desc(self.up)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .label_style(("sans-serif", 14))
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .label_font(("sans-serif", 14))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// A figure in as few characters as tell it: 1000 is 1k.
pub(crate) fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e3 => format!("{}k", v / 1e3),
        v => format!("{v}"),
    }
}
