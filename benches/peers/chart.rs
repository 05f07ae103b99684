//! The charts, as SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::paired::as_f64;
use crate::report::{Bar, Panel, Report, figure};
use crate::row::fleet::{OUTAGE, Outcome, seconds};

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const FAINT: RGBColor = RGBColor(0xbb, 0xbb, 0xbb);
const OURS: RGBColor = RGBColor(0x1b, 0x7f, 0x5c);
const THEIRS: RGBColor = RGBColor(0x8f, 0x9c, 0xa8);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const PANEL_WIDTH: i32 = 560;
const TITLE_HEIGHT: i32 = 46;
const BAR_HEIGHT: i32 = 24;
/// Where bars begin, behind their names.
const BAR_LEFT: i32 = 220;
/// The length of a bar as fast as the limit.
const LIMIT_LENGTH: f64 = 230.0;

/// Each panel: one load, a bar for each peer, as a part of what the bare pipelining loop does.
pub fn draw_bars(path: &Path, report: &Report) -> Result<(), String> {
    let rows: Vec<&[Panel]> = report.panels.chunks(2).collect();
    let height_of = |panels: &[Panel]| panels.iter().map(panel_height).max().unwrap_or(0);
    let height: i32 = rows.iter().map(|panels| height_of(panels)).sum();
    let size = (2 * PANEL_WIDTH.unsigned_abs(), (height + 40).max(60).unsigned_abs());
    let root = SVGBackend::new(path, size).into_drawing_area();
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        root.fill(&WHITE)?;
        let mut top = 30;
        let caption = "Messages per second, as a ratio to a bare raw-socket loop that pipelines (1 = the limit); lines: least and most of all rounds";
        write_text(&root, caption, (16, 14), 13, HPos::Left, &INK)?;
        for panels in rows {
            for (panel, left) in panels.iter().zip([0, PANEL_WIDTH]) {
                draw_panel(&root, panel, (left, top))?;
            }
            top += height_of(panels);
        }
        root.present()?;
        Ok(())
    };
    draw().map_err(|error| format!("{}: {error}", path.display()))
}

fn panel_height(panel: &Panel) -> i32 {
    TITLE_HEIGHT + BAR_HEIGHT * i32::try_from(panel.bars.len()).unwrap()
}

fn draw_panel(root: &Area<'_>, panel: &Panel, (left, top): (i32, i32)) -> Result<(), Box<dyn std::error::Error>> {
    write_text(root, &panel.title, (left + 16, top + 22), 15, HPos::Left, &INK)?;
    let bottom = top + panel_height(panel) - 6;
    let limit = left + BAR_LEFT + length(1.0);
    root.draw(&PathElement::new([(limit, top + TITLE_HEIGHT - 8), (limit, bottom)], FAINT))?;
    for (bar, place) in panel.bars.iter().zip(0..) {
        draw_bar(root, bar, (left + BAR_LEFT, top + TITLE_HEIGHT + place * BAR_HEIGHT))?;
    }
    Ok(())
}

fn draw_bar(root: &Area<'_>, bar: &Bar, (left, top): (i32, i32)) -> Result<(), Box<dyn std::error::Error>> {
    let middle = top + BAR_HEIGHT / 2 - 3;
    let colour = if bar.name == crate::client::Peer::Pool.name() { OURS } else { THEIRS };
    write_text(root, &bar.name, (left - 8, middle), 13, HPos::Right, &INK)?;
    let (least, most) = (left + length(bar.ratio.least), left + length(bar.ratio.most));
    let end = left + length(bar.ratio.median).max(1);
    root.draw(&Rectangle::new([(left, top), (end, top + BAR_HEIGHT - 7)], colour.filled()))?;
    root.draw(&PathElement::new([(least, middle), (most, middle)], INK))?;
    write_text(root, &figure(bar.ratio.median), (most.max(end) + 6, middle), 13, HPos::Left, &INK)?;
    Ok(())
}

