#!/bin/sh
# Undoes what init.sh did. It may be called after a half-finished init, and twice.
set -eu
rm -f "$ROOTFS/etc/state"
