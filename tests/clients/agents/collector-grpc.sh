# The OpenTelemetry Collector, by its exporter `otlp_grpc`.
# shellcheck shell=bash disable=SC2034
EXPORTER=otlp_grpc
source "$HERE/collector.sh"
