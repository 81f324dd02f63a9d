//! Echo requests beside Monitoring Plugins' `check_icmp` and `check_ping`: the same state for the same network, the same form of
//! text and performance data; and what is said where the kernel does not permit them.
#![expect(clippy::disallowed_methods, reason = "a deadline that is kept can only be shown on the clock")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use satellite::probe::Prober;
use shared::check::{Check, Exit, IcmpCheck, IcmpLevel, Outcome, State};
use tests::missing::missing;
use tests::network::is_own;

use crate::network::{PERMITTED, answer_echoes, permit_icmp};

const CHECK_ICMP: &str = "/usr/lib/nagios/plugins/check_icmp";
const CHECK_PING: &str = "/usr/lib/nagios/plugins/check_ping";
const LIMIT: Duration = Duration::from_secs(10);
/// What a busy machine may take beyond a time limit.
const BUSY: Duration = Duration::from_secs(5);

/// Levels as milliseconds and percent.
fn check(address: &str, warning: (u64, u8), critical: (u64, u8)) -> IcmpCheck {
    let level = |(millis, loss_percent)| IcmpLevel { rta_us: millis * 1_000, loss_percent };
    IcmpCheck {
        address: address.to_owned(),
        packets: 5,
        warning: level(warning),
        critical: level(critical),
        otherwise_tcp: None,
    }
}

async fn ask(check: IcmpCheck) -> Outcome {
    Prober::new().unwrap().probe("h", &Check::Icmp(check), LIMIT).await
}

/// Every number as `#`, and minimum and maximum of the loss left out, which not every version gives.
fn form(text: &str) -> String {
    let mut form = String::new();
    let mut number = false;
    for c in text.trim().chars() {
        let digit = c.is_ascii_digit() || (number && c == '.');
        if digit && !number {
            form.push('#');
        } else if !digit {
            form.push(c);
        }
        number = digit;
    }
    form.replace(";#;#;#;#", ";#;#;;").replace("; pl", " pl").replace("; rt", " rt").replace(";;;; ", ";;;;")
}

struct Said {
    state: State,
    text: String,
}

/// What a real plugin says about an address, if it is installed.
fn real(plugin: &str, address: &str, warning: (u64, u8), critical: (u64, u8)) -> Option<Said> {
    if !Path::new(plugin).exists() {
        missing(plugin, "monitoring-plugins-basic");
        return None;
    }
    let level = |(millis, loss): (u64, u8)| format!("{millis}.0,{loss}%");
    let output = Command::new(plugin)
        .args(["-H", address, "-w", &level(warning), "-c", &level(critical)])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let state = State::of_exit(output.status.code().unwrap());
    Some(Said { state, text: String::from_utf8_lossy(&output.stdout).into_owned() })
}

#[tokio::test]
async fn what_answers_is_told_in_the_words_of_check_icmp() {
    if !is_own("icmp::what_answers_is_told_in_the_words_of_check_icmp") {
        return;
    }
    permit_icmp();
    let levels = [((200, 40), (500, 80)), ((0, 40), (500, 80)), ((0, 0), (0, 0)), ((200, 0), (500, 80))];
    for (address, (warning, critical)) in
        ["127.0.0.1", "::1", "127.7.7.7"].into_iter().flat_map(|address| levels.map(|levels| (address, levels)))
    {
        let ours = ask(check(address, warning, critical)).await;
        let state = if critical.0 == 0 {
            State::Critical
        } else if warning.0 == 0 || warning.1 == 0 {
            State::Warning
        } else {
            State::Ok
        };
        assert_eq!(ours.state, state, "{ours:?}");
        assert!(matches!(ours.exit, Exit::Ran(_)) && ours.output.ends_with("lost 0%"), "{ours:?}");
        let metrics: Vec<(&str, &str)> =
            ours.metrics.iter().map(|metric| (metric.label.as_str(), metric.unit.as_str())).collect();
        assert_eq!(metrics, [("rta", "ms"), ("pl", "%"), ("rtmax", "ms"), ("rtmin", "ms")]);
        assert!(ours.metrics[0].value > 0.0 && ours.metrics[0].value < 1_000.0, "{ours:?}");
        let Some(theirs) = real(CHECK_ICMP, address, warning, critical) else { return };
        assert_eq!(ours.state, theirs.state, "{}", theirs.text);
        assert_eq!(form(&format!("{}|{}", ours.output, ours.perfdata)), form(&theirs.text));
    }
}

#[tokio::test]
async fn what_does_not_answer_is_critical_within_the_time() {
    if !is_own("icmp::what_does_not_answer_is_critical_within_the_time") {
        return;
    }
    permit_icmp();
    answer_echoes(false);
    let began = Instant::now();
    let silent = ask(check("127.0.0.1", (200, 40), (500, 80))).await;
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    assert_eq!((silent.state, &silent.exit), (State::Critical, &Exit::Ran(2)), "{silent:?}");
    assert_eq!(silent.output, "CRITICAL - 127.0.0.1: rta nan, lost 100%");
    // A time limit shorter than the wait that the levels ask for ends it, with the loss as result.
    let patient = Check::Icmp(check("127.0.0.1", (3_000, 80), (50_000, 100)));
    let limit = Duration::from_millis(700);
    let began = Instant::now();
    let cut = Prober::new().unwrap().probe("h", &patient, limit).await;
    assert!(began.elapsed() < limit + BUSY);
    assert_eq!((cut.state, cut.exit), (State::Critical, Exit::Ran(2)));
    for plugin in [CHECK_ICMP, CHECK_PING] {
        let Some(theirs) = real(plugin, "127.0.0.1", (200, 40), (500, 80)) else { return };
        assert_eq!(silent.state, theirs.state, "{plugin}: {}", theirs.text);
        if plugin == CHECK_ICMP {
            assert_eq!(form(&format!("{}|{}", silent.output, silent.perfdata)), form(&theirs.text));
        }
    }
}

