#!/bin/bash
# Shows that one command is enough on a bare machine: a Debian with build-essential and the Rust toolchain, nothing else, and
# no network. In a chroot of that kind a fresh clone of HEAD runs `make demo-smoke` (the path of `make demo`, ending by itself),
# then `make test`, which must name what it skips. Ends with one JSON line; logs go to stderr.
#
#   tests/bare-machine.sh [demo-smoke] [test]      # root; both steps unless named
#
# Crates come from the host's cargo cache, read-only: what a bare machine would download. Mounts, processes and the loopback
# network live in namespaces of their own and end with the script. The bare Debian is kept as a tarball in the user's cache.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=bookworm
cache="${XDG_CACHE_HOME:-$HOME/.cache}/perigee"
tarball="$cache/bare-$suite.tar.gz"
read -ra steps <<<"${*:-demo-smoke test}"

say() { echo "bare-machine: $*" >&2; }
die() {
  say "$*"
  exit 2
}

((EUID == 0)) || die "needs root for chroot and namespaces"
for tool in debootstrap unshare ip git cargo; do
  command -v "$tool" >/dev/null || die "$tool is missing (make deps)"
done

# The mirror is the one that this machine's apt uses for the suite; none is written down here.
mirror() {
  {
    # One-line style: deb [options] URI suite components
    sed -nE "s/^deb +(\[[^]]*\] +)?([^ ]+) +$suite +.*main.*/\2/p" /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null
    # Stanzas: URIs and Suites in any order
    for file in /etc/apt/sources.list.d/*.sources; do
      [[ -e $file ]] || continue
      awk -v suite="$suite" 'BEGIN { RS = "" } {
        uri = ""; fits = 0; lines = split($0, line, "\n")
        for (i = 1; i <= lines; i++) {
          words = split(line[i], word, " ")
          if (word[1] == "URIs:") uri = word[2]
          if (word[1] == "Suites:") for (k = 2; k <= words; k++) if (word[k] == suite) fits = 1
        }
        if (fits && uri != "") print uri
      }' "$file"
    done
  } | head -1
}

make_tarball() {
  local from proxy=
  from=$(mirror)
  [[ -n $from ]] || die "apt on this machine names no mirror for $suite"
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  [[ -z $proxy ]] || export http_proxy="$proxy"
  say "making $tarball"
  mkdir -p "$cache" "$work/new"
  debootstrap --variant=minbase --include=build-essential,ca-certificates "$suite" "$work/new" "$from" >&2
  rm -rf "$work/new/var/cache/apt/archives" "$work/new/var/lib/apt/lists"
  tar -C "$work/new" -c . | gzip -1 >"$tarball.part"
  mv "$tarball.part" "$tarball"
  rm -rf "$work/new"
}

work=$(mktemp -d "${TMPDIR:-/var/tmp}/perigee-bare.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
[[ -e $tarball ]] || make_tarball
bare="$work/root"
mkdir "$bare"
tar -C "$bare" -xzf "$tarball"
# Debian's installer writes this file on every machine; debootstrap alone leaves it out.
printf '127.0.0.1 localhost\n::1 localhost\n' >"$bare/etc/hosts"
for tool in node pkg-config cargo git python3; do
  [[ ! -e $bare/usr/bin/$tool ]] || die "the machine is not bare: it has $tool"
done

commit=$(git rev-parse --short HEAD)
say "cloning $commit"
git clone -q --no-hardlinks . "$bare/root/perigee"
git -C "$bare/root/perigee" -c advice.detachedHead=false checkout -q "$commit"
cargo fetch --locked >&2
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
sysroot=$(rustc --print sysroot)
mkdir -p "$bare/opt/rust" "$bare/root/.cargo/registry"
# Where this machine's cargo is told to use a mirror, the cache is laid out for that mirror.
for config in config.toml config; do
  [[ ! -e $cargo_home/$config ]] || cp "$cargo_home/$config" "$bare/root/.cargo/"
done

# Runs in namespaces of its own, so that no mount, process or port outlives it. $1 root, $2 toolchain, $3 registry, then command.
# shellcheck disable=SC2016
inside='
  set -euo pipefail
  bare=$1 sysroot=$2 registry=$3
  shift 3
  ip link set lo up
  mount --bind "$sysroot" "$bare/opt/rust"
  mount -o remount,bind,ro "$bare/opt/rust"
  mount --bind "$registry" "$bare/root/.cargo/registry"
  mount -o remount,bind,ro "$bare/root/.cargo/registry"
  mount -t proc proc "$bare/proc"
  mkdir -p "$bare/dev/shm"
  mount -t tmpfs tmpfs "$bare/dev/shm"
  exec chroot "$bare" /usr/bin/env -i HOME=/root USER=root LANG=C.UTF-8 TERM=dumb CARGO_NET_OFFLINE=true \
    PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /bin/bash -c "cd /root/perigee && exec \"\$@\"" bash "$@"
'
bare() {
  unshare --mount --net --pid --fork --kill-child --propagation private \
    /bin/bash -c "$inside" bare "$bare" "$sysroot" "$cargo_home/registry" "$@" </dev/null
}

passed=0 failed=0
reports=
for step in "${steps[@]}"; do
  began=$SECONDS result=0
  say "make $step"
  bare make "$step" >"$work/out" 2> >(tee "$work/err" >&2) || result=$?
  cat "$work/out" >&2
  report=$(grep -E '^\{.*\}$' "$work/out" | tail -1 || true)
  [[ -n $report ]] || result=1
  if [[ $step == test ]] && ! grep -q '^SKIPPED: ' "$work/err"; then
    say "make test skipped nothing out loud, though the machine has no daemon to ask"
    result=1
  fi
  if ((result == 0)); then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  say "make $step: exit $result after $((SECONDS - began)) s"
  # For the table of proofs (tests/src/figure.rs says the format), if one is being filled.
  counts=$(grep -oE '"(passed|skipped|results|lost|duplicates)":[0-9]+' <<<"$report" | tr -d '"' | tr ':\n' ' ,' | sed 's/,$//' || true)
  printf '1\tmake %s in %d s: %s\n' "$step" $((SECONDS - began)) "$counts" >>"${PERIGEE_FIGURES:-/dev/null}"
  reports+=",\"$step\":{\"exit\":$result,\"seconds\":$((SECONDS - began)),\"report\":${report:-null}}"
done
printf '{"passed":%d,"failed":%d,"skipped":0,"suite":"%s","commit":"%s"%s}\n' \
  "$passed" "$failed" "$suite" "$commit" "$reports"
((failed == 0))
