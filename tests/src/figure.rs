//! A measured figure on its way into `docs/proof.md`: a test that proves a claim says what it counted, `tests/proof.sh` writes it
//! into the claim's row. Decides nothing: a figure is never compared with anything here.
//!
//! Outside `make proof` nobody listens, and a figure goes to stderr only.

use std::fs::OpenOptions;
use std::io::Write;

/// Names the file that `tests/proof.sh` reads figures from.
pub const FIGURES_FILE: &str = "PERIGEE_FIGURES";

/// Reports `text` for the row of `claim` in `docs/proof.md` ("20 rounds, 61 204 results, 0 lost, 0 twice").
pub fn figure(claim: u8, text: &str) {
    let line = line(claim, text);
    // A figure that cannot be written is missing in the table, where it shows; it is no reason to fail a proof.
    let _ = writeln!(std::io::stderr(), "figure {}", line.trim_end());
    if let Some(path) = std::env::var_os(FIGURES_FILE)
        && let Ok(mut figures) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = figures.write_all(line.as_bytes());
    }
}

/// One line `claim<TAB>text`; what would break a row of the table is taken out.
fn line(claim: u8, text: &str) -> String {
    let text = text.replace(['|', '\t', '\n'], " ");
    format!("{claim}\t{}\n", text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_fits_into_one_row() {
        assert_eq!(line(4, "20 rounds |\n 0 lost "), "4\t20 rounds    0 lost\n");
    }
}
