//! Colours. Pictures are drawn in inks, each a made-up colour that [`super::picture`] turns into a CSS class,
//! so that one picture serves light pages and dark ones.

use std::fmt::Write as _;

use maud::{Markup, html};
use plotters::style::RGBColor;

use crate::allocators::Role;
use crate::model::Report;

/// What a line or an area stands for, as the number in its CSS classes: `s3` strokes, `f3` fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ink(u8);

impl Ink {
    pub(super) const TEXT: Self = Self(0);
    /// Text that is not read first.
    pub(super) const FAINT: Self = Self(1);
    pub(super) const GRID: Self = Self(2);
    /// What is not an allocator's: live bytes, the floor.
    pub(super) const REFERENCE: Self = Self(3);
    /// The number of the first allocator.
    const FIRST: u8 = 8;

    /// Of the allocator at this index.
    pub(super) fn of(allocator: usize) -> Self {
        let room = usize::from(u8::MAX - Self::FIRST);
        // a remainder fits
        Self(Self::FIRST + u8::try_from(allocator % room).unwrap_or(0))
    }

    /// What the drawing crate is given.
    pub(super) const fn color(self) -> RGBColor {
        RGBColor(0, 0, self.0)
    }

    /// The ink's number, if a colour in an SVG attribute is one.
    pub(super) fn number(color: &str) -> Option<u8> {
        u8::from_str_radix(color.strip_prefix("#0000")?, 16).ok()
    }
}

/// One colour on light pages and on dark ones, and the dashes of its curves.
struct Shade {
    light: &'static str,
    dark: &'static str,
    dashes: &'static str,
}

const fn shade(light: &'static str, dark: &'static str, dashes: &'static str) -> Shade {
    Shade {
        light,
        dark,
        dashes,
    }
}

/// Vermillion, the strongest of Okabe and Ito's colours.
const OURS: Shade = shade("#d55e00", "#ff7f2a", "none");
const AGAIN: Shade = shade("#e5a883", "#9c5a33", "none");
const FLOOR: Shade = shade("#8a8a8a", "#8a8a8a", "none");

/// Okabe and Ito's colours without the two that vanish on one of the backgrounds, then muted ones of
/// Tol's; dashes tell the second half from the first.
const PEERS: [Shade; 10] = [
    shade("#0072b2", "#3d9be0", "none"),
    shade("#009e73", "#1fc79a", "none"),
    shade("#cc79a7", "#e59cc6", "none"),
    shade("#56b4e9", "#9ad8ff", "none"),
    shade("#e0a000", "#f2c14e", "none"),
    shade("#332288", "#9a8cff", "14 6"),
    shade("#8c8a1f", "#c6c455", "14 6"),
    shade("#882255", "#d0608f", "14 6"),
    shade("#2f8f85", "#7fd8c8", "4 5"),
    shade("#7a5230", "#bd9670", "4 5"),
];

/// The rules that give every allocator of the report its colour, and fade it when its box in the legend is
/// not checked.
pub(super) fn rules(report: &Report) -> String {
    let mut light = String::new();
    let mut dark = String::new();
    let mut rules = String::new();
    let mut peers = PEERS.iter().cycle();
    for (index, allocator) in report.allocators.iter().enumerate() {
        let shade = match allocator.role {
            Role::Ours => &OURS,
            Role::Again | Role::Variant => &AGAIN,
            Role::Floor => &FLOOR,
            Role::Peer => peers.next().unwrap_or(&FLOOR),
        };
        let Ink(number) = Ink::of(index);
        // writing to a string does not fail
        let _ = write!(light, "--c{number}:{};", shade.light);
        let _ = write!(dark, "--c{number}:{};", shade.dark);
        let _ = write!(
            rules,
            ".s{number}{{stroke:var(--c{number})}}.f{number}{{fill:var(--c{number})}}\
             #show{number}{{accent-color:var(--c{number})}}\
             body:has(#show{number}:not(:checked)) :is(.s{number},.f{number}){{opacity:.07}}"
        );
        if shade.dashes != "none" {
            let _ = write!(
                rules,
                ":is(.curves,.swatch) polyline.s{number}{{stroke-dasharray:{}}}",
                shade.dashes
            );
        }
    }
    format!(
        ":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n{rules}\n{}",
        include_str!("style.css")
    )
}

/// A piece of the allocator's line, dashed like it.
pub(super) fn swatch(allocator: usize) -> Markup {
    let class = format!("s{}", Ink::of(allocator).0);
    html! { svg.swatch viewBox="0 0 36 8" { polyline class=(class) points="0,4 36,4" { } } }
}

/// Of the box in the legend.
pub(super) fn box_id(allocator: usize) -> String {
    format!("show{}", Ink::of(allocator).0)
}

#[cfg(test)]
mod tests {
    use plotters::style::Color;

    use super::*;

    #[test]
    fn inks_survive_the_way_through_svg() {
        let mut seen = Vec::new();
        for ink in [Ink::TEXT, Ink::GRID, Ink::of(0), Ink::of(12), Ink::of(246)] {
            let (r, g, b) = ink.color().to_backend_color().rgb;
            assert_eq!(Ink::number(&format!("#{r:02X}{g:02X}{b:02X}")), Some(ink.0));
            assert!(!seen.contains(&ink), "{ink:?} twice");
            seen.push(ink);
        }
        assert_eq!(Ink::number("none"), None);
        assert_eq!(Ink::number("#FF0000"), None);
    }
}
