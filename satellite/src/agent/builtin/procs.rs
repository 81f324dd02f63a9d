//! Counts processes that match all filters, or judges a metric of each of them, in the words and figures of check_procs.
//! Judges a list; who walks through `/proc` is another room's affair.
//! The surprise: the kernel keeps 15 bytes of a command's name; a longer one is also looked for in the first argument.

use shared::check::State;

use super::limit::{Limits, Sense, Unit, percent};
use super::options::{Given, Known, Manual, Misuse};
use super::verdict::{Answer, Figures, plain, worse};

/// Bytes of a command's name that the kernel keeps.
const COMM_MAX: usize = 15;
/// Letters of states: running, sleeping, waiting for a disk, zombie, stopped, traced, dead, idle, parked, waking.
const STATES: &str = "RSDZTtXxIPKW";

/// Its page.
pub const MANUAL: Manual = Manual {
    name: "procs",
    about: "Number of processes, zombies among them, or a metric of each",
    operands: "",
    options: &[
        Known {
            short: Some('w'),
            long: "warning",
            value: "RANGE",
            help: "WARNING when the number (or metric) is outside",
        },
        Known { short: Some('c'), long: "critical", value: "RANGE", help: "CRITICAL when it is outside" },
        Known {
            short: Some('m'),
            long: "metric",
            value: "METRIC",
            help: "PROCS (number, the default), VSZ or RSS (KiB), CPU (%), ELAPSED (s)",
        },
        Known {
            short: Some('C'),
            long: "command",
            value: "NAME",
            help: "Only processes of this program, without its path",
        },
        Known {
            short: Some('a'),
            long: "argument-array",
            value: "TEXT",
            help: "Only those with this text in their command line",
        },
        Known {
            short: Some('s'),
            long: "state",
            value: "LETTERS",
            help: "Only those in one of these states: R, S, D, Z, T …",
        },
        Known { short: Some('u'), long: "user", value: "USER", help: "Only those of this user, name or number" },
        Known { short: Some('p'), long: "ppid", value: "PID", help: "Only children of this process" },
        Known { short: Some('k'), long: "no-kthreads", value: "", help: "Leave out threads of the kernel" },
    ],
    example: "-w 400 -c 800",
    notes: "`-w 1: -C sshd` wants at least one sshd; `-s Z -w 5 -c 10` counts zombies. Run by hand it does not count itself.",
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    Procs,
    Vsz,
    Rss,
    Cpu,
    Elapsed,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    limits: Limits,
    metric: Metric,
    command: Option<String>,
    argument: Option<String>,
    states: Option<String>,
    /// Name or number of a user, to be looked up by the reader.
    pub user: Option<String>,
    parent: Option<i32>,
    no_kernel_threads: bool,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// The letter of its state.
    pub state: char,
    /// Its name as the kernel keeps it.
    pub comm: String,
    /// Its command line, words joined by blanks; read only where a filter needs it.
    pub arguments: String,
    /// Its effective user; read only where a filter needs it.
    pub user: Option<u32>,
    /// Whether it is a thread of the kernel.
    pub kernel: bool,
    /// Memory in use, bytes.
    pub resident: u64,
    /// Memory that is mapped, bytes.
    pub mapped: u64,
    /// Processor time so far, seconds.
    pub busy: f64,
    /// Seconds since its start.
    pub elapsed: f64,
}

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number.
    pub id: u32,
    /// Name.
    pub name: String,
}

impl Wanted {
    /// Reads the options.
    ///
    /// # Errors
    /// A threshold, a metric, a state or a number is none.
    pub fn of(given: &Given) -> Result<Self, Misuse> {
        let metric = match given.last("metric").map(str::to_uppercase).as_deref() {
            None | Some("PROCS") => Metric::Procs,
            Some("VSZ") => Metric::Vsz,
            Some("RSS") => Metric::Rss,
            Some("CPU") => Metric::Cpu,
            Some("ELAPSED") => Metric::Elapsed,
            Some(other) => {
                return Err(Misuse(format!("--metric: `{other}` is not one of PROCS, VSZ, RSS, CPU, ELAPSED")));
            }
        };
        let states = given.last("state").map(str::to_owned);
        if let Some(odd) = states.iter().flat_map(|states| states.chars()).find(|state| !STATES.contains(*state)) {
            return Err(Misuse(format!("--state: `{odd}` is not one of {STATES}")));
        }
        let parent = given.last("ppid").map(str::parse).transpose();
        let text = |name| given.last(name).map(str::to_owned);
        Ok(Self {
            limits: Limits::of(given, "warning", "critical", Sense::Above, Unit::Count)?,
            metric,
            command: text("command"),
            argument: text("argument-array"),
            states,
            user: text("user"),
            parent: parent.map_err(|_| Misuse("--ppid: a process is named by its number".to_owned()))?,
            no_kernel_threads: given.has("no-kthreads"),
        })
    }

