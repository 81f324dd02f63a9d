//! The command lines, and the comparison of each: whatever differs needs a row of `exempt` that covers it and still holds, and
//! every row must have been needed.

use std::collections::BTreeSet;

use tests::figure::figure;
use tests::nrpe::installed;

use crate::both::both;
use crate::exempt::{Covers, EXEMPTIONS, differences};
use crate::scene::Scene;

/// Daemon (`-`: none is named), words behind `-H` and `-p`.
const LINES: &[(&str, &str)] = &[
    // Answers.
    ("anonymous", ""),
    ("anonymous", "-c ok"),
    ("anonymous", "-c warn"),
    ("anonymous", "-c crit"),
    ("anonymous", "-c multi"),
    ("anonymous", "-c odd"),
    ("anonymous", "-c none"),
    ("anonymous", "-c latin1"),
    ("anonymous", "-c long"),
    ("anonymous", "-c long -2"),
    ("anonymous", "-c not-defined"),
    ("anonymous", "-3 -c ok"),
    ("anonymous", "-c ok -a x y"),
    ("anonymous", "-c ok;reboot"),
    ("anonymous", "-d 0 -c ok"),
    ("anonymous", "-d 1 -c ok"),
    ("anonymous", "-d 2 -c ok"),
    ("anonymous", "-S TLSv1.2 -c ok"),
    ("anonymous", "-S TLSv1.1+ -c ok"),
    ("anonymous", "-S SSLv3+ -c ok"),
    ("anonymous", "-S TLSv1.3 -c ok"),
    ("anonymous", "-L AECDH@SECLEVEL=0 -c ok"),
    ("anonymous", "-L ECDHE -c ok"),
    ("anonymous", "-L no-such-suite -c ok"),
    ("anonymous", "-A {ca} -c ok"),
    ("anonymous", "-n -c ok"),
    ("adh", "-c ok"),
    ("adh", "-L AECDH@SECLEVEL=0 -c ok"),
    ("old", "-c warn"),
    ("certificate", "-c ok"),
    ("certificate", "-A {ca} -c crit"),
    ("certificate", "-A {foreign} -c ok"),
    ("certificate", "-A {ca} -S TLSv1.2 -c warn"),
    ("client", "-A {ca} -C {cert} -K {key} -c ok"),
    ("client", "-A {ca} -S TLSv1.2 -c ok"),
    ("client", "-A {ca} -c ok"),
    ("TLS 1.0", "-c ok"),
    ("TLS 1.0", "-A {ca} -c ok"),
    ("unencrypted", "-c ok"),
    ("unencrypted", "-d 0 -c ok"),
    ("anonymous", "-C nocert.pem -K nokey.pem -c ok"),
    ("anonymous", "-A noca.pem -c ok"),
    ("plain", "-n -c multi"),
    ("plain", "-n -2 -c warn"),
    ("plain", "-n -3 -c ok"),
    ("plain", "-c ok"),
    ("plain", "-n -c ok -b 127.0.0.1"),
    ("plain", "-n -c ok -4 -E -D -s 0x3f"),
    ("plain", "--no-ssl --command=ok --timeout=10:UNKNOWN"),
    ("plain", "--no --comm ok --v2 --dis"),
    ("plain", "word -nc ok another"),
    ("plain", "-n -c ok -- -c warn"),
    // Other versions.
    ("2.x", "-n -c ok"),
    ("2.x", "-n -2 -c crit"),
    ("2.x", "-n -3 -c ok"),
    ("3.x", "-n -3 -c crit"),
    ("4.x", "-n -c ok"),
    ("4.x", "-n -c echo -a one two -n"),
    ("4.x", "-n -c echo!one!two"),
    ("4.x", "-n -c echo -aone two"),
    ("4.x", "-n -c echo --args=one two"),
    ("4.x", "-n -c 99"),
    ("4.x", "-n -c 300"),
    ("4.x", "-n -c minus"),
    ("4.x", "-n -c empty"),
    ("4.x", "-n -2 -c empty"),
    ("4.x", "-n -c {1100} -2"),
    ("4.x", "-n -c {2100}"),
    ("windows", "-n -c ok"),
    ("windows", "-n -2 -c crit"),
    ("wide", "-n -2 -P 2048 -c ok"),
    // No answers.
    ("nowhere", "-c ok"),
    ("nowhere", "-c ok -u"),
    ("nowhere", "-c ok -t 5:ok -E"),
    ("nowhere", "-b 127.0.0.1 -n"),
    ("nowhere", "-b 192.0.2.77 -n"),
    ("nowhere", "-b no-such-host.invalid -n"),
    ("nowhere", "-6"),
    ("nowhere", "-b ::1 -n"),
    ("-", "-H no-such-host.invalid -c ok"),
    ("-", "-H no-such-host.invalid -c ok -E -u"),
    ("-", "-4 -H ::1 -t 3:0"),
    ("-", "-H '' -c ok"),
    ("-", "-H '' -c ok -u"),
    ("-", "-H ::1 -p 1 -n"),
    ("hanging", "-n -t 1"),
    ("hanging", "-n -t 1:warning"),
    ("hanging", "-n -t 1:0:3"),
    ("hanging", "-t 1 -u"),
    ("hanging", "-u -t 1:2"),
    ("anonymous", "-c slow -t 1:3"),
    ("silent", "-n -c ok"),
    ("silent", "-n -3 -c ok -u"),
    ("silent", "-n -2 -c ok"),
    ("damaged", "-n -2"),
    ("version 9", "-n -2"),
    ("cut short", "-n"),
    ("one byte", "-n -2"),
    ("http", "-n"),
    ("http", "-c ok"),
    ("endless", "-n"),
    ("several", "-n"),
    // Options.
    ("plain", "-f plain.opt -c ok"),
    ("hanging", "-f impatient.opt -c ok"),
    ("hanging", "-f impatient.opt -c ok -t 2"),
    ("plain", "-f command.opt"),
    ("plain", "-f args.opt"),
    ("plain", "-f nested.opt -c ok"),
    ("plain", "-f empty.opt -n"),
    ("plain", "-f unknown.opt"),
    ("plain", "-f key.opt -C nocert.pem -c ok"),
    ("plain", "-f no-such.opt -n"),
    ("plain", "-n -c ok -t 5:bogus"),
    ("plain", "-n -c ok -t abc"),
    ("plain", "-n -c ok -t 0"),
    ("plain", "-n -c ok -t :WARNING"),
    ("plain", "-n -p 0"),
    ("plain", "-n -p 70000"),
    ("plain", "-n -d 3"),
    ("plain", "-n -S SSLv2"),
    ("plain", "-n -S TLSv1.2++"),
    ("plain", "-n -P 2048"),
    ("plain", "-n -2 -P -1"),
    ("plain", "-n -2 -3"),
    ("plain", "-n -C nocert.pem"),
    ("plain", "-n -K nokey.pem"),
    ("plain", "-n -c ''"),
    ("plain", "-n -x -Z"),
    ("plain", "-n --no-such-option=3"),
    ("plain", "-n --l"),
    ("plain", "-n --no-ssl=3"),
    ("plain", "-n -c"),
    ("plain", "-n --host"),
    ("-", ""),
    ("-", "-c ok"),
    ("-", "-h"),
    ("-", "-V"),
    ("-", "-l"),
    ("-", "--help --version"),
];

