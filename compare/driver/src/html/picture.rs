//! SVG inside the page. Lengths are half a CSS pixel at the usual size, because plotters rounds to whole ones.

use std::io;

use maud::{Markup, PreEscaped};
use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::Ranged;
use plotters::element::{DynElement, PathElement};
use plotters::prelude::{
    DrawingArea, DrawingAreaErrorKind, EmptyElement, IntoDrawingArea, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, ShapeStyle, TextStyle};

use super::ink::Ink;

pub(super) type Canvas<'a> = SVGBackend<'a>;
pub(super) type Error = DrawingAreaErrorKind<io::Error>;
/// One of several shapes.
pub(super) type Shape<'a, C> = DynElement<'static, Canvas<'a>, C>;

/// Height of letters; the style sheet has the same.
pub(super) const LETTERS: u32 = 24;
/// Average width of a letter.
const LETTER: u32 = 13;
/// Room for words is no more than this, whatever the names: the rest of a picture needs some too.
const ROOM: u32 = 240;

/// A picture of this size that says `label` to those who cannot see it.
pub(super) fn draw(
    (width, height): (u32, u32),
    label: &str,
    paint: impl FnOnce(&DrawingArea<Canvas<'_>, Shift>) -> Result<(), Error>,
) -> Result<Markup, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        paint(&area)
            .and_then(|()| area.present())
            .map_err(|error| format!("the picture of {label}: {error}"))?;
    }
    let body = slim(&svg);
    Ok(maud::html! {
        svg.pic viewBox={ "0 0 " (width) " " (height) } role="img" aria-label=(label) { (PreEscaped(body)) }
    })
}

/// The width that the longest of these takes beside a chart.
pub(super) fn room<'a>(words: impl IntoIterator<Item = &'a str>) -> u32 {
    let longest = words.into_iter().map(|words| words.chars().count()).max();
    let width =
        u32::try_from(longest.unwrap_or(0)).map_or(ROOM, |letters| letters.saturating_mul(LETTER));
    width.saturating_add(16).min(ROOM)
}

pub(super) fn letters(ink: Ink, bold: bool) -> TextStyle<'static> {
    let style = if bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    ("sans-serif", LETTERS, style)
        .into_font()
        .color(&ink.color())
}

/// Writes beside a place of the chart: ends there, or begins.
pub(super) fn write<X, Y>(
    chart: &mut ChartContext<'_, Canvas<'_>, Cartesian2d<X, Y>>,
    place: (f64, f64),
    side: HPos,
    text: String,
    style: TextStyle<'_>,
) -> Result<(), Error>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let gap = match side {
        HPos::Right => -8,
        HPos::Left => 8,
        HPos::Center => 0,
    };
    let style = style.pos(Pos::new(side, VPos::Center));
    chart.draw_series([EmptyElement::at(place) + Text::new(text, (gap, 0), style)])?;
    Ok(())
}

pub(super) fn stroke(ink: Ink, width: u32) -> ShapeStyle {
    ink.color().stroke_width(width)
}

pub(super) fn fill(ink: Ink, alpha: f64) -> ShapeStyle {
    ink.color().mix(alpha).filled()
}

pub(super) fn line<C>(from: C, to: C, ink: Ink, width: u32) -> PathElement<C> {
    PathElement::new(vec![from, to], stroke(ink, width))
}

/// What is inside the `svg` tag, with classes for colours and without what the style sheet says.
fn slim(svg: &str) -> String {
    let mut out = String::with_capacity(svg.len() / 2);
    // neither text nor attributes contain a bare < or >
    for piece in svg.split('<').skip(1) {
        let Some((tag, text)) = piece.split_once('>') else {
            continue;
        };
        let name = tag.split(' ').next().unwrap_or(tag);
        if matches!(name, "svg" | "/svg") {
            continue;
        }
        out.push('<');
        if tag.starts_with('/') {
            out.push_str(tag);
        } else {
            out.push_str(name);
            attributes(tag, &mut out);
            out.push_str(if tag.ends_with('/') { "/" } else { "" });
        }
        out.push('>');
        out.push_str(text.trim());
    }
    out
}

fn attributes(tag: &str, out: &mut String) {
    let mut pieces = tag.split('"');
    while let (Some(key), Some(value)) = (pieces.next(), pieces.next()) {
        let key = key.rsplit(' ').next().unwrap_or(key).trim_end_matches('=');
        let (key, value) = match (key, Ink::number(value)) {
            ("fill", Some(number)) => ("class", format!("f{number}")),
            ("stroke", Some(number)) => ("class", format!("s{number}")),
            ("fill" | "stroke", None) | ("font-family" | "font-size", _) => continue,
            ("opacity" | "stroke-width", _) if value == "1" => continue,
            _ => (key, value.trim().to_owned()),
        };
        for part in [" ", key, "=\"", &value, "\""] {
            out.push_str(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes() {
        let svg = "<svg width=\"9\">\n<line opacity=\"1\" stroke=\"#000008\" stroke-width=\"2\" x1=\"3\"/>\n\
            <text x=\"1\" font-family=\"sans-serif\" font-size=\"8.1\" fill=\"#000000\">\na &lt; b\n</text>\n</svg>\n";
        assert_eq!(
            slim(svg),
            "<line class=\"s8\" stroke-width=\"2\" x1=\"3\"/><text x=\"1\" class=\"f0\">a &lt; b</text>"
        );
    }
}
