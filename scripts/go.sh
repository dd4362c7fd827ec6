# shellcheck shell=bash
# Puts a Go into PATH that is new enough for the tools of the tests: the machine's, or one that is fetched once. Source it.
# Go 1.21 and newer fetch the version that the tool needs by themselves; an older one, as Debian's, can't.
if ! go version 2>/dev/null | grep -qE 'go1\.(2[1-9]|[3-9][0-9])'; then
    tools=${XDG_CACHE_HOME:-$HOME/.cache}/sealrs-tests/go-1.24.6
    if ! [ -x "$tools/bin/go" ]; then
        architecture=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
        rm -rf "$tools.new"
        mkdir -p "$tools.new"
        curl -sSfL "https://proxy.golang.org/golang.org/toolchain/@v/v0.0.1-go1.24.6.linux-$architecture.zip" -o "$tools.new/go.zip"
        (cd "$tools.new" && python3 -m zipfile -e go.zip . && rm go.zip)
        mv "$tools.new/golang.org/toolchain@v0.0.1-go1.24.6.linux-$architecture" "$tools"
        chmod -R u+x "$tools/bin" "$tools/pkg/tool"
        rm -rf "$tools.new"
    fi
    PATH=$tools/bin:$PATH
fi