#[tokio::test(flavor = "multi_thread")]
async fn command_lines_do_what_check_nrpe_does() {
    if !installed() {
        return;
    }
    let scene = Scene::new().await;
    let mut needed = BTreeSet::new();
    let mut complaints = Vec::new();
    let mut equal = 0;
    for (daemon, line) in LINES {
        let words = scene.words(daemon, line);
        let both = both(&words, scene.directory.path());
        let differences = differences(&both);
        equal += usize::from(differences.is_empty());
        for part in differences {
            let covering: Vec<_> = EXEMPTIONS
                .iter()
                .filter(|row| row.covers(&words, &both) && row.parts.contains(&part) && (row.holds)(&both))
                .collect();
            if covering.is_empty() {
                complaints.push(format!("{daemon}: {line}: {part:?} differs: {both:#?}"));
            }
            needed.extend(covering.iter().map(|row| row.name));
        }
    }
    for row in EXEMPTIONS {
        if !matches!(row.covers, Covers::Shown) && !needed.contains(row.name) {
            complaints.push(format!("nothing needs the exemption {}", row.name));
        }
    }
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
    assert!(LINES.len() >= 60 && equal * 2 >= LINES.len(), "{equal} of {} are equal", LINES.len());
    figure(9, &format!("{} command lines with check_nrpe and check-nrpe, {equal} equal to the byte", LINES.len()));
}
