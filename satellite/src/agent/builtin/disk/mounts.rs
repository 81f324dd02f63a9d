//! Which mounts count: the text of `/proc/self/mountinfo` into mounts, and of these the ones that were chosen. Asks none of them.
//! The surprise: one file system may be mounted at many places (bind mounts, subvolumes); unless a path is named it counts once,
//! at its shortest mount point.

use std::collections::BTreeMap;

// A line of text becomes a value; the module has its name from the folder in /proc, no process is touched.
use procfs::process as proc_folder;

use crate::agent::builtin::options::Given;

/// Mounts that are read; further ones are left out. A host of containers has some thousands.
pub const MOUNTS_MAX: usize = 20_000;

/// Types that hold no data: what the kernel shows of itself, and what waits for a real mount.
const PSEUDO: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "fuse.lxcfs",
    "fuse.gvfsd-fuse",
    "fuse.portal",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// Types of images that are full by nature.
const FULL: &[&str] = &["cramfs", "erofs", "iso9660", "romfs", "squashfs", "udf"];

/// Types that live on another machine.
const REMOTE: &[&str] = &[
    "9p",
    "afs",
    "ceph",
    "cifs",
    "coda",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
];

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub point: String,
    /// Its type: ext4, nfs4 …
    pub kind: String,
    /// What is mounted: a device, `server:/path`.
    pub source: String,
    /// The number of its file system.
    pub device: String,
}

/// Which file systems are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// Only those that these paths are on; empty: by the rules below.
    pub paths: Vec<String>,
    excluded: Vec<String>,
    excluded_types: Vec<String>,
    included_types: Vec<String>,
    local: bool,
}

impl Choice {
    /// Reads the options that choose.
    #[must_use]
    pub fn of(given: &Given) -> Self {
        let all = |name| given.all(name).map(str::to_owned).collect();
        Self {
            paths: all("path"),
            excluded: all("exclude"),
            excluded_types: all("exclude-type"),
            included_types: all("include-type"),
            local: given.has("local"),
        }
    }

    /// Whether its type counts, and the place where the kernel shows itself is not meant.
    fn has_kind_of(&self, mount: &Mount) -> bool {
        let kind = mount.kind.as_str();
        let listed = |types: &[String]| types.iter().any(|one| one == kind);
        // Asked for by type, even what holds no data is shown.
        let counts = if self.included_types.is_empty() {
            let below = |folder: &str| {
                mount.point.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            !PSEUDO.contains(&kind) && !FULL.contains(&kind) && !below("/proc") && !below("/sys")
        } else {
            listed(&self.included_types)
        };
        counts && !listed(&self.excluded_types) && !(self.local && REMOTE.contains(&kind))
    }

    fn excludes(&self, name: &str) -> bool {
        self.excluded.iter().any(|one| match one.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == one,
        })
    }

    /// The mounts that count when no path is named, each file system once, in order of their mount points.
    #[must_use]
    pub fn pick(&self, mounts: &[Mount]) -> Vec<Mount> {
        let mut picked: BTreeMap<&str, &Mount> = BTreeMap::new();
        for mount in mounts.iter().filter(|mount| self.has_kind_of(mount)) {
            let best = picked.entry(&mount.device).or_insert(mount);
            if (mount.point.len(), &mount.point) < (best.point.len(), &best.point) {
                *best = mount;
            }
        }
        // Last of all: who leaves out `/` does not want it back by the name of a bind mount.
        let left = picked.into_values().filter(|mount| !self.excludes(&mount.point) && !self.excludes(&mount.source));
        let mut picked: Vec<Mount> = left.cloned().collect();
        picked.sort_by(|one, other| one.point.cmp(&other.point));
        picked
    }
}

/// The mounts of a text in the form of `/proc/self/mountinfo`. A line of another form is left out; of mounts at one place only the
/// last one can be seen.
#[must_use]
pub fn read(text: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines().take(MOUNTS_MAX) {
        let Ok(info) = proc_folder::MountInfo::from_line(line) else { continue };
        let mount = Mount {
            point: unescaped(&info.mount_point.to_string_lossy()),
            kind: info.fs_type,
            source: unescaped(&info.mount_source.unwrap_or_default()),
            device: info.majmin,
        };
        match places.get(&mount.point) {
            Some(at) => mounts[*at] = mount,
            None => {
                places.insert(mount.point.clone(), mounts.len());
                mounts.push(mount);
            }
        }
    }
    mounts
}

