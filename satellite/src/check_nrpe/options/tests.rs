//! Command lines as check_nrpe's `getopt_long` reads them, and the file of options.

use super::*;

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').filter(|word| !word.is_empty()).map(|word| word.as_bytes().to_vec()).collect()
}

fn parsed(line: &str) -> Options {
    parse("check_nrpe", &words(line)).and_then(Options::checked).unwrap_or_else(|misuse| panic!("{line}: {misuse:?}"))
}

fn wrong(line: &str) -> Misuse {
    match parse("check_nrpe", &words(line)).and_then(Options::checked) {
        Ok(options) => panic!("{line}: {options:?}"),
        Err(misuse) => misuse,
    }
}

fn arguments(options: &Options) -> Vec<String> {
    options.arguments.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[test]
fn everything_behind_a_is_an_argument() {
    let options = parsed("-H h -c x -a -w 5 -n --help -- y");
    assert_eq!(arguments(&options), ["-w", "5", "-n", "--help", "--", "y"]);
    assert_eq!((options.plain, options.teach), (false, None));
    assert!(wrong("-a 1 -H h -c x").reason.contains("-H HOST"), "-a was first");
}

#[test]
fn a_value_may_be_written_onto_its_option() {
    let options = parsed("-Hh -p5667 -cx -t10:3 -nax y");
    assert_eq!((options.host.as_deref(), options.port, options.seconds), (Some("h"), Some(5667), Some(10)));
    assert_eq!(arguments(&options), ["x", "y"], "check_nrpe would have sent -nax");
    let options = parsed("--host=h --args=x y");
    assert_eq!((options.host.as_deref(), arguments(&options)), (Some("h"), vec!["x".to_owned(), "y".to_owned()]));
}

#[test]
fn words_of_no_option_are_skipped() {
    let options = parsed("one -H h two - -c x three");
    assert_eq!((options.host.as_deref(), options.command.as_deref()), (Some("h"), Some(&b"x"[..])));
    assert_eq!(parsed("-H h -- -H other").host.as_deref(), Some("h"));
}

#[test]
fn long_words_may_be_cut_short() {
    let options = parsed("--ho h --no --v2 --st --dis --unk");
    assert!(options.plain && options.errors_to_stdout && options.version == Some(Version::V2));
    assert_eq!(options.on_failure, Some(State::Unknown));
    for (word, complaint) in [
        ("--l", "check_nrpe: option '--l' is ambiguous; possibilities: '--log-file' '--license'"),
        ("--ip=3", "check_nrpe: option '--ip=3' is ambiguous; possibilities: '--ipv4' '--ipv6'"),
        ("--foo=3", "check_nrpe: unrecognized option '--foo=3'"),
        ("--expl", "check_nrpe: unrecognized option '--expl'"),
        ("--no-ssl=3", "check_nrpe: option '--no-ssl' doesn't allow an argument"),
        ("--ho", "check_nrpe: option '--host' requires an argument"),
        ("-c", "check_nrpe: option requires an argument -- 'c'"),
        ("-nx", "check_nrpe: invalid option -- 'x'"),
        ("-:", "check_nrpe: invalid option -- ':'"),
        ("-a", "check_nrpe: option requires an argument -- 'a'"),
    ] {
        assert_eq!(wrong(&format!("-H h {word}")).complaints, [complaint], "{word}");
    }
    assert_eq!(wrong("-x -y -H").complaints.len(), 3);
    assert_eq!(wrong("-x -p 0").reason, "-p 0: a port is a number from 1 to 65535");
}

#[test]
fn timeouts_have_a_state() {
    let timeout = |value: &str| {
        let options = parse("check_nrpe", &[b"-H".to_vec(), b"h".to_vec(), b"-t".to_vec(), value.as_bytes().to_vec()]);
        options
            .map(|options| (options.seconds, options.on_failure, options.remarks.len()))
            .map_err(|misuse| misuse.bare)
    };
    assert_eq!(timeout("7"), Ok((Some(7), None, 0)));
    assert_eq!(timeout("7:unknown"), Ok((Some(7), Some(State::Unknown), 0)));
    assert_eq!(timeout("7:1:2"), Ok((Some(7), Some(State::Warning), 0)));
    assert_eq!(timeout("7:"), Ok((Some(7), None, 0)));
    assert_eq!(timeout(":0"), Ok((None, Some(State::Ok), 0)));
    assert_eq!(timeout("::"), Ok((None, None, 0)));
    assert_eq!(timeout(""), Ok((None, None, 0)));
    assert_eq!(timeout("7x"), Ok((Some(7), None, 0)));
    assert_eq!(timeout("7:4"), Ok((Some(7), None, 1)), "said, and then CRITICAL as without");
    assert_eq!(timeout("7:PENDING"), Ok((Some(7), None, 1)));
    assert_eq!(timeout("99999999999"), Ok((Some(i32::MAX.unsigned_abs()), None, 0)));
    for bad in ["0", "-1", "x", "x:2"] {
        assert_eq!(timeout(bad), Err(true), "{bad}");
    }
    assert_eq!(parsed("-H h -u -t 5:2").on_failure, Some(State::Critical), "the last one wins");
    assert_eq!(parsed("-H h -t 5:2 -u").on_failure, Some(State::Unknown));
}

#[test]
fn numbers_are_read_as_c_reads_them() {
    assert_eq!((number(b" +5666abc"), number(b"-3"), number(b"x"), number(b"")), (5666, -3, 0, 0));
    assert_eq!((bits(b"0x3f"), bits(b"17"), bits(b"010"), bits(b"no")), (63, 17, 8, 0));
    for port in ["0", "-1", "65536", "70000", "x"] {
        assert!(wrong(&format!("-H h -p {port}")).reason.contains("a port is a number"), "{port}");
    }
    assert_eq!(parsed("-H h -p 5666abc").port, Some(5666));
}

#[test]
fn tls_is_told_in_check_nrpes_words() {
    let options = parsed("-H h -S TLSv1.2+ -d 2 -L AECDH -A ca -C cert -K key -s 0x0c");
    assert_eq!(options.protocol, Some((Protocol::Tls1_2, true)));
    assert_eq!((options.adh, options.ciphers.as_deref()), (Some(Adh::Only), Some("AECDH")));
    assert_eq!((options.ca, options.key, options.logging), (Some("ca".into()), Some("key".into()), Some(12)));
    assert_eq!(parsed("-H h -d 12").adh, Some(Adh::Allowed));
    assert_eq!(parsed("-H h -d 00").adh, Some(Adh::Never));
    for line in ["-d 3", "-d x", "-S SSLv2", "-S tlsv1", "-S TLSv1++", "-C cert", "-K key", "--pin 12"] {
        assert!(!wrong(&format!("-H h {line}")).bare, "{line}");
    }
    let pin = "ab".repeat(32);
    assert_eq!(parsed(&format!("-H h --pin {pin}")).pins, [[0xab; 32]]);
}

#[test]
fn packets_are_told_in_check_nrpes_words() {
    assert_eq!(parsed("-H h -2 -P 2048").payload, Some(2048));
    assert_eq!(parsed("-H h -P 0").payload, None);
    assert!(wrong("-H h -P 2048").reason.contains("'-2' must also be specified"));
    assert!(wrong("-H h -2 -3").reason.contains("Only one of"));
    assert!(wrong("-H h -P -1 -2").reason.contains("not negative"));
}

#[test]
fn what_is_missing_is_named() {
    assert!(wrong("-c x").reason.contains("-H HOST"));
    assert!(parse("check_nrpe", &[]).unwrap_err().reason.contains("-H HOST"));
    let empty = [b"-H".to_vec(), b"h".to_vec(), b"-c".to_vec(), Vec::new()];
    assert!(parse("check_nrpe", &empty).and_then(Options::checked).unwrap_err().reason.contains("empty"));
    assert_eq!(parsed("-V").teach, Some(Teach::Version));
    assert_eq!(parsed("-h -V").teach, Some(Teach::Help));
}

#[test]
fn the_command_line_wins_over_the_file() {
    let with = |line: &str, file: &str| {
        parse("check_nrpe", &words(line)).and_then(|options| options.with_file(file.as_bytes()))
    };
    let options = with("-f x -c cmd -p 1 -3", "-H h -p 2\n-t 3:1\t-n -2\r\n--bind=::1").unwrap().checked().unwrap();
    assert_eq!((options.host.as_deref(), options.port, options.seconds), (Some("h"), Some(1), Some(3)));
    assert_eq!((options.version, options.on_failure), (Some(Version::V3), Some(State::Warning)));
    assert!(options.plain && options.bind.as_deref() == Some("::1"));
    assert_eq!(with("-f x -t 9", "-t 3:1").unwrap().seconds, Some(9));
    assert_eq!(
        with("-f x -C a", "-K b").and_then(|o| Options { host: Some("h".into()), ..o }.checked()).unwrap().key,
        Some("b".into())
    );
    assert_eq!(with("-f x -H h", "-f y").unwrap().remarks.len(), 1);
    for (file, word) in
        [("-c x", "(-c)"), ("-a x", "(-a)"), (" \n", "empty"), (&"-n ".repeat(49), "49 words"), ("-x", "invalid")]
    {
        assert!(with("-f x -H h", file).unwrap_err().reason.contains(word), "{file}");
    }
    assert!(with("-f x -H h", &"-n ".repeat(48)).is_ok());
    assert_eq!(with("-f x -H h", "-y").unwrap_err().complaints, ["check_nrpe: invalid option -- 'y'"]);
}
