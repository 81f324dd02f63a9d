//! The report on disk: `[{row,unit,n,cpu_us_per_unit,rate,peer,ratio,rss_kib,commit}]`, replaced by rename, so that a reader
//! never sees half of it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Row;

/// Puts rows in place of those of the same names; others stay. A report that cannot be read is begun anew.
///
/// # Errors
/// The directory or the file cannot be written.
pub fn merge(path: &Path, rows: &[Row]) -> Result<()> {
    let old: Vec<Row> = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let mut all: Vec<&Row> = old.iter().filter(|old| rows.iter().all(|new| new.row != old.row)).collect();
    all.extend(rows);
    let directory = path.parent().context("a report lies in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let half = path.with_extension("json.new");
    fs::write(&half, serde_json::to_vec_pretty(&all)?).with_context(|| format!("cannot write {}", half.display()))?;
    fs::rename(&half, path).with_context(|| format!("cannot replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, n: u64) -> Row {
        Row {
            row: name.to_owned(),
            unit: "check".to_owned(),
            n,
            cpu_us_per_unit: 310.5,
            rate: 1.0,
            peer: None,
            ratio: None,
            rss_kib: 1,
            commit: "abc".to_owned(),
            figures: serde_json::Map::new(),
        }
    }

    #[test]
    fn rows_replace_their_own_kind_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bench/report.json");
        merge(&path, &[row("a", 1), row("b", 1)]).unwrap();
        merge(&path, &[row("b", 2), row("c", 2)]).unwrap();
        let read: Vec<Row> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, [row("a", 1), row("b", 2), row("c", 2)]);
    }
}
