#!/bin/sh
# Make the base image with debootstrap from Debian's packages, where no image registry can be reached.
#
#   docker/base.sh [IMAGE]            default: aurora-router-base
#
# Run as root. DEBIAN_MIRROR and DEBIAN_SUITE choose from where, and what (default: debootstrap's mirror, bookworm).
set -eu
image=${1:-aurora-router-base}
suite=${DEBIAN_SUITE:-bookworm}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root/base" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$root/log" 2>&1 || {
  tail -n 20 "$root/log" >&2
  exit 1
}
rm -rf "$root"/base/var/cache/apt/archives/*.deb
tar -C "$root/base" -c . | docker import - "$image"
