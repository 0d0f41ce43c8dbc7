# Telegraf, by OTLP over gRPC.
# shellcheck shell=bash disable=SC2016,SC2034
OUTPUT='
[[outputs.opentelemetry]]
  service_address = "$WORKER_ADDRESS"
  compression = "gzip"'
# Strings aren't sent.
COUNTED='select(type != "string")'
source "$HERE/telegraf.sh"
