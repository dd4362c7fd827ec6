#!/bin/sh
# Starts the "cluster" on the first master. A real one would install and start a distribution here.
set -eu
echo "starting the $CLUSTER cluster on $HOST_IP; its registry is $REGISTRY_URL"
echo "running" >"$ROOTFS/etc/state"
