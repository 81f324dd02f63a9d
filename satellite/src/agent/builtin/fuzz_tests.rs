//! Every built-in's options and judgement against a seeded generator of hostile words, `/proc` texts and figures: whatever comes, an
//! answer of one of four states and performance data that can be read to the last item, and no panic. A failure names its seed.

use shared::check::State;
use shared::perfdata::{parse, split_output};

use super::container::{self, Group, Own, Told};
use super::disk::{self, Found, Seen, Space, mounts};
use super::options::{Given, Manual, Misuse};
use super::procs::{self, Process, User};
use super::verdict::Answer;
use super::{ALL, file_age, load, memory, swap, systemd, uptime, users};

/// Command lines tried for each built-in.
const ROUNDS: u64 = 4000;

/// SplitMix64: the same numbers for the same seed on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Small, or at an end of the range, or anything.
    fn figure(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => u64::MAX - self.next() % 3,
            2 => self.next(),
            3 => 1 << self.below(64),
            _ => self.next() % 1000,
        }
    }

    fn real(&mut self) -> f64 {
        match self.below(6) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => -1e300,
            3 => f64::from_bits(self.next()),
            _ => self.figure() as f64,
        }
    }

    fn text(&mut self) -> String {
        let parts = [
            "a",
            "|",
            "=",
            "'",
            "\n",
            "\0",
            " ",
            "%",
            ":",
            "@",
            "~",
            "-",
            "9",
            "1e30",
            "\u{1b}[31m",
            "ü",
            "::",
            ";",
            "\t",
        ];
        (0..self.below(9)).map(|_| self.one(&parts)).collect()
    }

    fn value(&mut self) -> String {
        let known = [
            "0",
            "1",
            "5%",
            "@5:10",
            "10:",
            "~:3",
            "80%",
            "1G",
            "10m",
            "1e30",
            "1e31",
            "-1",
            "5,10,15",
            "1,2,3,4",
            "0%:100%",
            "@~:0",
            "PROCS",
            "RSS",
            "CPU",
            "ELAPSED",
            "Z",
            "root",
            "ok",
            "/",
            "*",
            "nan",
            "inf",
            "",
            "18446744073709551616",
            "0.0000001",
        ];
        match self.below(4) {
            0 => self.text(),
            _ => self.one(&known).to_owned(),
        }
    }

    fn words(&mut self, manual: &Manual) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..self.below(6) {
            let known = &manual.options[self.below(manual.options.len())];
            match self.below(5) {
                0 => words.push(self.text()),
                1 => words.push(format!("--{}={}", known.long, self.value())),
                2 if known.short.is_some() => words.push(format!("-{}{}", known.short.unwrap(), self.value())),
                _ => {
                    words.push(format!("--{}", known.long));
                    if !known.value.is_empty() {
                        words.push(self.value());
                    }
                }
            }
        }
        if !manual.operands.is_empty() && self.below(3) > 0 {
            words.push(self.one(&["a", "/etc/passwd", "ssh.service", "web"]).to_owned());
        }
        words
    }

    fn processes(&mut self) -> Vec<Process> {
        let one = |chance: &mut Self| Process {
            pid: i32::try_from(chance.next() % 9).unwrap(),
            parent: 1,
            state: chance.one(&["Z", "S", "|", "\n"]).chars().next().unwrap(),
            comm: chance.text(),
            arguments: chance.text(),
            user: Some(0),
            kernel: chance.below(2) == 0,
            resident: chance.figure(),
            mapped: chance.figure(),
            busy: chance.real(),
            elapsed: chance.real(),
        };
        (0..self.below(5)).map(|_| one(self)).collect()
    }

    fn space(&mut self) -> Found {
        match self.below(5) {
            0 => Found::Closed(self.text()),
            _ => Found::Space(Space {
                total: self.figure(),
                free: self.figure(),
                available: self.figure(),
                inodes: self.figure(),
                inodes_free: self.figure(),
            }),
        }
    }

    fn group(&mut self) -> Group {
        let mut maybe = || (self.below(2) == 0).then(|| self.figure());
        Group {
            memory: maybe().unwrap_or(7),
            inactive: maybe().unwrap_or(9),
            memory_limit: maybe(),
            killed: maybe(),
            busy: maybe(),
            share: maybe().zip(maybe()),
            throttled: maybe(),
            pids: maybe(),
            pids_limit: maybe(),
        }
    }
}

