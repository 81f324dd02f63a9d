//! The page as a browser shows it: Debian's Chromium without a window loads it, lets its program run, and gives back what stands there
//! then. Decides nothing about what it reads. The surprise: time is virtual in there; the page's seconds pass as soon as nothing is
//! waited for, so a look takes as long as the machine needs and no longer.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::missing::missing;

const PROGRAM: &str = "chromium";
/// How long a look may take in real time, in the words of timeout(1): much more than it needs.
const PATIENCE: &str = "90";
/// How long the page's program runs, in milliseconds of its own time: all it asks for at its start is there by then.
const RUNS_MS: u32 = 5_000;

/// Whether there is one; if not, the calling test is noted as skipped.
pub fn installed() -> bool {
    let found = Command::new(PROGRAM).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        missing("a browser (chromium)", "chromium");
    }
    found
}

/// What stands on the page at `url`, as markup; the browser's own files go into `directory`, which must not be there yet.
///
/// # Errors
/// The browser cannot be started, does not end in time, or ends badly.
pub fn look(url: &str, directory: &Path) -> Result<String> {
    let output = Command::new("timeout")
        .args(["--kill-after=5", PATIENCE, PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
        .args(["--no-first-run", "--disable-dev-shm-usage", "--window-size=1400,1000"])
        .arg(format!("--user-data-dir={}", directory.display()))
        .arg(format!("--virtual-time-budget={RUNS_MS}"))
        .args(["--dump-dom", url])
        .output()
        .context("the browser cannot be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the browser ended with {}\n{said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The text of markup as it reads: without tags, comments, styles and programs, one space where there is any.
#[must_use]
pub fn text(markup: &str) -> String {
    let mut text = String::new();
    let mut rest = markup;
    while let Some((before, from)) = rest.split_once('<') {
        text.push_str(before);
        let unread = ["script", "style"].into_iter().find(|name| from.starts_with(name));
        let (end, parts) = match (from.starts_with("!--"), unread) {
            (true, _) => ("-->", false),
            (false, Some("script")) => ("</script>", true),
            (false, Some(_)) => ("</style>", true),
            (false, None) => (">", true),
        };
        rest = from.split_once(end).map_or("", |(_, behind)| behind);
        if parts {
            text.push(' ');
        }
    }
    text.push_str(rest);
    let plain = text.replace("&nbsp;", " ").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The markup of the first element that carries this label (`aria-label`), up to where an element of the kind `tag` ends.
#[must_use]
pub fn labelled<'m>(markup: &'m str, label: &str, tag: &str) -> Option<&'m str> {
    let (_, from) = markup.split_once(&format!("aria-label=\"{label}\""))?;
    let (_, from) = from.split_once('>')?;
    from.split_once(&format!("</{tag}>")).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKUP: &str = "<head><style>p { a: b > c }</style><script>if (a < b) c()</script></head>\
                          <ul aria-label=\"Gaps\" class=\"x\"><li><b>eu/1</b> 2<!---->3&nbsp;results</li></ul><p>a &lt; b &amp; c";

    #[test]
    fn text_is_what_a_person_reads() {
        assert_eq!(text(MARKUP), "eu/1 23 results a < b & c");
        assert_eq!(text("no markup"), "no markup");
        assert_eq!(text("an end <that never comes"), "an end");
    }

    #[test]
    fn a_part_of_the_page_is_found_by_its_label() {
        assert_eq!(labelled(MARKUP, "Gaps", "ul").map(text).as_deref(), Some("eu/1 23 results"));
        assert_eq!(labelled(MARKUP, "Slots", "ul"), None);
    }
}
