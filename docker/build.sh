#!/bin/sh
# Build the image from this checkout.
#
#   docker/build.sh [IMAGE]           default: aurora-router-cluster
#
# BASE names the base image: debian:bookworm-slim by default, or one made by docker/base.sh. PYTHON is the Python whose pip
# fetches the packages (for the Python of the image: 3.11); it builds our wheels, too.
set -eu
cd "$(dirname "$0")/.."
image=${1:-aurora-router-cluster}
python=${PYTHON:-python3}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
machine=$(uname -m)
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$context/wheel" . ./plugins/cluster
"$python" -m pip install --quiet --target "$context/site" --python-version 3.11 --only-binary=:all: \
  --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" \
  "$(echo "$context"/wheel/aurora_router-*.whl)[binary]" "$context"/wheel/aurora_router_cluster-*.whl rich
rm -rf "$context/wheel"
cp docker/Dockerfile docker/entrypoint.sh "$context/"
printf '#!/usr/bin/python3\nimport sys\nfrom aurora_router.cli.main import main\nsys.exit(main())\n' > "$context/aurora-router"
DOCKER_BUILDKIT=0 docker build --quiet --network host --build-arg "BASE=${BASE:-debian:bookworm-slim}" -t "$image" "$context"