#[tokio::test]
async fn no_way_there_is_told_at_once() {
    if !is_own("icmp::no_way_there_is_told_at_once") {
        return;
    }
    permit_icmp();
    let began = Instant::now();
    let unreachable = ask(check("192.0.2.1", (200, 40), (500, 80))).await;
    assert!(began.elapsed() < BUSY);
    assert_eq!(unreachable.exit, Exit::Error("connect-unreachable".to_owned()));
    assert_eq!(unreachable.output, "CRITICAL - 192.0.2.1: Network is unreachable. rta nan, lost 100%");
    assert_eq!((unreachable.state, unreachable.metrics[1].value), (State::Critical, 100.0));
    // A firewall's word is not taken for the kernel's missing permission.
    assert!(Command::new("ip").args(["route", "add", "prohibit", "192.0.2.2"]).status().unwrap().success());
    let prohibited = ask(IcmpCheck { otherwise_tcp: Some(1), ..check("192.0.2.2", (1, 1), (1, 1)) }).await;
    assert_eq!(prohibited.state, State::Critical, "{prohibited:?}");
    assert!(prohibited.output.contains("rta nan"), "{prohibited:?}");
    let Some(theirs) = real(CHECK_ICMP, "192.0.2.1", (200, 40), (500, 80)) else { return };
    assert_eq!(unreachable.state, theirs.state, "{}", theirs.text);
}

#[tokio::test]
async fn many_hosts_at_once_are_told_apart() {
    if !is_own("icmp::many_hosts_at_once_are_told_apart") {
        return;
    }
    permit_icmp();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let prober = std::sync::Arc::new(Prober::new().unwrap());
    let before = open();
    let asked = (0..200_u32).map(|number| {
        let prober = std::sync::Arc::clone(&prober);
        // Every other one is beyond any route.
        let address = if number % 2 == 0 {
            format!("127.1.{}.{}", number / 250, number % 250)
        } else {
            format!("192.0.2.{number}")
        };
        tokio::spawn(async move {
            let outcome = prober.probe("h", &Check::Icmp(check(&address, (5_000, 80), (9_000, 100))), LIMIT).await;
            (number, outcome)
        })
    });
    for one in asked.collect::<Vec<_>>() {
        let (number, outcome) = one.await.unwrap();
        let wanted = if number % 2 == 0 { State::Ok } else { State::Critical };
        assert_eq!(outcome.state, wanted, "{number}: {outcome:?}");
    }
    assert_eq!(open(), before, "descriptors are left open");
}

#[tokio::test]
async fn a_kernel_that_does_not_permit_it_is_named_with_the_setting() {
    if !is_own("icmp::a_kernel_that_does_not_permit_it_is_named_with_the_setting") {
        return;
    }
    // A new network permits nobody: the lowest group is above the highest.
    let range = std::fs::read_to_string(PERMITTED).unwrap();
    let bounds: Vec<u32> = range.split_whitespace().map(|bound| bound.parse().unwrap()).collect();
    assert!(bounds[0] > bounds[1], "{range}");
    let refused = ask(check("127.0.0.1", (200, 40), (500, 80))).await;
    assert_eq!((refused.state, &refused.exit), (State::Unknown, &Exit::Error("icmp-not-permitted".to_owned())));
    assert_eq!(refused.output, "UNKNOWN - 127.0.0.1: ICMP is not permitted here");
    let shown = format!("“{} {}”", bounds[0], bounds[1]);
    assert!(refused.long_output.contains(&shown) && refused.long_output.contains("sysctl"), "{}", refused.long_output);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let default = || IcmpCheck { otherwise_tcp: Some(port), ..check("127.0.0.1", (200, 40), (500, 80)) };
    let open = ask(default()).await;
    assert_eq!((open.state, &open.exit), (State::Ok, &Exit::Ran(0)), "{open:?}");
    assert!(open.output.ends_with("(in place of ICMP)") && open.metrics[0].label == "time", "{open:?}");
    drop(listener);
    let closed = ask(default()).await;
    assert_eq!((closed.state, &closed.exit), (State::Ok, &Exit::Ran(0)), "{closed:?}");
    assert!(closed.output.contains("refuses connections"), "{closed:?}");
    let gone = ask(IcmpCheck { address: "192.0.2.1".to_owned(), ..default() }).await;
    assert_eq!((gone.state, gone.state.as_host()), (State::Critical, State::Down), "{gone:?}");

    permit_icmp();
    assert!(ask(default()).await.output.ends_with("lost 0%"), "no restart is needed");
}
