# What `.ci/run` and `.ci/long` have in common: proof by machine. Sourced by both; each flavour has a target directory of
# its own, or every switch would rebuild everything.

targets="${CARGO_TARGET_DIR:-$PWD/target}"
host="$(rustc -vV | sed -n 's/^host: //p')"

# Sanitizers and fuzzing want flags of a nightly compiler.
if rustup run nightly rustc -V >/dev/null 2>&1; then
    nightly=(cargo +nightly) toolchain=(--toolchain nightly)
else
    printf '\n!! NO NIGHTLY TOOLCHAIN: sanitizers and fuzzing run on %s with RUSTC_BOOTSTRAP=1\n' "$(rustc -V)"
    nightly=(env RUSTC_BOOTSTRAP=1 cargo) toolchain=()
fi

# tool NAME VERSION: installs a cargo subcommand if it is missing.
tool() {
    [[ "$(cargo "${1#cargo-}" --version 2>/dev/null)" == *"$2"* ]] || cargo install --locked --target-dir "$targets/tools" "$1@$2"
}

loom() {
    RUSTFLAGS="--cfg fusebox_loom" CARGO_TARGET_DIR="$targets/loom" \
        cargo test --profile models --lib models -- --nocapture --test-threads=2
}

shuttle() {
    RUSTFLAGS="--cfg fusebox_shuttle" CARGO_TARGET_DIR="$targets/shuttle" \
        cargo test --profile models --lib schedules -- --nocapture --test-threads=2
}

# sanitizer NAME [cargo test arguments]. The standard library is built along for ThreadSanitizer: it does not see a lock that
# another thread waits for otherwise, and takes everything behind it for a race.
sanitizer() {
    local name="$1" std=()
    shift
    if [[ "$name" == thread ]]; then
        if rustup component add rust-src "${toolchain[@]}"; then
            std=(-Zbuild-std)
        else
            printf '\n!! NO SOURCE OF THE STANDARD LIBRARY: ThreadSanitizer runs the unit tests alone\n'
            set -- --lib
        fi
    fi
    RUSTFLAGS="-Zsanitizer=$name -Cunsafe-allow-abi-mismatch=sanitizer" CARGO_TARGET_DIR="$targets/$name" \
        FUSEBOX_MODEL_CASES="${FUSEBOX_MODEL_CASES:-500}" \
        "${nightly[@]}" test "${std[@]}" --profile models --target "$host" --all-features "$@"
}

# fuzz SECONDS: each target for so long, on the kept corpus, to which nothing is added.
fuzz() {
    tool cargo-fuzz 0.13.1
    local target scratch
    for target in window circuit config; do
        scratch="$(mktemp -d)"
        "${nightly[@]}" fuzz run "$target" "$scratch" "fuzz/corpus/$target" -- -max_total_time="$1" -max_len=512 -print_final_stats=1
        rm -r "$scratch"
    done
}

# mutants [arguments]: ends with 2 if a mutant survives, with 3 if none does but some never end.
mutants() {
    tool cargo-mutants 27.1.0
    FUSEBOX_MODEL_CASES="${FUSEBOX_MODEL_CASES:-400}" CARGO_TARGET_DIR="$targets/mutants" \
        cargo mutants --no-shuffle --colors never -o "$targets" "$@"
}
