//! The agent as process 1, as in a container without an init: what its commands leave behind falls to it, and it must collect all of
//! that, and nothing that it waits for itself.

use std::fs;
use std::thread;
use std::time::Duration;

use tests::agent::{Agent, SOON};
use tests::missing::missing;
use tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(30);
/// Requests, each of which leaves orphans behind.
const REQUESTS: usize = 24;
/// Leaves two behind, in the group and out of it, that end by themselves and later than the command.
const LEAVING: &str = "(sleep 0.3; echo >>FILE) >/dev/null 2>&1 & setsid sh -c '(sleep 0.2; echo >>FILE) &' >/dev/null 2>&1; \
                       echo left; exit 2";

/// Processes whose parent is this one.
fn children(parent: u32) -> Vec<u32> {
    let stat = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name in brackets: state, parent.
    let parent_of = |pid: &u32| stat(pid).rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let folders = fs::read_dir("/proc").unwrap().flatten();
    let all = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    all.filter(|pid| parent_of(pid) == Some(parent)).collect()
}

#[test]
fn what_commands_leave_to_process_1_is_collected_and_no_status_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ended");
    fs::write(&file, "").unwrap();
    for path in [directory.path(), &file] {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let leaving = LEAVING.replace("FILE", &file.display().to_string());
    let commands = [("leave", leaving.as_str()), ("plain", "echo plain; exit 1")];
    let Some(agent) = Agent::as_first_process(&commands, "").unwrap() else {
        return missing("the right to make a PID namespace", "nothing: run as root");
    };
    let [first] = children(agent.pid())[..] else { panic!("unshare has one child") };

    thread::scope(|scope| {
        for number in 0..REQUESTS {
            let agent = &agent;
            scope.spawn(move || {
                for (command, status) in [("leave", 2), ("plain", 1)] {
                    let said = agent.check_nrpe(command, PATIENCE, &[]).unwrap();
                    assert_eq!(said.status, status, "{number} {command}: {said:?}\n{}", agent.log());
                }
            });
        }
    });
    let ended = || fs::read_to_string(&file).unwrap().lines().count();
    assert!(until(SOON, || ended() == 2 * REQUESTS), "{} of {}", ended(), 2 * REQUESTS);
    assert!(until(SOON, || children(first).is_empty()), "{:?} stay: {}", children(first), agent.log());
}
