#!/bin/bash
# The proofs behind docs/proof.md, one function a claim, resumable: a claim shown on this commit is not shown again.
#
#   make proof [BUDGET=minutes] [CLAIMS="3 4"] [LONG=1]
#
# BUDGET ends the run before a claim that would begin later. Each claim leaves target/proof/N.log (everything it said) and
# target/proof/N.json (its closing line); its figure, commit and date go into the claim's row. Ends with one JSON line.
# Exit 0: every claim asked for was shown. Exit 1: one was not. Exit 3: none failed, and some were not begun for the budget.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

# What a proof has to try twice is not proven: neither a loss that a second try does not show nor the figures of a try that failed
# may stand in a row. Read by cargo-nextest, whose configuration allows one more try elsewhere.
export NEXTEST_RETRIES=0

# Set by make: cargo's flags with the feature set of this machine.
: "${CARGO_FLAGS:?start it with make proof}"
read -ra cargo_flags <<<"$CARGO_FLAGS"
budget=${BUDGET:-180}
read -ra claims <<<"${CLAIMS:-2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 1}"
out="$PWD/target/proof"
table=docs/proof.md
# What was proven is named by commit, so the tree must be one. The table itself is what a proof rewrites.
commit=$(git rev-parse --short HEAD)
git diff --quiet HEAD -- . ":!$table" || commit+="+"
began=$SECONDS
mkdir -p "$out"

say() { echo "proof: $*" >&2; }

# Runs the named test programs of the tests crate. A skip proves nothing, so a missing part is a failure here as in CI.
programs() {
  local flags=()
  for program in "$@"; do flags+=(--test "$program"); done
  CI=true tests/run.sh "${cargo_flags[@]}" "${flags[@]}"
}

# Measures these rows, and the peers they are measured against.
bench() { CI=true "$CARGO_TARGET_DIR/release/perigee-bench" "$@"; }

# Simulated worlds.
worlds() { "$CARGO_TARGET_DIR/release/perigee-sim" "$@"; }

# The claims, by their row. Each ends with one JSON line on stdout and exits 0 when it held.
claim_1() { tests/bare-machine.sh; }
claim_2() { programs nrpe; }
claim_3() { programs graphite graphite_system; }
claim_4() { PERIGEE_ROUNDS=20 programs kill durable; }
claim_5() { programs link; }
claim_6() { programs apply; }
claim_7() { programs stream; }
claim_8() { bench nrpe-plain nrpe-anon-full nrpe-anon-resumed check_nrpe-forked ingest wire-bytes seglog-append; }
claim_9() { programs nrpe check_nrpe; }
claim_10() { programs agent; }
claim_11() { PERIGEE_FUZZ_INPUTS=10000000 programs nrpe crowd; }
claim_12() { bench nrpe-cert-full nrpe-cert-resumed nrpe-64-parallel agent-answer; }
claim_13() { programs check_nrpe agent; }
# The table of proofs names the worlds by their seeds, so anybody sees the same ones; 20,000 others follow those of the first run.
claim_14() { worlds --seeds 2000 --within 300 --claim && worlds --seeds 20000 --seed-from 100001 --claim; }
claim_15() { worlds --seeds 2000 --defects --claim --table "$table"; }
claim_16() { PERIGEE_ROUNDS=200 PERIGEE_CLAIMS=30 PERIGEE_STOPS=5 PERIGEE_STEPS=3 PERIGEE_SLOTS=all programs kill; }
# With LONG the hour's cut takes an hour, at the pace of everyday, instead of minutes at five hundred results a second.
claim_17() {
  local cut=0
  [[ -z ${LONG:-} ]] || cut=3600
  PERIGEE_PROFILES=all PERIGEE_CUT_SECONDS=$cut programs network
}
# Every call site with two errors, at its first and at a later call, takes most of an hour for the spool and half of one for the
# journal, beside the satellite's volume that stays full for half an hour; ten thousand spools take one and a half minutes.
claim_18() {
  PERIGEE_CALLS=all PERIGEE_SPOOLS=10000 PERIGEE_SPOOL_MIB=1024 PERIGEE_OPERATIONS=10000 PERIGEE_FULL_SECONDS=1800 CI=true \
    tests/run.sh "${cargo_flags[@]}" --test disk --lib &&
    PERIGEE_FULL_SECONDS=60 programs master_disk
}
claim_20() { PERIGEE_IDENTITIES=3000 PERIGEE_FLOOD=1000 PERIGEE_STALL=100 programs storm; }
# Longer than a writer waits for a store that hangs (90 s), three times, after three minutes in which the caches of the master fill.
claim_19() { PERIGEE_STORE_DOWN_POINTS=5000 PERIGEE_STORE_DOWN_SECONDS=120 programs store_down; }

# What stands in the row: what the proof said of itself (tests/src/figure.rs), else its counts.
figure_of() {
  local said
  said=$(awk -F '\t' -v claim="$1" '$1 == claim { all = all (all == "" ? "" : "; ") $2 } END { print all }' "$out/$1.figures")
  if [[ -n $said ]]; then
    echo "$said"
  else
    sed -E 's/.*"passed":([0-9]+).*/\1 passed/' "$out/$1.json"
  fi
}

# Rewrites figure, commit and date of one row and leaves the rest of the table alone.
record() {
  awk -v claim="$1" -v figure="$2" -v commit="$commit" -v date="$(date -u +%F)" '
    BEGIN { FS = OFS = "|" }
    { key = $2; gsub(/ /, "", key) }
    NF == 8 && key == claim { $5 = " " figure " "; $6 = " " commit " "; $7 = " " date " " }
    { print }' "$table" >"$out/table" && cat "$out/table" >"$table"
}

passed=0 failed=0 unbegun=()
for n in "${claims[@]}"; do
  if [[ -e $out/$n.done && $(<"$out/$n.done") == "$commit" && $commit != *+ ]]; then
    say "claim $n: shown on $commit before"
    passed=$((passed + 1))
    continue
  fi
  if (((SECONDS - began) / 60 >= budget)); then
    say "claim $n: not begun, the budget of $budget minutes is used up"
    unbegun+=("$n")
    continue
  fi
  from=$SECONDS result=0
  say "claim $n"
  : >"$out/$n.figures"
  PERIGEE_FIGURES="$out/$n.figures" "claim_$n" > >(tee "$out/$n.out" >&2) 2> >(tee "$out/$n.log" >&2) </dev/null || result=$?
  # The copies of both streams may still be on their way to the files.
  wait
  grep -E '^\{.*\}$' "$out/$n.out" | tail -1 >"$out/$n.json"
  if ((result == 0)) && [[ -s $out/$n.json ]]; then
    passed=$((passed + 1))
    echo "$commit" >"$out/$n.done"
    record "$n" "$(figure_of "$n")"
  else
    failed=$((failed + 1))
    record "$n" "FAILED (exit $result)"
  fi
  say "claim $n: exit $result after $((SECONDS - from)) s, see target/proof/$n.log"
done
printf '{"passed":%d,"failed":%d,"skipped":%d,"commit":"%s","seconds":%d}\n' \
  "$passed" "$failed" "${#unbegun[@]}" "$commit" $((SECONDS - began))
if ((${#unbegun[@]} > 0)); then
  say "NOT PROVEN: claims ${unbegun[*]} were not begun within the budget of $budget minutes; what is left:"
  say "  make proof BUDGET=minutes CLAIMS=\"${unbegun[*]}\""
fi
((failed == 0)) || exit 1
((${#unbegun[@]} == 0)) || exit 3
