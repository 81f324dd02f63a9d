//! The checks that are built in: `run` takes the words of one, its name first, and answers as a plugin would. There is no shell
//! anywhere, and what is read is bounded.
//! Knows which built-ins there are and who reads for whom; each judgement is a pure room of its own. A time limit over all is the
//! caller's. The surprise: without thresholds a built-in only reports.

pub mod census;
pub mod container;
pub mod disk;
pub mod errand;
pub mod file_age;
pub mod kernel;
pub mod limit;
pub mod load;
pub mod memory;
pub mod options;
pub mod procs;
pub mod swap;
pub mod systemctl;
pub mod systemd;
pub mod uptime;
pub mod users;
pub mod verdict;
pub mod volume;

use std::fmt::Write as _;

use anyhow::{Result, bail};
use shared::check::State;

use options::{Given, Manual, Misuse};
pub use verdict::Answer;

/// All that are built in, by name; `help` and `version` come on top.
pub const ALL: &[Manual] = &[
    load::MANUAL,
    memory::MANUAL,
    swap::MANUAL,
    disk::MANUAL,
    disk::MANUAL_INODES,
    procs::MANUAL,
    uptime::MANUAL,
    users::MANUAL,
    file_age::MANUAL,
    systemd::MANUAL,
    container::MANUAL,
];

/// Names that some are also known by, as in the commands of a stock nrpe.cfg.
const ALSO: &[(&str, &str)] = &[("processes", "procs"), ("mem", "memory"), ("file_age", "file-age")];

/// Who runs a built-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// The agent: a process of this machine like others.
    Agent,
    /// A process that is there for this one check and does not count itself.
    Plugin,
}

/// Runs a built-in: its name, then its options and operands. What is wrong with them is an UNKNOWN that says so, with the usage.
pub async fn run(words: &[String]) -> Answer {
    run_for(Caller::Agent, words).await
}

/// The same in a process that is there for this one check: `procs` leaves it out.
pub async fn run_as_plugin(words: &[String]) -> Answer {
    run_for(Caller::Plugin, words).await
}

async fn run_for(caller: Caller, words: &[String]) -> Answer {
    let Some((name, words)) = words.split_first() else {
        return Answer::unknown(format!("UNKNOWN - the name of a built-in check is missing; there are: {}", names()));
    };
    match name.as_str() {
        "help" => return help(words),
        "version" => {
            let text = format!("OK - perigee-satellite {}", env!("CARGO_PKG_VERSION"));
            return Answer { state: State::Ok, text };
        }
        _ => {}
    }
    let Some(manual) = manual(name) else { return no_such(name) };
    let asked = match manual.read(words) {
        Ok(given) if given.has("help") => return Answer::unknown(manual.page()),
        Ok(given) => answer(caller, manual.name, &given).await,
        Err(misuse) => Err(misuse.into()),
    };
    asked.unwrap_or_else(|error| {
        let mut text = format!("{} UNKNOWN - {}", headline(manual.name), verdict::plain(&format!("{error:#}")));
        if error.is::<Misuse>() {
            text.push('\n');
            text.push_str(&manual.page());
        }
        Answer::unknown(text)
    })
}

/// Reads and judges. Every name in [`ALL`] has its arm.
async fn answer(caller: Caller, name: &str, given: &Given) -> Result<Answer> {
    Ok(match name {
        "load" => load::judge(&load::Wanted::of(given)?, &kernel::load()?),
        "memory" => memory::judge(&memory::Wanted::of(given)?, &meminfo()?),
        "swap" => swap::judge(&swap::Wanted::of(given)?, &meminfo()?),
        "disk" => space(disk::Wanted::of_disk(given)?).await?,
        "inodes" => space(disk::Wanted::of_inodes(given)?).await?,
        "procs" => {
            let wanted = procs::Wanted::of(given)?;
            let own = (caller == Caller::Plugin).then(std::process::id);
            let (processes, user) = census::processes(&wanted, own).await?;
            procs::judge(&wanted, &processes, user.as_ref())
        }
        "uptime" => uptime::judge(&uptime::Wanted::of(given)?, kernel::uptime()?),
        "users" => users::judge(&users::Wanted::of(given)?, kernel::logins()?),
        "file-age" => {
            let wanted = file_age::Wanted::of(given)?;
            file_age::judge(&wanted, &volume::file(&wanted.file).await)
        }
        "systemd" => {
            let wanted = systemd::Wanted::of(given)?;
            match systemctl::run(wanted.command()).await {
                Ok(printed) => systemd::judge(&wanted, &printed),
                Err(why) => bail!(why),
            }
        }
        "container" => {
            let wanted = container::Wanted::of(given)?;
            match wanted.names.is_empty() {
                true => container::judge_own(&wanted, &container::cgroup::look(&wanted).await?),
                false => container::judge_named(&container::docker::ask(&wanted.socket, &wanted.names).await),
            }
        }
        other => bail!("{other} is not built in"),
    })
}

