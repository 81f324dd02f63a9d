//! Who the agent is: gives up root for `nrpe_user` and `nrpe_group` before any thread starts, and makes the environment that its
//! commands see. Must run while the process has one thread.
//!
//! The surprise: a process that is not root keeps its user, whatever the configuration says, and only warns; nrpe does the same, and
//! tests and containers rely on it.

use std::ffi::CString;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{Gid, Group, Uid, User, geteuid, initgroups, setgid, setgroups, setuid};

/// The search path of commands, nrpe's own.
const PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// Becomes this user, and this group or the user's own. `explicitly` says that the user was named on the command line, where
/// `root` is taken at its word.
///
/// # Errors
/// Root would serve; or the user does not exist; or the system refuses.
pub fn give_up(user: Option<&str>, group: Option<&str>, explicitly: bool) -> Result<()> {
    if !geteuid().is_root() {
        if let Some(user) = user
            && find_user(user).is_ok_and(|found| found.uid != geteuid())
        {
            tracing::warn!(user, "only root can become another user; serving as who started the agent");
        }
        return Ok(());
    }
    let Some(user) = user else {
        bail!(
            "refusing to serve as root: name a user with nrpe_user= in the configuration or with --user \
             (--user root, if it must be root)"
        );
    };
    let account = find_user(user)?;
    if account.uid.is_root() {
        ensure!(explicitly, "refusing to serve as root: nrpe_user={user}; only --user root is taken at its word");
        tracing::warn!("serving as root: every command of the configuration runs with all rights");
        return Ok(());
    }
    let group = group.map_or(Ok(account.gid), find_group)?;
    ensure!(group.as_raw() != 0, "refusing to serve with root's group: nrpe_group or --group must be another");
    match CString::new(account.name.as_str()) {
        Ok(name) if !name.is_empty() => initgroups(&name, group).context("the user's groups cannot be taken on")?,
        _ => setgroups(&[group]).context("root's groups cannot be given up")?,
    }
    setgid(group).with_context(|| format!("cannot become group {group}"))?;
    setuid(account.uid).with_context(|| format!("cannot become user {user}"))?;
    ensure!(setuid(Uid::from_raw(0)).is_err(), "root was given up for {user} and can still be had back");
    Ok(())
}

/// What commands see: nrpe's clean environment, and variables of our own that are to be kept. As with nrpe a name in `keep` stands
/// for all that begin with it (`LC_`), and who the user is (`LOGNAME`, `HOME`, …) may be kept; the search path may not.
#[must_use]
pub fn environment(user: Option<&str>, keep: &[String]) -> Vec<(String, String)> {
    let own =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    kept(user, keep, own)
}

fn kept(user: Option<&str>, keep: &[String], own: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut environment: Vec<_> =
        own.filter(|(name, _)| keep.iter().any(|keep| name.starts_with(keep.as_str()))).collect();
    let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.to_owned()));
    set("NRPE_MULTILINESUPPORT", "1");
    set("NRPE_PROGRAMVERSION", super::VERSION);
    set("PATH", PATH);
    set("IFS", " \t\n");
    let account = user.and_then(|user| find_user(user).ok()).or_else(|| User::from_uid(geteuid()).ok().flatten());
    if let Some(account) = account {
        for (name, value) in [
            ("LOGNAME", account.name.as_str()),
            ("USER", account.name.as_str()),
            ("HOME", &account.dir.to_string_lossy()),
            ("SHELL", &account.shell.to_string_lossy()),
        ] {
            if !environment.iter().any(|(kept, _)| kept == name) {
                environment.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    environment
}

/// By name or number. A number without a name is a user too.
fn find_user(user: &str) -> Result<User> {
    let found = match user.parse::<u32>() {
        Ok(number) => {
            let found = User::from_uid(Uid::from_raw(number)).ok().flatten();
            Some(found.unwrap_or_else(|| nameless(number)))
        }
        Err(_) => User::from_name(user).with_context(|| format!("user {user} cannot be looked up"))?,
    };
    found.with_context(|| format!("there is no user {user:?} (nrpe_user, --user)"))
}

fn nameless(number: u32) -> User {
    User {
        name: String::new(),
        passwd: CString::default(),
        uid: Uid::from_raw(number),
        gid: Gid::from_raw(number),
        gecos: CString::default(),
        dir: "/".into(),
        shell: "/bin/sh".into(),
    }
}

fn find_group(group: &str) -> Result<Gid> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(group).with_context(|| format!("group {group} cannot be looked up"))?;
    Ok(found.with_context(|| format!("there is no group {group:?} (nrpe_group, --group)"))?.gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        assert_eq!(find_user("root").unwrap().uid, Uid::from_raw(0));
        assert_eq!(find_user("0").unwrap().name, "root");
        assert_eq!(find_user("3999999").unwrap().gid, Gid::from_raw(3_999_999));
        assert_eq!((find_group("root").unwrap(), find_group("77").unwrap()), (Gid::from_raw(0), Gid::from_raw(77)));
        let error = find_user("no-such-user").unwrap_err().to_string();
        assert!(error.contains("there is no user"), "{error}");
        assert!(find_group("no-such-group").is_err());
    }

    #[test]
    fn root_without_another_name_is_refused() {
        // Whoever runs the tests: only root gets so far that it is refused.
        if geteuid().is_root() {
            assert!(give_up(None, None, false).unwrap_err().to_string().contains("refusing to serve as root"));
            assert!(give_up(Some("root"), None, false).is_err());
            assert!(give_up(Some("0"), None, false).is_err());
            assert!(give_up(Some("nobody"), Some("root"), false).is_err());
            assert!(give_up(Some("no-such-user"), None, true).is_err());
            assert!(give_up(Some("root"), None, true).is_ok());
        } else {
            assert!(give_up(None, None, false).is_ok());
        }
    }

    #[test]
    fn commands_see_nrpes_environment_and_what_is_kept() {
        let environment = environment(Some("root"), &["CARGO_MANIFEST_DIR".to_owned(), "PATH".to_owned()]);
        let last = |name: &str| environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!((last("USER"), last("HOME"), last("PATH")), (Some("root"), Some("/root"), Some(PATH)));
        assert_eq!((last("NRPE_MULTILINESUPPORT"), last("CARGO_PKG_NAME")), (Some("1"), None));
        assert_eq!(last("CARGO_MANIFEST_DIR"), std::env::var("CARGO_MANIFEST_DIR").ok().as_deref());
    }

    #[test]
    fn a_name_that_is_kept_stands_for_all_that_begin_with_it() {
        let own = [("LC_ALL", "C"), ("LC_TIME", "C"), ("LANG", "C"), ("USER", "me"), ("PATH", "/opt")];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = kept(Some("root"), &["LC_", "USER", "PATH"].map(str::to_owned), own.into_iter());
        let last = |name: &str| environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!((last("LC_ALL"), last("LC_TIME"), last("LANG")), (Some("C"), Some("C"), None));
        assert_eq!((last("USER"), last("LOGNAME"), last("PATH")), (Some("me"), Some("root"), Some(PATH)));
    }
}