/// Cut off where it would leave the panel.
fn length(ratio: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "cut off")]
    let length = (ratio.min(1.2) * LIMIT_LENGTH).round() as i32;
    length
}

fn write_text(
    root: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    side: HPos,
    colour: &RGBColor,
) -> Result<(), Box<dyn std::error::Error>> {
    let style = TextStyle::from((FONT, size).into_font()).color(colour).pos(Pos::new(side, VPos::Center));
    root.draw(&Text::new(text, at, style))?;
    Ok(())
}

/// The palette of Okabe and Ito, which most eyes can tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

/// Where lines end: everything is over by then.
const LAST_SECOND: usize = 600;

/// How long a stretch of time one point of a line stands for.
const STEP: usize = 5;

/// For each kind of outage: what the relay saw in each second, and who was back when.
pub fn draw_fleet(path: &Path, processes: usize, drawn: &[(String, Vec<Outcome>)]) -> Result<(), String> {
    let root = SVGBackend::new(path, (1120, 820)).into_drawing_area();
    let draw = || -> Result<(), Box<dyn std::error::Error>> {
        root.fill(&WHITE)?;
        let (upper, lower) = root.split_vertically(460);
        let columns = u32::try_from(drawn.len()).unwrap() as usize;
        for (area, (title, outcomes)) in upper.split_evenly((1, columns)).iter().zip(drawn) {
            draw_attempts(area, title, outcomes)?;
        }
        for (area, (_, outcomes)) in lower.split_evenly((1, columns)).iter().zip(drawn) {
            draw_returns(area, processes, outcomes)?;
        }
        root.present()?;
        Ok(())
    };
    draw().map_err(|error| format!("{}: {error}", path.display()))
}

fn draw_attempts(area: &Area<'_>, title: &str, outcomes: &[Outcome]) -> Result<(), Box<dyn std::error::Error>> {
    let most = outcomes.iter().flat_map(|outcome| &outcome.attempts).copied().max().unwrap_or(1);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 16))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..as_f64(LAST_SECOND), (0.8..as_f64(most) * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT.mix(0.4))
        .x_desc("seconds since the relay went down")
        .y_desc("attempts in the busiest second of five")
        .y_label_formatter(&|value| figure(*value))
        .draw()?;
    let end = OUTAGE.as_secs_f64();
    chart.draw_series([PathElement::new([(end, 0.8), (end, as_f64(most) * 2.0)], INK.mix(0.5))])?;
    for (outcome, colour) in outcomes.iter().zip(COLOURS) {
        let points = outcome.attempts[..LAST_SECOND].chunks(STEP).enumerate().map(|(place, chunk)| {
            let busiest = chunk.iter().copied().max().unwrap_or(0);
            (as_f64(place * STEP), as_f64(busiest).max(0.8))
        });
        let line = LineSeries::new(points, colour.stroke_width(2));
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        chart.draw_series(line)?.label(outcome.policy.name).legend(legend);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(FAINT)
        .label_font((FONT, 12))
        .draw()?;
    Ok(())
}

fn draw_returns(area: &Area<'_>, processes: usize, outcomes: &[Outcome]) -> Result<(), Box<dyn std::error::Error>> {
    let (start, end) = (OUTAGE.as_secs_f64() - 20.0, as_f64(LAST_SECOND));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(24)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(start..end, 0.0..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(FAINT.mix(0.4))
        .x_desc("seconds since the relay went down; it is back at 300")
        .y_desc("part of the processes that are back")
        .draw()?;
    for (outcome, colour) in outcomes.iter().zip(COLOURS) {
        let returns = &outcome.returns;
        let points = (seconds(OUTAGE)..=LAST_SECOND).map(|second| {
            let since = as_f64(second) - OUTAGE.as_secs_f64();
            let back = returns.partition_point(|after| after.as_secs_f64() <= since);
            (as_f64(second), as_f64(back) / as_f64(processes))
        });
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
    }
    Ok(())
}
