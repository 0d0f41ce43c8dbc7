# Prometheus 3 with remote write 2.0.
# shellcheck shell=bash disable=SC2034
PROGRAM=$BUILT/prometheus
REMOTE='    protobuf_message: io.prometheus.write.v2.Request
    metadata_config: {send: false}'
FLAGS=--enable-feature=metadata-wal-records
source "$HERE/prometheus.sh"
