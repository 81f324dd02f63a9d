#!/bin/bash
# Runs every test of the workspace with the cargo flags given, and counts. Progress and logs go to stderr; stdout gets the
# two closing lines: `N passed, N failed, N skipped` and the same as JSON. A skipped test is one that wrote to the list
# named by PERIGEE_SKIPPED (tests/src/missing.rs); cargo itself counts it as passed, so it is taken off there. A test that
# passed at its second try counts as passed and is named loudly before them. But what a ledger saw lost or twice stays: a line in the list
# named by PERIGEE_VIOLATIONS (tests/src/violation.rs) fails the run, whatever the tries after it said.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

began=$SECONDS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PERIGEE_SKIPPED="$work/skipped" PERIGEE_VIOLATIONS="$work/violations"
: >"$PERIGEE_SKIPPED"
: >"$PERIGEE_VIOLATIONS"

if command -v cargo-nextest >/dev/null; then
  cargo nextest run --no-fail-fast "$@" 2>&1 | tee "$work/log" >&2
  result=${PIPESTATUS[0]}
  # "     Summary [  12.3s] 134 tests run: 132 passed (1 slow), 2 failed, 1 timed out, 0 skipped"
  summary=$(sed 's/\x1b\[[0-9;]*m//g' "$work/log" | grep -E '^ +Summary \[' | tail -1)
  count() { grep -oE "[0-9]+ $1" <<<"$summary" | grep -oE '^[0-9]+' || echo 0; }
  passed=$(count passed)
  failed=$(($(count failed) + $(count 'timed out') + $(count 'exec failed')))
  skipped=0
  # "   FLAKY 2/2 [   1.2s] tests::kill name"
  flaky=$(sed 's/\x1b\[[0-9;]*m//g' "$work/log" | grep -E '^ +FLAKY [0-9]+/[0-9]+ ' | sed -E 's/^ +FLAKY [^]]*\] *//' | sort -u)
else
  cargo test --no-fail-fast "$@" 2>&1 | tee "$work/log" >&2
  result=${PIPESTATUS[0]} flaky=
  # "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out", one line a test program
  read -r passed failed skipped < <(awk '/^test result:/ {
    for (i = 2; i <= NF; i++) {
      if ($i ~ /^passed/) p += $(i - 1)
      if ($i ~ /^failed/) f += $(i - 1)
      if ($i ~ /^ignored/) s += $(i - 1)
    }
  } END { print p + 0, f + 0, s + 0 }' "$work/log")
fi

loud=$(sort -u "$PERIGEE_SKIPPED")
if [[ -n $loud ]]; then
  echo "Not run on this machine:" >&2
  cut -f 2 <<<"$loud" | sort | uniq -c | sed 's/^/  /' >&2
  tests_skipped=$(cut -f 1 <<<"$loud" | sort -u | wc -l)
  passed=$((passed - tests_skipped))
  skipped=$((skipped + tests_skipped))
fi
if ((result != 0 && failed == 0)); then
  echo "make test: cargo ended with exit $result before the tests could be counted" >&2
fi
flaky_tests=0
if [[ -n $flaky ]]; then
  flaky_tests=$(wc -l <<<"$flaky")
  {
    echo "FLAKY: $flaky_tests of them failed at the first try, which is said above under \"TRY 1\". Look into each:"
    while read -r name; do echo "  $name"; done <<<"$flaky"
  } >&2
fi
if [[ -s $PERIGEE_VIOLATIONS ]]; then
  {
    echo "VIOLATED: what must never be was seen, and no later try takes it back:"
    sed 's/^/  /' "$PERIGEE_VIOLATIONS"
  } >&2
  ((result != 0)) || result=1
  # A second try that found nothing made it a passed test.
  if ((failed == 0)); then
    violated=$(cut -f 1 "$PERIGEE_VIOLATIONS" | sort -u | wc -l)
    passed=$((passed - violated)) failed=$violated
  fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
printf '{"passed":%d,"failed":%d,"skipped":%d,"flaky":%d,"seconds":%d}\n' \
  "$passed" "$failed" "$skipped" "$flaky_tests" $((SECONDS - began))
if ((result == 0 && failed == 0 && passed > 0)); then exit 0; fi
((result != 0)) || result=1
exit "$result"
