//! Figures as people read them, for sentences: `3 s`, `2 h 5 min`, `1.2 GB`.
//! English only; the page has its own words.

/// `3 s`, `4 min`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A size in powers of 1000: `512 B`, `1.2 kB`, `34 MB`.
pub fn bytes(count: f64) -> String {
    let (mut value, mut unit) = (count.max(0.0), "B");
    for larger in ["kB", "MB", "GB", "TB", "PB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    let digits = usize::from(unit != "B" && value < 10.0);
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown = [0.0, 512.0, 1_234.0, 34_400_000.0, 9_900_000_000.0, 2e18].map(bytes);
        assert_eq!(shown, ["0 B", "512 B", "1.2 kB", "34 MB", "9.9 GB", "2000 PB"]);
        let shown = [3, 250, 7_500, 273_600].map(duration);
        assert_eq!(shown, ["3 s", "4 min", "2 h 5 min", "3 d 4 h"]);
    }
}
