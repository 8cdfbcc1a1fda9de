#!/bin/sh
# Shows what the allocator's fast paths compile to in a user's program: the six functions of
# src/main.rs, and the allocator's shims and methods that they call, each up to its first return.
#
#   compare/probe/disasm.sh [default|lto]     both profiles when none is named
#
# The compiler lays out the likely path first, so what is shown is the fast path with no conditional
# jump taken. Needs objdump, nm and readelf (binutils), and an x86-64 or aarch64 machine.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}

# Disassembles a program, with calls through the global offset table resolved to names.
disassemble() { # program
    readelf -rW "$1" > "$1.relocations"
    nm -C "$1" > "$1.symbols"
    objdump -d -C --no-show-raw-insn "$1" | awk '
        function plain(hex) { sub(/^0+/, "", hex); return hex }
        FILENAME != "-" && /_RELATIVE/ { points_to[plain($1)] = plain($4); next }
        FILENAME != "-" && $2 ~ /^[tTwW]$/ {
            address = plain($1)
            sub(/^[^ ]+ [^ ]+ /, "")
            name[address] = $0
            next
        }
        FILENAME != "-" { next }
        /(call|jmp) +\*.*# [0-9a-f]+ </ {
            slot = $0
            sub(/^.*# /, "", slot)
            sub(/ .*$/, "", slot)
            if ((slot in points_to) && (points_to[slot] in name))
                sub(/# .*$/, "# <" name[points_to[slot]] ">")
        }
        { print }
    ' "$1.relocations" "$1.symbols" -
}

# Prints one function up to the first return or jump out of it, and counts its instructions.
show() { # listing, symbol
    awk -v symbol="$2" '
        index($0, "<" symbol ">:") { inside = 1; print "<" symbol ">:"; next }
        inside && /^$/ { exit }
        inside {
            sub(/^ +[0-9a-f]+:[ \t]*/, "    ")
            if ($1 ~ /^(nop|nopw|nopl|data16|endbr64|int3)$/) next
            print
            count++
            leaves = ($1 == "jmp" || $1 == "b") && index($0, "<" symbol "+") == 0
            if ($1 ~ /^ret/ || leaves) {
                how = leaves ? "jumps on" : "returns"
                printf "    -- %d instructions to here (%s)\n\n", count, how
                exit
            }
        }' "$1"
}

# The shims and allocator methods that a function calls or jumps to, one per line.
callees() { # listing, symbol
    awk -v symbol="$2" '
        index($0, "<" symbol ">:") { inside = 1; next }
        inside && /^$/ { exit }
        inside && /[ \t](call|jmp|bl|b)[ \t].*</ {
            sub(/^[^<]*</, "")
            sub(/>$/, "")
            if (/__rust_|__rg_|__rdl_|GlobalAlloc>::/ && !/\+0x[0-9a-f]+$/) print
        }' "$1" | sort -u
}

profile() { # default | lto
    folder=$target/probe-$1
    if [ "$1" = lto ]; then
        set -- lto --config 'profile.release.lto="fat"'
    fi
    name=$1
    shift
    cargo build --quiet --release -p probe --manifest-path "$here/../Cargo.toml" \
        --target-dir "$folder" "$@"
    listing=$folder/probe.listing
    disassemble "$folder/release/probe" > "$listing"

    echo "==== release, $name ===="
    echo
    queue=$folder/probe.queue
    printf '%s\n' probe_box40_alloc probe_box40_drop probe_bytes_alloc probe_bytes_free \
        probe_alloc probe_free > "$queue"
    # the list grows while it is read
    position=1
    while symbol=$(sed -n "${position}p" "$queue") && [ -n "$symbol" ]; do
        show "$listing" "$symbol"
        callees "$listing" "$symbol" | while read -r callee; do
            grep -qxF "$callee" "$queue" || printf '%s\n' "$callee" >> "$queue"
        done
        position=$((position + 1))
    done
}

case ${1:-both} in
default | lto) profile "$1" ;;
both)
    profile default
    profile lto
    ;;
*)
    echo "usage: $0 [default|lto]" >&2
    exit 2
    ;;
esac
