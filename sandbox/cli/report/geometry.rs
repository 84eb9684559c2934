//! The geometry of pictures: sizes in pixels, the time scale, shapes.

/// The width of a picture, which is scaled to the page.
pub(super) const WIDTH: f64 = 1200.0;
pub(super) const LEFT: f64 = 48.0;
/// The width of the plot, between the margins.
pub(super) const PLOT: f64 = WIDTH - LEFT - 16.0;
/// The minimum width of a shape: a narrower one would be invisible.
pub(super) const NARROWEST: f64 = 0.3;

/// Maps times to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) span: u64,
}

impl Scale {
    pub(super) fn x(self, time: u64) -> f64 {
        LEFT + time as f64 / self.span as f64 * PLOT
    }
}

/// Returns the gap between lanes of that height.
pub(super) fn gap(height: f64) -> f64 {
    (height / 8.0).clamp(0.4, 2.0)
}

/// Returns the path of a rectangle.
pub(super) fn rectangle(x: f64, y: f64, width: f64, height: f64) -> String {
    let (width, height) = (px(width.max(NARROWEST)), px(height));
    format!("M{} {}h{width}v{height}h-{width}z", px(x), px(y))
}

/// Formats a length in pixels, to the tenth.
pub(super) fn px(length: f64) -> String {
    let text = format!("{length:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}
