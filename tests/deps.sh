#!/bin/bash
# Installs what `make test` wants to find on a Debian machine. Does nothing when all of it is there.
# Daemons that Debian would start at once (nrpe, carbon) are kept from starting: the tests run their own copies on loopback
# ports of their own, and a daemon that this script brought in must not hold 5666 or 2003.
set -euo pipefail

packages=(
  nagios-nrpe-server nagios-nrpe-plugin monitoring-plugins-basic # the daemon, its client and plugins, as found in the field
  monitoring-plugins-standard bind9-dnsutils openssh-server      # oracles of the other probes: check_dns and its nslookup, sshd
  graphite-carbon graphite-web                                   # a real store to write to and read back from
  libssl-dev pkg-config                                          # the system's OpenSSL for NRPE's anonymous TLS
  strace openssl jq python3 shellcheck                           # watching, reading, linting
  util-linux iproute2 iptables                                   # networks of their own, and what damages them
  debootstrap                                                    # tests/bare-machine.sh
  chromium                                                       # the page, seen as a person sees it
)
services=(nagios-nrpe-server carbon-cache ssh)

missing=()
for package in "${packages[@]}"; do
  # dpkg-query knows a removed package as well, so its status is asked for.
  if [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]]; then
    missing+=("$package")
  fi
done
if ((${#missing[@]} == 0)); then
  echo "make deps: all ${#packages[@]} packages are installed" >&2
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "make deps: knows Debian's apt only; install by hand what answers to: ${missing[*]}" >&2
  exit 1
fi
if ((EUID != 0)); then
  echo "make deps: needs root to install: ${missing[*]}" >&2
  exit 1
fi

# A service that was not there before must not run because of us; one that was there before is its owner's.
fresh=()
for service in "${services[@]}"; do
  [[ -e /etc/init.d/$service || -e /lib/systemd/system/$service.service ]] || fresh+=("$service")
done
policy=/usr/sbin/policy-rc.d
if ((${#fresh[@]} > 0)) && [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

echo "make deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -q update >&2
apt-get -qy -o Dpkg::Options::=--force-confold install --no-install-recommends "${missing[@]}" >&2
for service in "${fresh[@]}"; do
  if [[ -d /run/systemd/system ]]; then
    systemctl --quiet disable --now "$service" >&2 || true
  fi
done
