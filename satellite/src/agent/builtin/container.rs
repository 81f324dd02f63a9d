//! Containers: this one's own use of memory, processor and process numbers against its limits, or the state and health of others by
//! name. Judges what `container/cgroup` and `container/docker` found.
//! The surprise: memory that can be given back (inactive file pages) does not count as used, as in `docker stats`.

pub mod cgroup;
pub mod docker;

use shared::check::State;

use super::limit::{Limits, Sense, Unit, percent};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures, bytes, plain, worse};

/// Containers named in one check; more are refused.
pub const NAMES_MAX: usize = 64;
/// Where Docker and those who speak like it listen.
pub const SOCKET: &str = "/var/run/docker.sock";

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "container",
    about: "This container's memory, CPU and pids, or state and health of others",
    operands: "[NAME…]",
    options: &[
        Known {
            short: Some('w'),
            long: "warning",
            value: "LIMIT",
            help: "WARNING when more memory is used: 80% (of the limit), 500M",
        },
        Known { short: Some('c'), long: "critical", value: "LIMIT", help: "CRITICAL when more memory is used" },
        Known {
            short: Some('W'),
            long: "cpu-warning",
            value: "PERCENT",
            help: "WARNING when more of the CPU share is used",
        },
        Known {
            short: Some('C'),
            long: "cpu-critical",
            value: "PERCENT",
            help: "CRITICAL when more of the CPU share is used",
        },
        Known {
            short: None,
            long: "pids-warning",
            value: "LIMIT",
            help: "WARNING with more processes and threads: 80%, 500",
        },
        Known { short: None, long: "pids-critical", value: "LIMIT", help: "CRITICAL with more processes and threads" },
        Known {
            short: Some('i'),
            long: "interval",
            value: "MS",
            help: "Milliseconds over which CPU use is measured [default: 500]",
        },
        Known {
            short: Some('s'),
            long: "socket",
            value: "PATH",
            help: "With NAME: Docker's socket [default: /var/run/docker.sock]",
        },
    ],
    example: "-w 80% -c 95%",
    notes: "Without NAME it reads the control groups of this process, version 1 or 2. Where there is no limit, memory is compared\n\
            with the machine's. With NAME it asks Docker (or Podman): running and healthy is OK; starting or paused is WARNING;\n\
            anything else, a missing container too, is CRITICAL. Reading that socket needs rights over all containers.",
};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Containers to ask Docker for; none: this process's own.
    pub names: Vec<String>,
    /// Docker's socket.
    pub socket: String,
    /// Milliseconds between the two looks at CPU use.
    pub interval: u64,
    memory: Limits,
    processor: Limits,
    pids: Limits,
}

/// What a control group says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Group {
    /// Memory in use, bytes, caches among it.
    pub memory: u64,
    /// What of it can be given back at once.
    pub inactive: u64,
    /// The most memory there may be, if there is such a limit.
    pub memory_limit: Option<u64>,
    /// Times a process was killed for want of memory.
    pub killed: Option<u64>,
    /// Processor time so far, nanoseconds.
    pub busy: Option<u64>,
    /// Processor time there may be in a period, and the period; microseconds.
    pub share: Option<(u64, u64)>,
    /// Periods in which the share was used up.
    pub throttled: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The most there may be.
    pub pids_limit: Option<u64>,
}

/// Two looks at the own control group, and the machine it is on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Own {
    /// Processor time at the first look.
    pub busy_before: Option<u64>,
    /// The second look.
    pub group: Group,
    /// Nanoseconds between them.
    pub apart: u64,
    /// Memory of the machine, bytes.
    pub machine_memory: u64,
    /// Processors of the machine.
    pub processors: u32,
}

/// What Docker says of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Its state.
    Inspected {
        /// running, exited, …
        status: String,
        /// healthy, unhealthy, starting; `None`: it has no health check.
        health: Option<String>,
        /// Exit code of its last end.
        exit_code: i64,
        /// It was ended for want of memory.
        out_of_memory: bool,
        /// How often Docker has started it again.
        restarts: u64,
    },
    /// There is no such container.
    Missing,
    /// It could not be asked; why.
    Failed(String),
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// A threshold or a number is none, or a name is no container's.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        // As Docker has it; nothing of it can lead a request elsewhere.
        let fits = |name: &String| {
            name.len() <= 255
                && name.starts_with(|first: char| first.is_ascii_alphanumeric())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if let Some(odd) = given.operands.iter().find(|name| !fits(name)) {
            return Err(Misuse(format!("`{}` is not the name of a container", plain(odd))));
        }
        if given.operands.len() > NAMES_MAX {
            return Err(Misuse(format!("more than {NAMES_MAX} containers")));
        }
        let limits = |warning, critical, unit| Limits::of(given, warning, critical, Sense::Above, unit);
        Ok(Self {
            names: given.operands.clone(),
            socket: given.last("socket").unwrap_or(SOCKET).to_owned(),
            interval: given.number("interval", 10..=5000, 500)?,
            memory: limits("warning", "critical", Unit::Bytes(1))?,
            processor: limits("cpu-warning", "cpu-critical", Unit::Percent)?,
            pids: limits("pids-warning", "pids-critical", Unit::CountOrPercent)?,
        })
    }
}

