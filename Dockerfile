# Two images of one build: `docker build --target worker .`, `docker build --target operator .`; buildah builds the
# same. Each holds one program, the libraries that it is linked with, and certificates: no shell, no package
# manager. They run as user 1000 with a read-only root.
#
# From nothing it takes half an hour of two cores, nearly all of it RocksDB's C++; a second build finds it in the
# cache. Who has built the programs already, on Debian 12 and from the same commit, gives their folder in place of
# the stage `binaries`, as `make image` does:
#   docker buildx build --build-context binaries=FOLDER --target worker .

ARG RUST=rust:1.95.0-bookworm
ARG DEBIAN=debian:12.12-slim

FROM ${RUST} AS build
# For RocksDB's bindings. What it generates depends on RocksDB's headers, not on its own version.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    export CARGO_TARGET_DIR=/target && \
    cargo build --profile dist --locked -p luminate-worker -p luminate-operator --bins && \
    install -D -s -t /out /target/dist/luminate-worker /target/dist/luminate-operator

FROM scratch AS binaries
COPY --from=build /out/ /

FROM ${DEBIAN} AS files
# The slim image comes without; no other file of an image is made by a package's installation.
RUN test -e /etc/ssl/certs/ca-certificates.crt || \
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates; }
COPY --from=binaries /luminate-worker /luminate-operator /programs/
COPY LICENSE /usr/share/doc/luminate/copyright
ARG SOURCE_DATE_EPOCH=0
# A program that is linked with something that isn't in the base fails here, not in a cluster.
RUN set -eu; \
    for name in worker operator; do \
        program=/programs/luminate-$name; root=/images/$name; \
        libraries=$(ldd "$program"); \
        if echo "$libraries" | grep 'not found'; then exit 1; fi; \
        install -D -m 755 "$program" "$root/usr/bin/luminate-$name"; \
        for library in $(echo "$libraries" | grep -o '/[^ ]*'); do install -D -m 755 "$library" "$root$library"; done; \
        install -D -m 644 -t "$root/etc/ssl/certs" /etc/ssl/certs/ca-certificates.crt; \
        for package in luminate libc6 libgcc-s1 libstdc++6 ca-certificates; do \
            install -D -m 644 -t "$root/usr/share/doc/$package" "/usr/share/doc/$package/copyright"; \
        done; \
        echo 'hosts: files dns' >"$root/etc/nsswitch.conf"; \
        echo 'luminate:x:1000:1000::/var/lib/luminate:/sbin/nologin' >"$root/etc/passwd"; \
        echo 'luminate:x:1000:' >"$root/etc/group"; \
    done; \
    mkdir -p /images/worker/var/lib /images/data/luminate; \
    find /images -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch AS worker
COPY --from=files /images/worker/ /
COPY --from=files --chown=1000:1000 /images/data/ /var/lib/
ENV PATH=/usr/bin
# Without a configuration the data is in ./data.
WORKDIR /var/lib/luminate
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/luminate-worker"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="luminate-worker" \
      org.opencontainers.image.description="Luminate's worker: stores metrics of very many series and answers queries over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM scratch AS operator
COPY --from=files /images/operator/ /
ENV PATH=/usr/bin
USER 1000:1000
EXPOSE 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/luminate-operator"]
CMD ["run"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="luminate-operator" \
      org.opencontainers.image.description="Luminate's operator: turns a Luminate resource into a running installation" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
