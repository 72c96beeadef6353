//! The plots, as SVG: connections per worker, latency over percentiles, rates with their scatter.

use super::Report;
use super::figures::whole;
use crate::bench::record::Run;
use crate::bench::summary::Summary;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;

/// Colours that people can distinguish whatever their colour vision (M. Okabe, K. Ito: Color Universal Design, 2008).
///
/// Three darker ones follow for the rare report with more than seven subjects.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(120, 70, 30),
    RGBColor(140, 140, 0),
    RGBColor(100, 30, 110),
];
const WIDTH: u32 = 760;
const FONT: &str = "sans-serif";
/// Panels side by side.
const ACROSS: usize = 3;
const GREY: RGBColor = RGBColor(110, 110, 110);

/// A plot with its name and title.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Name of its file, without the extension.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// The image.
    pub svg: String,
}

type Drawn = Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// All plots that have something to show.
///
/// # Errors
/// Those of the drawing library, which draws into memory.
pub fn plots(report: &Report) -> Result<Vec<Plot>, Box<dyn Error>> {
    let told: Vec<&Summary> = report.summaries.iter().filter(|s| !s.per_worker.is_empty()).collect();
    let mut plots = Vec::new();
    if !told.is_empty() {
        let rows = told.len().div_ceil(ACROSS) as u32;
        let title = "Connections per worker; the line is the equal share";
        plots.push(plot("workers", title, 60 + 210 * rows, |area| workers(area, report, &told))?);
    }
    if report.summaries.iter().any(|s| s.curve.len() > 1) {
        plots.push(plot("latency", "Time to an answer", 420, |area| latency(area, report))?);
    }
    if !report.summaries.is_empty() {
        let height = 90 + 46 * report.summaries.len() as u32;
        let title = "Connections a second; bar: median, dots: single runs";
        plots.push(plot("rate", title, height, |area| rate(area, report))?);
    }
    Ok(plots)
}

fn plot(
    name: &'static str,
    title: &'static str,
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Drawn,
) -> Result<Plot, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area.titled(title, (FONT, 19))?)?;
        area.present()?;
    }
    Ok(Plot { name, title, svg })
}

fn colour(report: &Report, subject: &str) -> RGBColor {
    let index = report.summaries.iter().position(|s| s.subject == subject).unwrap_or(0);
    COLOURS[index % COLOURS.len()]
}

/// One panel for each subject, all on the same scale.
fn workers(area: &Area<'_>, report: &Report, told: &[&Summary]) -> Drawn {
    let most = told.iter().flat_map(|s| &s.per_worker).copied().max().unwrap_or(1).max(1) as f64;
    let across = told.len().min(ACROSS);
    let panels = area.split_evenly((told.len().div_ceil(ACROSS), across));
    for (panel, summary) in panels.iter().zip(told) {
        let counts = &summary.per_worker;
        let caption = match summary.spread {
            Some(spread) => format!("{} (Jain {:.3})", summary.subject, spread.jain),
            None => summary.subject.clone(),
        };
        let mut chart = ChartBuilder::on(panel)
            .caption(caption, (FONT, 16))
            .margin_right(14)
            .x_label_area_size(24)
            .y_label_area_size(62)
            .build_cartesian_2d(-0.5..counts.len() as f64 - 0.5, 0.0..most * 1.08)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(GREY)
            .x_labels(counts.len().min(16))
            .x_label_formatter(&|x| if x.fract().abs() < 1e-6 { format!("{x:.0}") } else { String::new() })
            .y_labels(5)
            .y_label_formatter(&|y| whole(*y))
            .label_style((FONT, 14))
            .draw()?;
        let fill = colour(report, &summary.subject).filled();
        chart.draw_series(counts.iter().enumerate().map(|(slot, &count)| {
            let x = slot as f64;
            Rectangle::new([(x - 0.4, 0.0), (x + 0.4, count as f64)], fill)
        }))?;
        let share = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        chart
            .draw_series(LineSeries::new([(-0.5, share), (counts.len() as f64 - 0.5, share)], BLACK.stroke_width(1)))?;
    }
    Ok(())
}