    /// Whether command lines have to be read.
    #[must_use]
    pub fn needs_arguments(&self) -> bool {
        self.argument.is_some() || self.command.as_ref().is_some_and(|command| command.len() > COMM_MAX)
    }

    fn matches(&self, process: &Process, user: Option<&User>) -> bool {
        let command = |name: &String| {
            let first = process.arguments.split(' ').next().unwrap_or_default();
            process.comm == *name
                || (name.len() > COMM_MAX
                    && process.comm.len() == COMM_MAX
                    && name.starts_with(&process.comm)
                    && first.rsplit('/').next() == Some(name.as_str()))
        };
        self.command.as_ref().is_none_or(command)
            && self.argument.as_ref().is_none_or(|text| process.arguments.contains(text.as_str()))
            && self.states.as_ref().is_none_or(|states| states.contains(process.state))
            && user.is_none_or(|user| process.user == Some(user.id))
            && self.parent.is_none_or(|parent| process.parent == parent)
            && !(self.no_kernel_threads && process.kernel)
    }

    /// The filters in words, as check_procs writes them.
    fn filters(&self, user: Option<&User>) -> String {
        let mut filters = Vec::new();
        if let Some(states) = &self.states {
            filters.push(format!("STATE = {states}"));
        }
        if let Some(parent) = self.parent {
            filters.push(format!("PPID = {parent}"));
        }
        if let Some(user) = user {
            filters.push(format!("UID = {} ({})", user.id, plain(&user.name)));
        }
        if let Some(command) = &self.command {
            filters.push(format!("command name '{}'", plain(command)));
        }
        if let Some(argument) = &self.argument {
            filters.push(format!("args '{}'", plain(argument)));
        }
        if filters.is_empty() { String::new() } else { format!(" with {}", filters.join(", ")) }
    }
}

impl Process {
    fn measured(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Procs => 1.0,
            Metric::Vsz => self.mapped as f64 / 1024.0,
            Metric::Rss => self.resident as f64 / 1024.0,
            Metric::Cpu => percent(self.busy, self.elapsed, 0.0),
            Metric::Elapsed => self.elapsed.max(0.0).floor(),
        }
    }
}

