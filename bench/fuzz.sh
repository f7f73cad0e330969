#!/bin/sh
# Runs every fuzz target (or those named) for so many seconds, one after the other, on one core.
#   bench/fuzz.sh SECONDS [TARGET...]
# Needs a C++ compiler for libFuzzer. A stable toolchain does: the flags are those that cargo-fuzz passes to a nightly one.
set -eu
if [ $# -lt 1 ]; then
    echo "usage: bench/fuzz.sh SECONDS [TARGET...]" >&2
    exit 2
fi
seconds=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- $(cd "$root/fuzz/fuzz_targets" && ls | sed 's/\.rs$//')
triple=$(rustc -vV | sed -n 's/^host: //p')
build=${CARGO_TARGET_DIR:-$root/fuzz/target}/fuzz
corpus=$root/fuzz/corpus

# Seeds: golden files, and the hostile tests' broken ones. A target takes of them as much as its length allows.
if [ ! -d "$corpus" ]; then
    MINKE_KEEP=1 cargo test --manifest-path "$root/Cargo.toml" -p minke-model --test it -- --exact hostile::every_bad_file_gets_the_sentence_in_the_table
    kept=$(ls -td "${CARGO_TARGET_DIR:-$root/target}"/tmp/hostile-[0-9]* | head -n 1)
    # seeds TARGET PATTERN: files of that name under golden/ and among the broken ones, by what they hold.
    seeds() {
        mkdir -p "$corpus/$1"
        find "$root/golden" "$kept" -type f -name "$2" | while read -r file; do
            cp "$file" "$corpus/$1/$(sha256sum < "$file" | cut -c 1-16)"
        done
    }
    seeds gguf '*.gguf'
    seeds safetensors '*.safetensors'
    seeds tokenizer 'tokenizer.json'
    seeds tokenizer '*-vocabulary.json'
    seeds config 'config.json'
    seeds chat_template '*.jinja'
    seeds votes '*.csv'
    seeds votes '*.jsonl'
    rm -r "$kept"
    # What golden files are too large for.
    mkdir -p "$corpus/importance" "$corpus/parameters"
    printf '\72\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}  \0\0\0\0' > "$corpus/safetensors/small"
    printf '\1\0\0\0\1\0\0\0a\2\0\0\0\1\0\0\0\0\0\200\77' > "$corpus/importance/older"
    {
        printf 'GGUF\3\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\11\0\0\0\0\0\0\0a.in_sum2\1\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\10\0\0\0\0\0\0\0a.counts\1\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\40\0\0\0\0\0\0\0'
        head -c 23 /dev/zero
        printf '\0\0\0\77\0\0\200\77'
        head -c 24 /dev/zero
        printf '\0\0\200\77'
    } > "$corpus/importance/gguf"
    printf '{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stream":true,"stop":["x"],"thinking":{"type":"enabled","budget_tokens":9},"temperature":0.5}' > "$corpus/parameters/small"
fi

flags="-Cpasses=sancov-module"
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    flags="$flags -Cllvm-args=-sanitizer-coverage-$flag"
done
flags="$flags -Zsanitizer=address --cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks"
cd "$root/fuzz"
# A target directory for the flags' sake; the triple keeps build scripts free of them.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" CARGO_TARGET_DIR=$build \
    cargo build --release --target "$triple" $(printf -- '--bin %s ' "$@")

failed=0
mkdir -p artifacts
for target in "$@"; do
    case $target in
        gguf | tokenizer) length=16384 ;;
        *) length=4096 ;;
    esac
    mkdir -p "corpus/$target"
    # Nothing that these files hold is worth 64 MiB.
    "$build/$triple/release/$target" "corpus/$target" -dict=model.dict -max_total_time="$seconds" -max_len=$length \
        -malloc_limit_mb=64 -rss_limit_mb=1024 -timeout=10 -artifact_prefix="artifacts/$target-" \
        -print_final_stats=1 > "artifacts/$target.log" 2>&1 || failed=1
    echo "$target: $(grep -E '^Done|^SUMMARY|^stat::number_of' "artifacts/$target.log" | tr '\n' ' ')" \
        "$(grep -Eo 'cov: [0-9]+ ft: [0-9]+' "artifacts/$target.log" | tail -n 1)"
done
exit $failed