/// Latency over "one in N takes longer", both logarithmic, the usual form for HDR histograms.
fn latency(area: &Area<'_>, report: &Report) -> Drawn {
    let one_in = |percentile: f64| 1.0 / (1.0 - percentile / 100.0).max(1e-9);
    let curves: Vec<(&Summary, Vec<(f64, f64)>)> = report
        .summaries
        .iter()
        .filter(|s| s.curve.len() > 1)
        .map(|s| (s, s.curve.iter().map(|&(p, us)| (one_in(p), us.max(1) as f64 / 1e3)).collect()))
        .collect();
    let points = || curves.iter().flat_map(|(_, curve)| curve);
    let last = points().map(|p| p.0).fold(10.0, f64::max);
    let low = points().map(|p| p.1).fold(f64::MAX, f64::min);
    let high = points().map(|p| p.1).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(34)
        .x_label_area_size(46)
        .y_label_area_size(84)
        .build_cartesian_2d((1.0..last).log_scale(), (low * 0.8..high * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(GREY)
        .x_desc("percentile")
        .x_label_formatter(&|x| percentile(*x))
        .y_desc("milliseconds")
        .y_label_formatter(&|y| if *y >= 1.0 { whole(*y) } else { format!("{y}") })
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 15))
        .draw()?;
    for (summary, curve) in &curves {
        let line = colour(report, &summary.subject);
        chart
            .draw_series(LineSeries::new(curve.iter().copied(), line.stroke_width(2)))?
            .label(summary.subject.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(GREY.mix(0.4))
        .label_font((FONT, 15))
        .draw()?;
    Ok(())
}

/// "One in 100 takes longer" is the 99th percentile.
fn percentile(one_in: f64) -> String {
    let digits = (one_in.log10().round() as i32 - 2).max(0) as usize;
    format!("{:.digits$}%", 100.0 * (1.0 - 1.0 / one_in))
}

/// One line for each subject.
fn rate(area: &Area<'_>, report: &Report) -> Drawn {
    let summaries = &report.summaries;
    let most = summaries.iter().map(|s| s.connections_per_s.max).fold(1.0, f64::max);
    let longest = summaries.iter().map(|s| s.subject.chars().count()).max().unwrap_or(0) as u32;
    let count = summaries.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size((longest * 8 + 16).clamp(60, WIDTH / 2))
        .build_cartesian_2d(0.0..most * 1.12, -0.5..count - 0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .axis_style(GREY)
        .x_labels(6)
        .x_label_formatter(&|x| whole(*x))
        .y_labels(summaries.len())
        .y_label_formatter(&|y| named(summaries, *y))
        .label_style((FONT, 15))
        .draw()?;
    for (index, summary) in summaries.iter().enumerate() {
        // The first one is at the top.
        let y = count - 1.0 - index as f64;
        let rate = &summary.connections_per_s;
        let bar = colour(report, &summary.subject);
        chart.draw_series([Rectangle::new([(0.0, y - 0.32), (rate.median, y + 0.32)], bar.mix(0.75).filled())])?;
        chart.draw_series(LineSeries::new([(rate.min, y), (rate.max, y)], BLACK.stroke_width(1)))?;
        let runs = report.runs.iter().filter(|run: &&Run| run.subject == summary.subject && run.invalid.is_empty());
        chart.draw_series(runs.map(|run| Circle::new((run.connections_per_s, y), 3, BLACK.filled())))?;
        let number = whole(rate.median);
        let style = (FONT, 14).into_font().color(&WHITE);
        chart.draw_series([Text::new(number, (most * 0.01, y + 0.12), style)])?;
    }
    Ok(())
}

fn named(summaries: &[Summary], y: f64) -> String {
    let index = summaries.len() as f64 - 1.0 - y;
    let named = (index.fract().abs() < 1e-6).then(|| summaries.get(index as usize)).flatten();
    named.map(|summary| summary.subject.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_a_percentile() {
        assert_eq!([1.0, 10.0, 100.0, 1000.0, 1e5].map(percentile), ["0%", "90%", "99%", "99.9%", "99.999%"]);
    }
}