/// State, text and performance data: `procs` with the thresholds; with a metric `procs_warn` and `procs_crit`, how many are
/// outside; `zombies` where no state is asked for. `user` is who [`Wanted::user`] names.
#[must_use]
pub fn judge(wanted: &Wanted, processes: &[Process], user: Option<&User>) -> Answer {
    let matching: Vec<&Process> = processes.iter().filter(|process| wanted.matches(process, user)).collect();
    let count = matching.len() as f64;
    let noun = if matching.len() == 1 { "process" } else { "processes" };
    let filters = wanted.filters(user);
    let zombies = matching.iter().filter(|process| process.state == 'Z').count();
    let none = || [String::new(), String::new()];
    let mut figures = Figures::default();
    let (state, text) = if wanted.metric == Metric::Procs {
        let state = wanted.limits.state(count, 0.0);
        figures.judged("procs", count, "", &wanted.limits, 0.0, None);
        (state, format!("PROCS {state}: {count} {noun}{filters}"))
    } else {
        let states = matching.iter().map(|process| wanted.limits.state(process.measured(wanted.metric), 0.0));
        let states: Vec<State> = states.collect();
        let state = states.iter().fold(State::Ok, |all, one| worse(all, *one));
        let number = |state| states.iter().filter(|one| **one == state).count();
        let (warning, critical) = (number(State::Warning), number(State::Critical));
        let headline = match wanted.metric {
            Metric::Vsz => "VSZ",
            Metric::Rss => "RSS",
            Metric::Cpu => "CPU",
            Metric::Elapsed | Metric::Procs => "ELAPSED",
        };
        figures.add("procs", count, "", none(), Some(0.0), None);
        figures.add("procs_warn", warning as f64, "", none(), Some(0.0), None);
        figures.add("procs_crit", critical as f64, "", none(), Some(0.0), None);
        let outside = match state {
            State::Critical => format!("{critical} crit, {warning} warn out of "),
            State::Warning => format!("{warning} warn out of "),
            _ => String::new(),
        };
        (state, format!("{headline} {state}: {outside}{count} {noun}{filters}"))
    };
    let mut text = text;
    if wanted.states.is_none() {
        figures.add("zombies", zombies as f64, "", none(), Some(0.0), None);
        if zombies > 0 {
            text.push_str(&format!(", {zombies} of them zombies"));
        }
    }
    figures.answer(state, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn process(pid: i32, comm: &str, state: char, arguments: &str, user: u32) -> Process {
        Process {
            pid,
            parent: pid / 10,
            state,
            comm: comm.to_owned(),
            arguments: arguments.to_owned(),
            user: Some(user),
            kernel: comm.starts_with("kworker"),
            resident: u64::from(user) * 1024,
            mapped: 4096,
            busy: 5.0,
            elapsed: 10.0 * f64::from(pid),
        }
    }

    fn world() -> Vec<Process> {
        vec![
            process(1, "init", 'S', "/sbin/init splash", 0),
            process(10, "sshd", 'S', "sshd: /usr/sbin/sshd -D", 0),
            process(11, "kworker/0:1", 'I', "", 0),
            process(12, "bash", 'R', "-bash", 1000),
            process(13, "bash", 'Z', "", 1000),
            process(100, "a-very-long-nam", 'D', "/opt/a-very-long-name --x", 33),
        ]
    }

    fn judged(line: &str) -> Answer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let wanted = Wanted::of(&MANUAL.read(&words).unwrap()).unwrap();
        let user = wanted.user.as_ref().map(|name| User { id: name.parse().unwrap(), name: "somebody".to_owned() });
        judge(&wanted, &world(), user.as_ref())
    }

    #[test]
    fn filters_add_up_and_ranges_judge_the_number() {
        for (line, state, count) in [
            ("", State::Ok, 6),
            ("-w 5", State::Warning, 6),
            ("-w 5 -c 5", State::Critical, 6),
            ("-w 6 -c 1:", State::Ok, 6),
            ("-C bash", State::Ok, 2),
            ("-C bash -s Z -c 0", State::Critical, 1),
            ("-C bas -c 1:", State::Critical, 0),
            ("-C a-very-long-name -c 1:", State::Ok, 1),
            ("-C a-very-long-nam -c 1:", State::Ok, 1),
            ("-C a-very-long-name-2 -c 1:", State::Critical, 0),
            ("-a sbin", State::Ok, 2),
            ("-u 1000 -w 1", State::Warning, 2),
            ("-p 1", State::Ok, 4),
            ("-k", State::Ok, 5),
            ("-s RD", State::Ok, 2),
        ] {
            let answer = judged(line);
            assert_eq!(answer.state, state, "{line}: {}", answer.text);
            assert!(answer.text.contains(&format!("|procs={count};")), "{line}: {}", answer.text);
        }
    }

    #[test]
    fn text_and_figures_are_check_procs() {
        assert_eq!(
            judged("-w 5:10 -c 1:400").text,
            "PROCS OK: 6 processes, 1 of them zombies|procs=6;5:10;1:400;0 zombies=1;;;0"
        );
        assert_eq!(
            judged("-s S -p 0 -u 0 -C init -a splash").text,
            "PROCS OK: 1 process with STATE = S, PPID = 0, UID = 0 (somebody), command name 'init', args 'splash'|procs=1;;;0"
        );
    }

    #[test]
    fn a_metric_is_judged_process_by_process() {
        for (line, state, begins) in [
            ("-m RSS -w 500 -c 2000", State::Warning, "RSS WARNING: 2 warn out of 6 processes"),
            ("-m rss -w 20 -c 500", State::Critical, "RSS CRITICAL: 2 crit, 1 warn out of 6 processes"),
            ("-m VSZ -w 4", State::Ok, "VSZ OK: 6 processes"),
            ("-m CPU -w 10 -c 40", State::Critical, "CPU CRITICAL: 1 crit, 0 warn out of 6"),
            ("-m ELAPSED -c 999 -C sshd", State::Ok, "ELAPSED OK: 1 process with"),
        ] {
            let answer = judged(line);
            assert_eq!(answer.state, state, "{line}: {}", answer.text);
            assert!(answer.text.starts_with(begins), "{line}: {}", answer.text);
        }
        let figures = judged("-m RSS -w 500 -C bash").text;
        assert!(figures.ends_with("|procs=2;;;0 procs_warn=2;;;0 procs_crit=0;;;0 zombies=1;;;0"), "{figures}");
    }

    #[test]
    fn wrong_words_are_named() {
        for (line, says) in [
            ("-m SIZE", "`SIZE` is not one of PROCS"),
            ("-s RQ", "`Q` is not one of R"),
            ("-p init", "by its number"),
            ("-w x", "--warning: `x`"),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let said = Wanted::of(&MANUAL.read(&words).unwrap()).expect_err(line).0;
            assert!(said.contains(says), "{line}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_process_is_judged(
            comm in ".{0,20}", arguments in ".{0,20}", numbers: [u64; 2],
            busy in proptest::num::f64::ANY, elapsed in proptest::num::f64::ANY, metric in 0..5_usize,
        ) {
            let metric = ["PROCS", "VSZ", "RSS", "CPU", "ELAPSED"][metric];
            let words = ["-m", metric, "-w", "5", "-c", "@1:1e30"].map(str::to_owned);
            let process = Process { comm, arguments, resident: numbers[0], mapped: numbers[1], busy, elapsed, ..Process::default() };
            let answer = judge(&Wanted::of(&MANUAL.read(&words).unwrap()).unwrap(), &[process], None);
            prop_assert_eq!(shared::perfdata::parse(&shared::perfdata::split_output(&answer.text).perfdata).dropped, 0);
        }
    }
}
