# Debian's Prometheus, which speaks remote write 1.0.
# shellcheck shell=bash disable=SC2034
PROGRAM=prometheus
source "$HERE/prometheus.sh"
