# An OpenTelemetry Collector that sends this machine's metrics; sourced by the agents that are one.
#
# Before they source this they set EXPORTER, the way that it sends by: otlp_http or otlp_grpc.
# shellcheck shell=bash disable=SC2034

PROGRAM=$BUILT/collector

start() {
    command -v "$PROGRAM" >/dev/null || die "$PROGRAM isn't there: \`make clients\` builds it"
    cat >"$FOLDER/collector.yaml" <<END
receivers:
  host_metrics:
    collection_interval: 1s
    initial_delay: 0s
    scrapers: {cpu: {}, disk: {}, filesystem: {}, load: {}, memory: {}, network: {}, paging: {}, processes: {}}
processors:
  batch: {timeout: 500ms}
exporters:
  # Says of each batch how many data points it has.
  debug: {use_internal_logger: true}
  otlp_http: {endpoint: "http://$WORKER_ADDRESS", retry_on_failure: {enabled: false}}
  otlp_grpc: {endpoint: "$WORKER_ADDRESS", tls: {insecure: true}, retry_on_failure: {enabled: false}}
service:
  telemetry:
    metrics: {level: none}
    logs: {encoding: json, sampling: {enabled: false}}
  pipelines:
    metrics: {receivers: [host_metrics], processors: [batch], exporters: [debug, $EXPORTER]}
END
    spawn collector "$PROGRAM" --config "$FOLDER/collector.yaml"
    COLLECTOR=$LAST
}

# Told to stop it sends what it still has.
finish() {
    kill "$COLLECTOR"
    wait "$COLLECTOR" || die "the Collector failed: $(tail -n 3 "$FOLDER/collector.log")"
    if grep -iE '"level":"error"|partial success' "$FOLDER/collector.log" >&2; then
        die "something was refused, or lost"
    fi
    SENT=$(jq -Rs '[split("\n")[] | fromjson? | .["data points"] // 0] | add' "$FOLDER/collector.log")
    NOTE=$EXPORTER
}