/// State, text and performance data of the own container: `memory` in bytes, `cpu` in percent of what it may have, `pids`,
/// `oom_kills` and `throttled` as counters.
#[must_use]
pub fn judge_own(wanted: &Wanted, own: &Own) -> Answer {
    let group = &own.group;
    let mut figures = Figures::default();
    let none = || [String::new(), String::new()];

    let used = group.memory.saturating_sub(group.inactive) as f64;
    let limit = group.memory_limit.filter(|limit| own.machine_memory == 0 || *limit < own.machine_memory);
    let whole = limit.unwrap_or(own.machine_memory) as f64;
    let used_share = percent(used, whole, 0.0);
    let mut state = wanted.memory.state(used, used_share);
    figures.judged("memory", used, "B", &wanted.memory, whole, Some(whole).filter(|whole| *whole > 0.0));
    let of = if limit.is_some() { "" } else { " (no limit: the machine's)" };
    let mut text = format!("memory {} of {}{of} ({used_share:.0}%)", bytes(used), bytes(whole));

    if let (Some(before), Some(after)) = (own.busy_before, group.busy)
        && own.apart > 0
    {
        let may = match group.share {
            Some((quota, period)) if period > 0 => quota as f64 / period as f64,
            _ => f64::from(own.processors.max(1)),
        };
        let share = percent(after.saturating_sub(before) as f64, own.apart as f64 * may, 0.0);
        state = worse(state, wanted.processor.state(share, share));
        figures.judged("cpu", share, "%", &wanted.processor, 100.0, None);
        text.push_str(&format!(", CPU {share:.0}% of {may:.1}"));
    } else if wanted.processor != Limits::default() {
        state = worse(state, State::Unknown);
        text.push_str(", CPU use cannot be read");
    }

    if let Some(pids) = group.pids {
        let (count, most) = (pids as f64, group.pids_limit.map(|limit| limit as f64));
        state = worse(state, wanted.pids.state(count, percent(count, most.unwrap_or(0.0), 0.0)));
        figures.judged("pids", count, "", &wanted.pids, most.unwrap_or(0.0), most);
        let most = most.map_or_else(String::new, |most| format!(" of {most}"));
        text.push_str(&format!(", {count} pids{most}"));
    } else if wanted.pids != Limits::default() {
        state = worse(state, State::Unknown);
        text.push_str(", pids cannot be read");
    }

    for (label, count, words) in
        [("oom_kills", group.killed, "killed for want of memory"), ("throttled", group.throttled, "periods throttled")]
    {
        if let Some(count) = count {
            figures.add(label, count as f64, "c", none(), None, None);
            if count > 0 {
                text.push_str(&format!(", {count} {words}"));
            }
        }
    }
    figures.answer(state, &format!("CONTAINER {state} - {text}"))
}

