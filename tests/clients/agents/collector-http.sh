# The OpenTelemetry Collector, by its exporter `otlp_http`.
# shellcheck shell=bash disable=SC2034
EXPORTER=otlp_http
source "$HERE/collector.sh"
