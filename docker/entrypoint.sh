#!/bin/sh
# What a container is: instance | node NUMBER | names INNER=OUTER,… | control OPTIONS | client. The secret comes in AURORA_ROUTER_SECRET
# and goes to standard input, where no list of processes shows it.
set -eu
part=$1
shift
case $part in
  instance) set -- aurora_router_cluster.hosts.agent --listen 0.0.0.0:7432 --directory /var/lib/aurora-router ;;
  node) set -- aurora_router_cluster.storage.nodeserver --listen 0.0.0.0:7433 --directory /var/lib/aurora-router --node "$1" ;;
  names) set -- aurora_router_cluster.hosts.nameserver --listen 0.0.0.0:7434 --dns 0.0.0.0:53 \
    --outside 0.0.0.0:5353 --published "$1" ;;
  control) exec python3 -m aurora_router_cluster.supervisor "$1" ;;
  client) exec sleep infinity ;;
  *) echo "there is no part $part" >&2; exit 2 ;;
esac
exec python3 -m "$@" <<EOF
$AURORA_ROUTER_SECRET
EOF