fn meminfo() -> Result<memory::Reading> {
    memory::read(&kernel::memory()?).map_err(anyhow::Error::msg)
}

async fn space(wanted: disk::Wanted) -> Result<Answer> {
    let (seen, closed) = volume::look(&wanted).await?;
    Ok(disk::judge(&wanted, &seen, closed))
}

/// One line for each built-in: its name and what it watches.
#[must_use]
pub fn list() -> String {
    let mut list = String::new();
    for manual in ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(list, "{:<10} {}", manual.name, manual.about);
    }
    list.push_str(
        "help       This list, or the page of the built-in that is named\nversion    The version of this program",
    );
    list
}

fn manual(name: &str) -> Option<&'static Manual> {
    let name = ALSO.iter().find(|(also, _)| *also == name).map_or(name, |(_, name)| name);
    ALL.iter().find(|manual| manual.name == name)
}

fn help(words: &[String]) -> Answer {
    match words.first() {
        None => Answer { state: State::Ok, text: list() },
        Some(name) => match manual(name) {
            Some(manual) => Answer { state: State::Ok, text: manual.page() },
            None => no_such(name),
        },
    }
}

fn no_such(name: &str) -> Answer {
    let name: String = verdict::plain(name).chars().take(40).collect();
    Answer::unknown(format!("UNKNOWN - there is no built-in check `{name}`; there are: {}", names()))
}

fn names() -> String {
    ALL.iter().map(|manual| manual.name).chain(["help", "version"]).collect::<Vec<_>>().join(", ")
}

/// What the first line of an answer begins with: `FILE_AGE`.
fn headline(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod fuzz_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use shared::perfdata::{parse, split_output};

    async fn said(line: &str) -> Answer {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        run(&words).await
    }

    #[tokio::test]
    async fn every_built_in_answers_and_its_figures_can_be_read() {
        for manual in ALL {
            let answer = said(&format!("{} {}", manual.name, manual.example)).await;
            let begin = format!("{} {}", headline(manual.name), answer.state);
            assert!(answer.text.starts_with(&begin), "{begin}: {}", answer.text);
            let output = split_output(&answer.text);
            assert_eq!(parse(&output.perfdata).dropped, 0, "{}", answer.text);
        }
    }

    #[tokio::test]
    async fn every_built_in_has_a_page_and_refuses_what_it_does_not_know() {
        for manual in ALL {
            let page = said(&format!("{} --help", manual.name)).await;
            assert_eq!(page, Answer::unknown(manual.page()));
            assert_eq!(said(&format!("help {}", manual.name)).await.text, manual.page());
            let wrong = said(&format!("{} --no-such-option", manual.name)).await;
            let begin = format!("{} UNKNOWN - there is no option --no-such-option\n", headline(manual.name));
            assert!(wrong.state == State::Unknown && wrong.text.starts_with(&begin), "{}", wrong.text);
            assert!(wrong.text.ends_with(&manual.page()), "{}", wrong.text);
            assert!(list().contains(manual.about));
        }
    }

    #[test]
    fn every_page_fits_a_terminal() {
        for page in ALL.iter().map(Manual::page).chain([list()]) {
            assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        }
    }

    #[tokio::test]
    async fn what_is_not_built_in_is_unknown() {
        let nothing = run(&[]).await;
        assert!(nothing.state == State::Unknown && nothing.text.contains("is missing; there are: load"), "{nothing:?}");
        for line in ["check_load", "/bin/sh -c id", "help no-such"] {
            let answer = said(line).await;
            assert!(answer.state == State::Unknown && answer.text.contains("there is no built-in check"), "{answer:?}");
        }
        assert_eq!(said("help").await, Answer { state: State::Ok, text: list() });
        assert!(said("version").await.text.starts_with("OK - perigee-satellite "));
    }
}
