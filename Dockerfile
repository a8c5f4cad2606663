# The container image: the executable of `deno task compile` on distroless/cc, without a shell or any
# other program. For linux/amd64 and linux/arm64; either can build both.

# The image that provides the other files. Deno's own distroless image is distroless/cc (C libraries,
# certificates, time zones, an unprivileged user, no shell) plus `deno`, which is removed below. Any
# other distroless/cc image works as well:
#   docker build --build-arg RUNTIME_IMAGE=<image> .
ARG RUNTIME_IMAGE=denoland/deno:distroless-2.9.6

FROM ${RUNTIME_IMAGE} AS runtime

# Always on the architecture of the building machine, so that nothing is emulated.
FROM --platform=$BUILDPLATFORM denoland/deno:2.9.6 AS build
WORKDIR /build
# The dependencies first: they are fetched again only when one of these two files changes.
COPY deno.json deno.lock ./
RUN deno install --frozen
COPY main.ts ./
COPY lib/ lib/
COPY deploy/*.ts deploy/
# In a network that cannot reach Deno's download host, pass --build-arg COMPILE_OPTIONS= and
# --build-arg KRAKEN_WHEELS=<URL of a folder with the wheels of the fallback>.
ARG COMPILE_OPTIONS=--no-fallback
ARG KRAKEN_WHEELS=
# Set by Docker: the architecture of the image.
ARG TARGETARCH
RUN deno task compile --arch=${TARGETARCH} ${COMPILE_OPTIONS} /build/kraken-logger
COPY --from=runtime / /image/
RUN rm -rf /image/bin/deno /image/usr/bin/deno /image/tini /image/deno-dir \
 && mkdir -p /image/usr/local/bin \
 && cp kraken-logger /image/usr/local/bin/ \
 && mkdir spool

FROM scratch
LABEL org.opencontainers.image.title="kraken-logger" \
      org.opencontainers.image.description="Stores LabKraken sensor readings from MQTT in PostgreSQL or TimescaleDB" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="GPL-3.0-or-later"
COPY --from=build /image/ /
COPY --from=build --chown=65532:65532 /build/spool/ /var/lib/kraken-logger/
# The user `nonroot` of distroless, as a number, so that Kubernetes can verify that it is not root.
USER 65532:65532
# A new volume gets the owner of the directory at its mount point.
VOLUME /var/lib/kraken-logger
ENV SPOOL_DIRECTORY=/var/lib/kraken-logger
# The status page, reachable inside the container only; HTTP_HOST=0.0.0.0 opens it to the network.
ENV HTTP_PORT=8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s --retries=3 \
  CMD ["/usr/local/bin/kraken-logger", "healthcheck"]
# The logger stores in-flight messages and disconnects from the broker.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/kraken-logger"]
