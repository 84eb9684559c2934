//! Draws a picture for each kind of test: latency and rate by the number of concurrent tests.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::contestant::Contestant;
use super::report::{Cell, Report, Scenario};
use crate::Result;

const SIZE: (u32, u32) = (1100, 460);
/// Colours that colour-blind people can distinguish (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
];

/// One half of a picture.
struct Chart {
    title: &'static str,
    value: fn(&Cell) -> f64,
    legend: bool,
}

const CHARTS: [Chart; 2] = [
    Chart {
        title: "start to first answered query, median, ms",
        value: |cell| cell.answered.median,
        legend: false,
    },
    Chart { title: "databases a second", value: |cell| cell.per_second, legend: true },
];

/// Writes an SVG file into `directory` for each kind of test.
pub(crate) fn draw(report: &Report, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut kinds: Vec<Vec<Scenario>> = Vec::new();
    for scenario in report.scenarios() {
        match kinds.iter_mut().find(|kind| kind[0].name() == scenario.name()) {
            Some(kind) => kind.push(scenario),
            None => kinds.push(vec![scenario]),
        }
    }
    for kind in kinds {
        let name = kind[0].name();
        let file: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = directory.join(format!("{}.svg", file.replace("--", "-").to_lowercase()));
        picture(report, &kind, &path).map_err(|error| format!("draw {}: {error}", path.display()))?;
    }
    Ok(())
}

fn picture(report: &Report, kind: &[Scenario], path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.titled(&kind[0].name(), ("sans-serif", 22))?;
    let (charts, foot) = area.split_vertically(SIZE.1 - 75);
    let small = ("sans-serif", 12).into_font().color(&BLACK.mix(0.7));
    foot.draw(&Text::new(report.machine.line(), (12, 4), small.clone()))?;
    foot.draw(&Text::new(report.machine.command.clone(), (12, 20), small))?;
    for (area, half) in charts.split_evenly((1, CHARTS.len())).iter().zip(&CHARTS) {
        chart(report, kind, half, area)?;
    }
    Ok(area.present()?)
}

fn chart(
    report: &Report,
    kind: &[Scenario],
    chart: &Chart,
    area: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<()> {
    let line = |contestant: Contestant| -> Vec<(f64, f64)> {
        let cells = kind.iter().filter_map(|&scenario| report.cell(scenario, contestant));
        cells.map(|cell| (cell.scenario.at_once as f64, (chart.value)(cell))).collect()
    };
    let lines: Vec<_> =
        Contestant::ALL.into_iter().map(|contestant| (contestant, line(contestant))).collect();
    let points = || lines.iter().flat_map(|(_, line)| line);
    let (across, up) = (range(points().map(|point| point.0)), range(points().map(|point| point.1)));
    let mut context = ChartBuilder::on(area)
        .caption(chart.title, ("sans-serif", 15))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(across.log_scale().base(2.0), up.log_scale())?;
    let number = |value: &f64| if *value < 1.0 { format!("{value}") } else { format!("{value:.0}") };
    context
        .configure_mesh()
        .light_line_style(BLACK.mix(0.04))
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("concurrent tests")
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .draw()?;
    for ((contestant, line), colour) in lines.into_iter().zip(COLOURS) {
        if line.is_empty() {
            continue;
        }
        let width = if contestant == Contestant::Sandboxed { 4 } else { 2 };
        let style = colour.stroke_width(width);
        context
            .draw_series(LineSeries::new(line, style).point_size(3))?
            .label(contestant.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    if chart.legend {
        context
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleRight)
            .background_style(WHITE.mix(0.85))
            .label_font(("sans-serif", 12))
            .draw()?;
    }
    Ok(())
}

/// Returns the range from half the least to twice the greatest value.
fn range(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(0.0, f64::max);
    least / 2.0..greatest * 2.0
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::super::workload::{Access, Workload};
    use super::*;

    #[test]
    fn each_kind_of_test_has_a_picture() {
        let scenario = |workload, access, at_once| Scenario { workload, access, at_once };
        let report = report(&[
            (scenario(Workload::Empty, Access::Small, 1), Contestant::Sandboxed, 10.0),
            (scenario(Workload::Empty, Access::Small, 8), Contestant::Sandboxed, 30.0),
            (scenario(Workload::Empty, Access::Small, 8), Contestant::PgTemp, 500.0),
            (scenario(Workload::Large, Access::Large, 8), Contestant::Sandboxed, 50.0),
        ]);
        let directory = tempfile::tempdir().unwrap();
        draw(&report, directory.path()).unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["127-mb-the-large-table-read.svg", "empty-database.svg"]);
        let empty = std::fs::read_to_string(directory.path().join("empty-database.svg")).unwrap();
        for text in ["pgtemp", "sandboxed-db, on demand", "databases a second", &report.machine.command] {
            assert!(empty.contains(text), "{text}: {empty}");
        }
        assert!(!empty.contains("bubblewrap"), "{empty}");
    }
}