/// State, text and performance data of named containers: `running` of so many, and each one's `NAME_restarts`.
#[must_use]
pub fn judge_named(told: &[(String, Told)]) -> Answer {
    let (mut state, mut running, mut asked) = (State::Ok, 0_u32, true);
    let mut figures = Figures::default();
    let none = || [String::new(), String::new()];
    let mut parts = Vec::new();
    for (name, told) in told {
        let (one, words) = match told {
            Told::Missing => (State::Critical, "there is no such container".to_owned()),
            Told::Failed(why) => {
                asked = false;
                (State::Unknown, plain(why))
            }
            Told::Inspected { status, health, exit_code, out_of_memory, .. } => {
                running += u32::from(status == "running");
                let cause = if *out_of_memory { ", out of memory" } else { "" };
                match (status.as_str(), health.as_deref()) {
                    ("running", None | Some("none" | "")) => (State::Ok, "running".to_owned()),
                    ("running", Some("healthy")) => (State::Ok, "running, healthy".to_owned()),
                    ("running", Some("starting")) => (State::Warning, "running, health not known yet".to_owned()),
                    ("running", Some(health)) => (State::Critical, format!("running, {}", plain(health))),
                    ("paused", _) => (State::Warning, "paused".to_owned()),
                    ("exited" | "dead" | "stopped", _) => {
                        (State::Critical, format!("{status} with {exit_code}{cause}"))
                    }
                    (status, _) => (State::Critical, plain(status)),
                }
            }
        };
        state = worse(state, one);
        parts.push((one, format!("{}: {words}", plain(name))));
    }
    parts.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    // Of those that could not be asked nobody knows whether they run.
    if asked {
        figures.add("running", f64::from(running), "", none(), Some(0.0), Some(told.len() as f64));
    }
    for (name, told) in told {
        if let Told::Inspected { restarts, .. } = told {
            figures.add(&format!("{name}_restarts"), *restarts as f64, "c", none(), None, None);
        }
    }
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    figures.answer(state, &format!("CONTAINER {state} - {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GROUP: Group = Group {
        memory: 600 << 20,
        inactive: 100 << 20,
        memory_limit: Some(1000 << 20),
        killed: Some(0),
        busy: Some(1_250_000_000),
        share: Some((50_000, 100_000)),
        throttled: Some(3),
        pids: Some(40),
        pids_limit: Some(100),
    };
    const OWN: Own = Own {
        busy_before: Some(1_000_000_000),
        group: GROUP,
        apart: 1_000_000_000,
        machine_memory: 8 << 30,
        processors: 4,
    };

    fn wanted(line: &str) -> Wanted {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Wanted::of(&MANUAL.read(&words).unwrap()).unwrap()
    }

    #[test]
    fn each_limit_of_the_own_container_is_judged() {
        for (line, state) in [
            ("", State::Ok),
            ("-w 50% -c 60%", State::Ok),
            ("-w 49%", State::Warning),
            ("-w 10% -c 499M", State::Critical),
            ("-W 50", State::Ok),
            ("-W 49%", State::Warning),
            ("-W 10 -C 20", State::Critical),
            ("--pids-warning 40%", State::Ok),
            ("--pids-warning 39", State::Warning),
            ("--pids-critical 39%", State::Critical),
        ] {
            assert_eq!(judge_own(&wanted(line), &OWN).state, state, "{line}");
        }
        assert_eq!(
            judge_own(&wanted("-w 80% -c 90% -W 90"), &OWN).text,
            "CONTAINER OK - memory 500.0 MiB of 1000.0 MiB (50%), CPU 50% of 0.5, 40 pids of 100, 3 periods throttled|\
             memory=524288000B;838860800;943718400;0;1048576000 cpu=50%;90;;0 pids=40;;;0;100 oom_kills=0c throttled=3c"
        );
    }

    #[test]
    fn without_a_limit_the_machine_is_the_limit() {
        let free = Own { group: Group { memory_limit: None, share: None, ..GROUP }, ..OWN };
        let answer = judge_own(&wanted("-w 6% -C 10"), &free);
        assert_eq!(answer.state, State::Warning);
        assert!(answer.text.contains("of 8.0 GiB (no limit: the machine's) (6%), CPU 6% of 4.0"), "{}", answer.text);
        let bare = Own { busy_before: None, group: Group { pids: None, busy: None, ..GROUP }, ..OWN };
        assert_eq!(judge_own(&wanted(""), &bare).state, State::Ok);
        assert_eq!(judge_own(&wanted("-W 5"), &bare).state, State::Unknown);
        assert_eq!(judge_own(&wanted("--pids-warning 5"), &bare).state, State::Unknown);
    }

    fn inspected(status: &str, health: Option<&str>) -> Told {
        Told::Inspected {
            status: status.to_owned(),
            health: health.map(str::to_owned),
            exit_code: 137,
            out_of_memory: status == "dead",
            restarts: 2,
        }
    }

    #[test]
    fn a_container_must_run_and_be_healthy() {
        for (told, state) in [
            (inspected("running", None), State::Ok),
            (inspected("running", Some("none")), State::Ok),
            (inspected("running", Some("healthy")), State::Ok),
            (inspected("running", Some("starting")), State::Warning),
            (inspected("running", Some("unhealthy")), State::Critical),
            (inspected("paused", None), State::Warning),
            (inspected("restarting", None), State::Critical),
            (inspected("created", None), State::Critical),
            (inspected("exited", Some("unhealthy")), State::Critical),
            (Told::Missing, State::Critical),
            (Told::Failed("why".to_owned()), State::Unknown),
        ] {
            assert_eq!(judge_named(&[("web".to_owned(), told.clone())]).state, state, "{told:?}");
        }
        let all = [
            ("web".to_owned(), inspected("running", Some("healthy"))),
            ("db".to_owned(), inspected("dead", None)),
            ("gone".to_owned(), Told::Missing),
        ];
        assert_eq!(
            judge_named(&all).text,
            "CONTAINER CRITICAL - db: dead with 137, out of memory, gone: there is no such container, web: running, healthy|\
             running=1;;;0;3 web_restarts=2c db_restarts=2c"
        );
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        for odd in ["../x", "a/b", "a?b", "", "-", "a b", "a%2f"] {
            let words = ["--".to_owned(), odd.to_owned()];
            assert!(Wanted::of(&MANUAL.read(&words).unwrap()).is_err(), "{odd}");
        }
        assert_eq!(wanted("-s /run/podman/podman.sock my_app.1").socket, "/run/podman/podman.sock");
    }

    proptest! {
        #[test]
        fn any_figures_are_judged(values: [u64; 8], apart: u64, processors: u32) {
            let group = Group {
                memory: values[0], inactive: values[1], memory_limit: Some(values[2]), killed: Some(values[3]),
                busy: Some(values[4]), share: Some((values[5], values[6])), throttled: None, pids: Some(values[7]), pids_limit: None,
            };
            let own = Own { busy_before: Some(values[3]), group, apart, machine_memory: values[6], processors };
            let answer = judge_own(&wanted("-w 80% -C 5 --pids-critical 5%"), &own);
            prop_assert_eq!(shared::perfdata::parse(&shared::perfdata::split_output(&answer.text).perfdata).dropped, 0, "{}", answer.text);
        }
    }
}