/// The mount that an absolute path without links is on.
#[must_use]
pub fn home_of<'a>(path: &str, mounts: &'a [Mount]) -> Option<&'a Mount> {
    let on = |mount: &&Mount| match path.strip_prefix(mount.point.trim_end_matches('/')) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    };
    mounts.iter().filter(on).max_by_key(|mount| mount.point.len())
}

/// The kernel writes blank, tab, line feed, backslash and `#` as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let value = digits.map(|digits| digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::builtin::disk::MANUAL;
    use proptest::prelude::*;

    const MOUNTINFO: &str = r"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw,nosuid shared:12 - proc proc rw
24 22 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
25 24 0:23 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755
26 22 0:24 / /dev/shm rw shared:4 - tmpfs tmpfs rw
27 22 254:16 / /srv/with\040blank rw - xfs /dev/vdb rw
28 22 254:0 /var/lib/x /mnt/bind rw - ext4 /dev/vda1 rw
29 22 0:50 / /mnt/nfs rw - nfs4 filer:/export rw,vers=4.2
30 22 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro
31 22 254:32 / /mnt/over rw - ext4 /dev/vdc rw
32 31 254:48 / /mnt/over rw - ext4 /dev/vdd rw
a line of another form
33 22 0:60 / /var/lib/docker/overlay2/a/merged rw - overlay overlay rw,lowerdir=/x
";

    fn picked(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let choice = Choice::of(&MANUAL.read(&words).unwrap());
        choice.pick(&read(MOUNTINFO)).into_iter().map(|mount| mount.point).collect()
    }

    #[test]
    fn every_file_system_with_data_counts_once() {
        let all = ["/", "/dev/shm", "/mnt/nfs", "/mnt/over", "/srv/with blank", "/var/lib/docker/overlay2/a/merged"];
        assert_eq!(picked(""), all);
        assert_eq!(picked("-l -X tmpfs -X overlay"), ["/", "/mnt/over", "/srv/with blank"]);
        assert_eq!(picked("-x / -x /var/lib/docker/* -x filer:/export"), ["/dev/shm", "/mnt/over", "/srv/with blank"]);
        assert_eq!(picked("-N squashfs -N nfs4"), ["/mnt/nfs", "/snap/core/1"]);
        assert_eq!(picked("-N btrfs"), Vec::<String>::new());
        let over = read(MOUNTINFO).into_iter().find(|mount| mount.point == "/mnt/over").unwrap();
        assert_eq!(over.source, "/dev/vdd", "what lies below another mount cannot be seen");
    }

    #[test]
    fn a_path_is_on_the_longest_mount_above_it() {
        let mounts = read(MOUNTINFO);
        for (path, point) in [
            ("/", "/"),
            ("/etc/passwd", "/"),
            ("/mnt/nfsx", "/"),
            ("/mnt/nfs/a", "/mnt/nfs"),
            ("/srv/with blank", "/srv/with blank"),
            ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"),
        ] {
            assert_eq!(home_of(path, &mounts).map(|mount| mount.point.as_str()), Some(point), "{path}");
        }
        assert_eq!(home_of("/", &[]), None);
    }

    #[test]
    fn escapes_are_octal_and_others_stay() {
        for (text, plain) in
            [(r"a\040b", "a b"), (r"\134040", r"\040"), (r"\777", r"\777"), (r"\04", r"\04"), ("\\303\\274", "ü")]
        {
            assert_eq!(unescaped(text), plain, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in r"([0-9]{1,3} [0-9]{1,3} [0-9]:[0-9] / /[a-z\\0-7]{0,6} rw - ext4 [a-z]{0,3} rw\n|.{0,30}\n){0,6}") {
            let mounts = read(&text);
            prop_assert!(Choice::default().pick(&mounts).len() <= mounts.len());
        }
    }
}