/// What the built-in makes of the options and of a machine that chance has made.
fn judged(name: &str, given: &Given, chance: &mut Chance) -> Result<Answer, Misuse> {
    let seen = |chance: &mut Chance| -> Vec<Seen> {
        (0..chance.below(90)).map(|_| Seen { point: chance.text(), found: chance.space() }).collect()
    };
    Ok(match name {
        "load" => {
            let averages = [chance.real(), chance.real(), chance.real()];
            let processors = u32::try_from(chance.next() >> 32).unwrap();
            load::judge(&load::Wanted::of(given)?, &load::Reading { averages, processors })
        }
        "memory" | "swap" => {
            let [total, available, cached, swap_total, swap_free] = [(); 5].map(|()| chance.figure());
            let reading = memory::Reading { total, available, cached, swap_total, swap_free };
            match name {
                "swap" => swap::judge(&swap::Wanted::of(given)?, &reading),
                _ => memory::judge(&memory::Wanted::of(given)?, &reading),
            }
        }
        "disk" => disk::judge(&disk::Wanted::of_disk(given)?, &seen(chance), chance.below(3)),
        "inodes" => disk::judge(&disk::Wanted::of_inodes(given)?, &seen(chance), chance.below(3)),
        "procs" => {
            let user = User { id: 0, name: chance.text() };
            procs::judge(&procs::Wanted::of(given)?, &chance.processes(), Some(&user))
        }
        "uptime" => uptime::judge(&uptime::Wanted::of(given)?, chance.real()),
        "users" => users::judge(&users::Wanted::of(given)?, chance.below(99)),
        "file-age" => {
            let found = file_age::Reading::Found { age: chance.real(), size: chance.figure() };
            let reading = match chance.below(4) {
                0 => file_age::Reading::Missing,
                1 => file_age::Reading::Closed(chance.text()),
                _ => found,
            };
            file_age::judge(&file_age::Wanted::of(given)?, &reading)
        }
        "systemd" => {
            let printed: String = (0..chance.below(9)).map(|_| chance.text() + "\n").collect();
            systemd::judge(&systemd::Wanted::of(given)?, &printed)
        }
        "container" => {
            let wanted = container::Wanted::of(given)?;
            if chance.below(2) == 0 {
                let told = Told::Inspected {
                    status: chance.text(),
                    health: Some(chance.text()),
                    exit_code: i64::MIN,
                    out_of_memory: true,
                    restarts: chance.figure(),
                };
                container::judge_named(&[(chance.text(), told), (chance.text(), Told::Failed(chance.text()))])
            } else {
                let own = Own {
                    busy_before: Some(chance.figure()),
                    group: chance.group(),
                    apart: chance.figure(),
                    machine_memory: chance.figure(),
                    processors: 2,
                };
                container::judge_own(&wanted, &own)
            }
        }
        other => panic!("{other} is not fuzzed"),
    })
}

#[test]
fn no_words_and_no_machine_bring_a_built_in_down() {
    for manual in ALL {
        let (mut answers, mut refusals) = (0, 0);
        for seed in 0..ROUNDS {
            let mut chance = Chance(seed);
            let words = chance.words(manual);
            let answer = manual.read(&words).and_then(|given| judged(manual.name, &given, &mut chance));
            let Ok(answer) = answer else {
                refusals += 1;
                continue;
            };
            answers += 1;
            let (name, text) = (manual.name, &answer.text);
            let known = [State::Ok, State::Warning, State::Critical, State::Unknown];
            assert!(known.contains(&answer.state), "{name}, seed {seed}: {answer:?}");
            assert_eq!(text.lines().count(), 1, "{name}, seed {seed}: {text:?}");
            let figures = split_output(text).perfdata;
            let unread = parse(&figures).dropped;
            // `U` stands for what is no number; every other item is read.
            let unknown = figures.matches("=U").count();
            assert_eq!(usize::try_from(unread).unwrap(), unknown, "{name}, seed {seed}: {text:?}");
        }
        assert!(
            answers > ROUNDS / 10 && refusals > ROUNDS / 10,
            "{}: {answers} answers, {refusals} refusals",
            manual.name
        );
    }
}

#[test]
fn no_text_of_the_kernel_brings_a_reader_down() {
    let lines = [
        "MemTotal: 5 kB\n",
        "MemAvailable: 18446744073709551615 kB\n",
        "22 1 254:0 / / rw - ext4 /dev/vda1 rw\n",
        "23 22 0:21 / /\\040\\777 rw - ",
        "0-3,",
        "4294967295-",
        "Cached:",
        "\n",
        "CLASS=user\n",
    ];
    for seed in 0..20 * ROUNDS {
        let mut chance = Chance(seed);
        let text: String = (0..chance.below(8))
            .map(|_| if chance.below(3) == 0 { chance.text() } else { chance.one(&lines).to_owned() })
            .collect();
        let _ = memory::read(&text);
        let _ = load::processors(&text);
        let _ = users::is_login(&text);
        let _ = users::logins(text.as_bytes());
        let read = mounts::read(&text);
        let picked = mounts::Choice::default().pick(&read);
        assert!(picked.len() <= read.len(), "seed {seed}");
        let _ = mounts::home_of(&text, &read);
    }
}
