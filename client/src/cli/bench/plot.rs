//! Pictures: lines over numbers, as SVG.

use std::ops::Range;

use anyhow::anyhow;
use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, ValueFormatter},
    },
    prelude::*,
};

use super::report::Report;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 420;
const LEGEND_WIDTH: u32 = 150;
/// Colours that can be told apart by everybody (Okabe and Ito). A series' line has one that nothing else in the picture
/// has.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A line.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over one axis.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) log_x: bool,
    pub(super) log_y: bool,
    pub(super) series: Vec<Series>,
}

/// A run's throughput, and below it its latencies, against the number of clients.
pub(super) fn of_report(report: &Report) -> anyhow::Result<String> {
    let points = |of: &dyn Fn(&super::report::RoundReport) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |round| of(round).map(|y| (f64::from(round.clients), y));
        let mut points: Vec<_> = report.medians.iter().filter_map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let latency = |name: &str, of: fn(&super::figures::LatencySummary) -> f64| Series {
        name: name.to_owned(),
        points: points(&|round| round.all.latency.as_ref().map(of)),
    };
    let chart = |title: String, y: &str, log_y, series| Chart {
        title,
        x: "clients".to_owned(),
        y: y.to_owned(),
        log_x: true,
        log_y,
        series,
    };
    let all = Series { name: "ops/s".to_owned(), points: points(&|round| Some(round.all.ops_per_s)) };
    let percentiles = vec![
        latency("p50", |l| l.p50_ms),
        latency("p90", |l| l.p90_ms),
        latency("p99", |l| l.p99_ms),
        latency("p99.9", |l| l.p999_ms),
    ];
    svg(&[
        chart(
            format!("craq bench {}: throughput", report.workload),
            "operations per second",
            false,
            vec![all],
        ),
        chart(format!("craq bench {}: latency", report.workload), "milliseconds", true, percentiles),
    ])
}

/// Draws charts below each other.
pub(super) fn svg(charts: &[Chart]) -> anyhow::Result<String> {
    let mut text = String::new();
    {
        let count = u32::try_from(charts.len())?;
        let area = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT * count)).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw: {error}");
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        for (part, chart) in area.split_evenly((charts.len(), 1)).iter().zip(charts) {
            let (left, right) = part.split_horizontally(WIDTH - LEGEND_WIDTH);
            draw(&left, chart).and_then(|()| legend(&right, chart)).map_err(|error| failed(&error))?;
        }
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw<'a>(area: &Area<'a>, chart: &Chart) -> Drawn<'a> {
    let all = || chart.series.iter().flat_map(|series| &series.points);
    let x = range(all().map(|point| point.0), chart.log_x);
    let y = range(all().map(|point| point.1), chart.log_y);
    let log = |range: Range<f64>| range.log_scale().base(2.0);
    match (chart.log_x, chart.log_y) {
        (true, true) => lines(area, chart, log(x), log(y)),
        (true, false) => lines(area, chart, log(x), y),
        (false, true) => lines(area, chart, x, log(y)),
        (false, false) => lines(area, chart, x, y),
    }
}

/// What an axis shows: all values, and never nothing. A linear one begins at zero.
fn range(values: impl Iterator<Item = f64>, is_log: bool) -> Range<f64> {
    let (least, most) =
        values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    if is_log {
        let least = if least.is_finite() && least > 0.0 { least } else { 0.5 };
        return least / 1.3..(most * 1.3).max(least * 2.0);
    }
    0.0..if most > 0.0 { most * 1.1 } else { 1.0 }
}

fn lines<'a, X, Y>(area: &Area<'a>, chart: &Chart, x: X, y: Y) -> Drawn<'a>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut context = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .max_light_lines(0)
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for (series, colour) in chart.series.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        context.draw_series(LineSeries::new(series.points.iter().copied(), style).point_size(3))?;
    }
    Ok(())
}

/// What the colours mean, beside the lines.
fn legend<'a>(area: &Area<'a>, chart: &Chart) -> Drawn<'a> {
    for ((series, colour), row) in chart.series.iter().zip(COLOURS.iter().cycle()).zip(0_i32..) {
        let y = 48 + 22 * row;
        area.draw(&Rectangle::new([(4, y - 2), (22, y + 2)], colour.filled()))?;
        area.draw(&Text::new(series.name.clone(), (28, y - 7), ("sans-serif", 14)))?;
    }
    Ok(())
}

/// A number with at most three digits after the point, as an axis has them.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lines of series a picture has: those in colours of series.
    fn lines_in(svg: &str) -> usize {
        let document = roxmltree::Document::parse(svg).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "svg");
        let colours = COLOURS.map(|RGBColor(r, g, b)| format!("#{r:02X}{g:02X}{b:02X}"));
        let is_line = |node: &roxmltree::Node<'_, '_>| {
            node.has_tag_name("polyline")
                && node.attribute("stroke").is_some_and(|s| colours.contains(&s.to_owned()))
        };
        document.descendants().filter(is_line).count()
    }

    fn chart(log: bool, series: &[&[(f64, f64)]]) -> Chart {
        let named = |(number, points): (usize, &&[(f64, f64)])| Series {
            name: format!("<{number}> & more"),
            points: points.to_vec(),
        };
        Chart {
            title: "a < b & c".to_owned(),
            x: "clients".to_owned(),
            y: "milliseconds".to_owned(),
            log_x: log,
            log_y: log,
            series: series.iter().enumerate().map(named).collect(),
        }
    }

    #[test]
    fn a_picture_is_xml_with_a_line_for_each_series() {
        let points: &[(f64, f64)] = &[(1.0, 0.2), (8.0, 0.5), (64.0, 4.0)];
        for log in [false, true] {
            let svg = svg(&[chart(log, &[points]), chart(log, &[points, points, points])]).unwrap();
            assert_eq!(lines_in(&svg), 4, "{svg}");
        }
    }

    #[test]
    fn one_point_none_and_zero_can_be_drawn() {
        for log in [false, true] {
            for points in [&[(1.0, 0.0)][..], &[], &[(0.0, 0.0)], &[(8.0, 1e9)]] {
                assert!(svg(&[chart(log, &[points])]).is_ok(), "{points:?}");
            }
        }
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!([0.0, 64.0, 0.125, 1_000.0, 2.5].map(short), ["0", "64", "0.125", "1000", "2.5"]);
    }
}
