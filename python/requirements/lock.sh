#!/bin/sh
# Writes the hash-locked requirement files anew from the .in files. Needs uv on the PATH (or in $UV).
# It refuses to write where the packages came from: the lock names versions and hashes, the installer picks the index.
set -eu
cd "$(dirname "$0")"
uv="${UV:-uv}"

compile() { # output, platform, inputs...
    output="$1" platform="$2"
    shift 2
    "$uv" pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
        --python-version 3.11 --python-platform "$platform" --output-file "$output" "$@"
}

compile linux-x86_64.txt x86_64-manylinux_2_35 runtime.in
compile linux-aarch64.txt aarch64-manylinux_2_35 runtime.in
MACOSX_DEPLOYMENT_TARGET=14.0 compile macos-arm64.txt aarch64-apple-darwin runtime.in
compile dev.txt x86_64-manylinux_2_35 --constraints linux-x86_64.txt dev.in
