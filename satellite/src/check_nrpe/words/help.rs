//! The texts of `-h`, `-V` and `-l`. Ours: check_nrpe's are under its own licence, and name things that are not so here.

/// What a command line looks like.
pub const USAGE: &str = "\
Usage: check_nrpe -H HOST [-p PORT] [-c COMMAND] [-t SECONDS[:STATE]] [options]
                  [-a ARGUMENT...]
";

/// Every option, and what somebody who comes from check_nrpe should know.
pub const OPTIONS: &str = "\
Asks the NRPE daemon of a host to run one of its commands, prints what the
command printed, and ends with its exit code: 0 OK, 1 WARNING, 2 CRITICAL,
3 UNKNOWN. Takes the place of check_nrpe 4.1: link it to that name, or call it
as `perigee-satellite check-nrpe`. Where it does not do what check_nrpe does,
docs/nrpe.md says so and why.

What to ask:
  -H, --host=HOST           name or address of the host
  -p, --port=PORT           port of its daemon (5666)
  -c, --command=COMMAND     name of the command in the daemon's configuration;
                            without it the daemon tells its version
  -a, --args=ARGUMENT...    arguments of the command, for daemons that take any;
                            must be last: all words behind it are arguments
  -t, --timeout=N[:STATE]   seconds for everything together (10); STATE is what
                            a host is that cannot be reached in time or at all:
                            OK, WARNING, CRITICAL, UNKNOWN or 0-3 (CRITICAL)
  -u, --unknown-timeout     the same as -t :UNKNOWN
  -f, --config-file=FILE    further options, separated by blanks or lines; not
                            -c, -a, -f; the command line wins

How to reach it:
  -4, --ipv4; -6, --ipv6    this address family only
  -b, --bind=ADDRESS        own address to come from: what the daemon's
                            allowed_hosts must hold
  -n, --no-ssl              no TLS, for daemons that run with -n
  -2, --v2-packets-only     packets of version 2 only: daemons 2.x, NSClient++
  -3, --v3-packets-only     version 3, then 2: daemons 3.x. Without either all
                            versions are tried
  -P, --payload-size=BYTES  with -2: size of the text in a packet, for
                            NSClient++ with another `payload length` than 1024

Whom to trust (without -A nobody is checked; the connection is only hidden from
those who listen):
  -A, --ca-cert-file=FILE   the daemon must have a certificate of this
                            authority; anonymous daemons are refused
      --verify-name=NAME    and the certificate must bear this name or address;
                            `-` stands for what -H says
      --pin=SHA256          or its public key must have this SHA-256, in
                            hexadecimal digits; may be given several times
  -C, --client-cert=FILE    own certificate, for daemons with ssl_client_certs
  -K, --key-file=FILE       its private key
  -L, --cipher-list=LIST    suites of TLS 1.2 and older, in OpenSSL's words
  -S, --ssl-version=V[+]    SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3; with +
                            that or newer (TLSv1+)
  -d, --use-adh=0|1|2       anonymous Diffie-Hellman: never, allowed (1),
                            nothing else

What is told:
      --explain             after a failure also what happened and what to do;
                            always on a terminal
  -E, --stderr-to-stdout    everything to standard output
  -g, --log-file=FILE       a line about each check is added to this file
  -s, --ssl-logging=BITS    what it tells of TLS: 1 settings, 2 address,
                            4 version, 8 suite, 16 and 32 certificate
  -D, --disable-syslog      accepted; nothing is ever sent to syslog
  -h, --help; -V, --version; -l, --license    all of them end with 3

  check_nrpe -H 192.0.2.10                    which version answers?
  check_nrpe -H 192.0.2.10 -c check_load      one command
  check_nrpe -H web01 -A ca.pem --verify-name - -c check_load
  check_nrpe -H 192.0.2.10 -c check_disk -t 30:UNKNOWN -a -w 10% -c 5% -p /
";

/// The licence of this program.
pub const LICENSE: &str = "\
Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0
There is no warranty of any kind.
";

/// Which program answers to the name of check_nrpe.
#[must_use]
pub fn version() -> String {
    format!(
        "NRPE Plugin for Nagios, of perigee-satellite\nVersion: {} (for check_nrpe 4.1)\n",
        env!("CARGO_PKG_VERSION")
    )
}
