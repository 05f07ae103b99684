#!/bin/bash
# Plants each bug of this folder in a copy of the crate, one at a time, and sees that the test it names fails.
#
# tests/planted_bugs/run.sh [PATCH…]      all of them unless some are named
# tests/planted_bugs/run.sh --check       only sees that they still fit the code, and that it compiles with all of them
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/tests/planted_bugs

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$copy"
target=${CARGO_TARGET_DIR:-$PWD/target}
cd "$copy"

only_check=
if [ "${1:-}" = --check ]; then
    only_check=1
    shift
fi
[ $# -gt 0 ] && patches=("$@") || patches=("$here"/*.patch)

failed=0
for patch in "${patches[@]}"; do
    patch=$here/$(basename "$patch")
    bug=$(basename "$patch" .patch)
    # "Caught by: --test FILE NAME", as cargo test takes it; NAME is the whole name of one test.
    caught_by=$(sed -n 's/^Caught by: //p' "$patch")
    test=${caught_by##* }
    if ! git apply "$patch"; then
        echo "$bug: does not fit the code any more"
        failed=1
        continue
    fi
    [ -z "$only_check" ] || continue
    # A bug may well make a test wait for ever. Dependencies are built once for all of them.
    # shellcheck disable=SC2086 # these are several words
    output=$(timeout 600 cargo test --locked --target-dir "$target/planted" $caught_by 2>&1) && ended=0 || ended=$?
    if [ "$ended" != 0 ] && grep -qE "^test $test( - should panic)? \.\.\. FAILED$|^---- $test stdout" <<<"$output"; then
        echo "$bug: caught by $caught_by"
    elif [ "$ended" = 124 ]; then
        echo "$bug: caught by $caught_by, which never ended"
    else
        echo "$bug: NOT caught by $caught_by"
        tail -n 20 <<<"$output"
        failed=1
    fi
    git apply -R "$patch"
done
if [ -n "$only_check" ]; then
    cargo check --quiet --locked --lib --target-dir "$target" || failed=1
fi
exit "$failed"
