# A Telegraf that sends this machine's metrics; sourced by the agents that are one.
#
# Before they source this they set OUTPUT, the lines of the output that sends; $WORKER_ADDRESS in it is put in.
# shellcheck shell=bash disable=SC2034

PROGRAM=$BUILT/telegraf

start() {
    command -v "$PROGRAM" >/dev/null || die "$PROGRAM isn't there: \`make clients\` builds it"
    cat >"$FOLDER/telegraf.conf" <<END
[agent]
  interval = "1s"
  flush_interval = "1s"
  # Else times are whole seconds, and two collections may have the same.
  precision = "1ms"
  hostname = "a host"
  quiet = true
[[inputs.cpu]]
[[inputs.disk]]
  mount_points = ["/"]
[[inputs.diskio]]
[[inputs.mem]]
[[inputs.net]]
  ignore_protocol_stats = true
[[inputs.system]]
# What is sent, once more.
[[outputs.file]]
  files = ["$FOLDER/sent.json"]
  data_format = "json"
${OUTPUT//'$WORKER_ADDRESS'/$WORKER_ADDRESS}
END
    spawn telegraf "$PROGRAM" --strict-env-handling --config "$FOLDER/telegraf.conf"
    TELEGRAF=$LAST
}

# Told to stop it sends what it still has.
finish() {
    kill "$TELEGRAF"
    wait "$TELEGRAF" || die "Telegraf failed: $(tail -n 3 "$FOLDER/telegraf.log")"
    if grep -E ' [EW]! ' "$FOLDER/telegraf.log" >&2; then
        die "something was refused, or lost"
    fi
    SENT=$(jq -s "[.[].fields[] | $COUNTED] | length" "$FOLDER/sent.json")
}
