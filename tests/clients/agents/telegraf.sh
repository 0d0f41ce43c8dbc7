# Telegraf, by InfluxDB's line protocol.
# shellcheck shell=bash disable=SC2016,SC2034
OUTPUT='
[[outputs.influxdb_v2]]
  urls = ["http://$WORKER_ADDRESS"]
  token = "any"
  organization = "any"
  bucket = "any"'
# Strings are no numbers, and so left out by the worker.
COUNTED=.
source "$HERE/telegraf.sh"
